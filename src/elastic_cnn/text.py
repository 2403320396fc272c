"""Names and texts of others, made fit for a terminal, a table and JSON, and back."""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def utf8(text: str) -> str:
    """File names may hold bytes that are not UTF-8; they are shown as \\xNN. Other names as they are."""
    if text.isascii():  # as most are: this is asked for every photo
        return text
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def named_in() -> str:
    """What a name that is no UTF-8 is not named in, and what to do: with some locales Python reads no name as UTF-8."""
    encoding = sys.getfilesystemencoding()
    return "UTF-8: rename it" if encoding == "utf-8" else f"{encoding}, as your locale has names: set PYTHONUTF8=1"


def file_name(text: str) -> str:
    """The inverse of `utf8`: the name as the system has it."""
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(text)))


def printable(text: str) -> str:
    """Control characters of file and class names shown, not obeyed by the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def listed(names: Sequence[str], most: int = 8) -> str:
    """`'a', 'b' and 3 more`."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def alternatives(names: Iterable[str]) -> str:
    """`a, b or c`."""
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last


def escape_what_streams_cannot_show() -> None:
    """From now on standard output writes characters that its encoding lacks as \\uNNNN, as standard error does."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # a stand-in of a test may have none
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def open_closed_streams() -> None:
    """From now on standard streams that were closed (`>&-`) lead nowhere: no file that is opened takes their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def wrong_class_name(names: Iterable[str]) -> str:
    """What to say of the first class name that is empty or cannot be written in UTF-8; empty where all are right."""
    for number, name in enumerate(names):
        if not name.strip():
            return f"a class has no name ({name!r}, number {number} from 0 on): give it one"
        if any("\ud800" <= character <= "\udfff" for character in name):
            return f"the class name {name!r} holds half a character (a lone surrogate): write it anew"
    return ""


def repeated_key(pairs: list[tuple[str, Any]]) -> str:
    """What to say of a JSON object that holds a key twice: Python would keep the last in silence."""
    name, count = Counter(key for key, _ in pairs).most_common(1)[0]
    return f"the key {name!r} stands {'twice' if count == 2 else f'{count} times'} in one object: keep one of them"


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads(..., object_pairs_hook=distinct_keys)`. `ValueError` where a key stands twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(repeated_key(pairs))
    return values
