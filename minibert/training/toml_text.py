"""Writing TOML: values that any reader of it takes, and comments that hold anything."""

import json
import textwrap
from collections.abc import Iterable, Sequence

from minibert.errors import DataError

_WIDTH = 100

Value = str | bool | int | float | Sequence[str]


def assignment(key: str, value: Value) -> list[str]:
    """The lines `key = value`; a list that is long for one line has several."""
    if isinstance(value, str | bool | int | float):
        return [f"{key} = {_scalar(value)}"]
    items = [_scalar(each) for each in value]
    line = f"{key} = [{', '.join(items)}]"
    if len(line) <= _WIDTH:
        return [line]
    rows = [""]
    for item in items:
        if rows[-1] and len(rows[-1]) + len(item) + 6 > _WIDTH:
            rows.append("")
        rows[-1] += f"{' ' if rows[-1] else ''}{item},"
    return [f"{key} = [", *(f"    {row}" for row in rows), "]"]


def comment(sentences: Iterable[str]) -> list[str]:
    """Sentences as comment lines, one after another."""
    text = printable(" ".join(sentences))
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_long_words=False)]


def comment_line(line: str) -> str:
    """A line that stays one, with its blanks."""
    return f"# {printable(line)}"


def printable(text: str) -> str:
    """A text without control characters, which TOML forbids, and line ends of any script."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _scalar(value: str | bool | int | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{value!a} holds half a character, expected a name that UTF-8 can write; rename it"
        ) from None
    # What JSON escapes TOML does in the same way, but for one more control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
