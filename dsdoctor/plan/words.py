"""The words of a job as the words of a command: settings become arguments, placeholders what the plan made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import Template
from typing import Any

from dsdoctor.yamlfile import FileError


def arguments(args: Mapping[str, Any], words: Mapping[str, str], where: str) -> list[str]:
    """Settings as command-line words: `--key value`, null left out, true and false as words, a list as several values.

    Raises:
        FileError: a `${placeholder}` that there is not.
    """
    result: list[str] = []
    for key, value in args.items():
        if value is None:
            continue
        result.append(f"--{key}")
        for item in value if isinstance(value, list) else [value]:
            result.append(_word(item, words, f"{where}, {key}"))
    return result


def filled(words: Iterable[Any], known: Mapping[str, str], where: str) -> list[str]:
    """Words of a command with the placeholders put in. Raises FileError for one that there is not."""
    return [_word(word, known, where) for word in words]


def _word(value: Any, words: Mapping[str, str], where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    try:
        return Template(value).substitute(words)
    except KeyError as error:
        if error.args[0] in ("data_dir", "model_dir"):
            key = str(error.args[0])[:-4]
            raise FileError(
                where, f"there is no ${{{error.args[0]}}}, since the job says nothing of sync.{key}: where it is here"
            ) from None
        known = ", ".join(f"${{{word}}}" for word in words)
        raise FileError(where, f"there is no ${{{error.args[0]}}}; there are: {known}") from None
    except ValueError:
        raise FileError(where, f"{value!r} holds a $ that names nothing; write $$ for a plain one") from None
