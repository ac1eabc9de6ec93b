"""Users of the host."""

from __future__ import annotations

import os


def user_name(uid: int) -> str:
    """The name of a user, or its number."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def home_folder() -> str:
    """The user's home as the password database has it, which is where NCCL looks; $HOME without an entry there."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.environ.get("HOME", "/")
