"""Where the data that is shipped with dsdoctor lies: job files, templates and sample hostfiles.

In a wheel they are below `dsdoctor/_data/`; in a checkout, and in an editable install of one, they are beside the
package. `_data`, because a folder `dsdoctor/launch` would be taken for a module.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The shipped folder of that name: `launch`, `templates` or `hostfiles`.

    Raises:
        FileNotFoundError: the installation is not complete.
    """
    for place in (_PACKAGE / "_data" / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{name}: not found in this installation of dsdoctor ({_PACKAGE}); install it again")
