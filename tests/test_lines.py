"""Lines in every encoding, with the place of what is no character; rows of tables, read again."""

import io
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert import lines as module
from minibert.errors import DataError
from minibert.lines import Lines, checked_encoding, nearest, table_rows

WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def lines_of(content: bytes, encoding: str) -> Lines:
    return Lines(io.BytesIO(content), "a file", len(content), encoding=encoding)


@pytest.mark.parametrize("encoding", WIDE)
def test_wide_encodings_end_lines_at_whole_characters(encoding: str) -> None:
    text = "ab\nਊ਀Ċ\r\nlast"  # U+0A0A, U+0A00, U+010A: all with a byte 0x0a
    lines = lines_of(text.encode(encoding), encoding)
    assert list(lines) == ["ab\n", "ਊ਀Ċ\r\n", "last"]
    assert lines.place == (3, len(text.encode(encoding)))


@pytest.mark.parametrize("order", ["le", "be"])
def test_mark_gives_the_byte_order_and_is_dropped(order: str) -> None:
    for encoding in ("utf-16", "utf-32"):
        content = "\ufeffa\nb".encode(f"{encoding}-{order}")
        assert list(lines_of(content, encoding)) == ["a\n", "b"]
        assert list(lines_of(content, f"{encoding}-{order}")) == ["a\n", "b"]
    assert list(lines_of(b"\xef\xbb\xbfa", "utf-8-sig")) == ["a"]


def test_mark_alone_is_no_line() -> None:
    assert list(lines_of(b"\xef\xbb\xbf", "utf-8")) == []
    assert list(lines_of(b"\xff\xfe", "utf-16")) == []
    assert list(lines_of(b"\xef\xbb\xbf\n", "utf-8")) == ["\n"]


def test_wrong_bytes_are_shown_and_told_until_the_next_line() -> None:
    lines = lines_of(b"ok\nb\xe9d \xff\nend", "utf-8")
    assert next(lines) == "ok\n"
    assert lines.fault is None
    assert next(lines) == "b\\xe9d \\xff\n"
    assert lines.fault is not None
    assert str(lines.fault) == "byte 4, on line 2, is 0xe9, expected UTF-8"
    assert next(lines) == "end"
    assert lines.fault is None


def test_half_a_wide_character_is_told() -> None:
    lines = lines_of("a\n".encode("utf-16-le") + b"b", "utf-16-le")
    assert next(lines) == "a\n"
    assert next(lines) == "\\x62"
    assert str(lines.fault) == "byte 4, on line 2, is 0x62, expected UTF-16-LE"


@pytest.mark.parametrize("encoding", ["nonsense", "rot13", "base64", "cp037", "undefined", ""])
def test_what_is_no_encoding_of_lines_is_refused(encoding: str) -> None:
    with pytest.raises(DataError, match="expected one of Python's encodings of text"):
        checked_encoding(encoding)


def test_mark_of_utf8_in_another_encoding_is_refused() -> None:
    with pytest.raises(DataError, match="begins with the mark of UTF-8, expected iso8859-1; set"):
        next(lines_of(b"\xef\xbb\xbfa", "latin-1"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 10)
    assert list(lines_of("abc\nde".encode(encoding), encoding)) == ["abc\n", "de"]
    with pytest.raises(DataError, match=r"line 2 is longer than 10 bytes, .* tr '\\r' '\\n'"):
        list(lines_of("a\nabcdefghijklm".encode(encoding), encoding))


def test_damage_while_reading_is_refused() -> None:
    class Broken:
        def readline(self, size: int = -1, /) -> bytes:
            raise zlib.error("invalid distance")

    with pytest.raises(DataError, match="a file: its archive is damaged: invalid distance"):
        next(Lines(Broken(), "a file", 10))


def rows_of(text: str) -> list[tuple[list[str], int, list[str], bool]]:
    rows = table_rows(iter(text.splitlines(keepends=True)), ",")
    return [(row.cells, row.line, row.lines, bool(row.error)) for row in rows]


def test_row_with_wrong_quotation_gives_back_the_lines_it_took() -> None:
    assert rows_of('a,1\n"b,2\nc,3\n"d\ne",4\nf\n') == [
        (["a", "1"], 1, ["a,1\n"], False),
        ([], 2, ['"b,2\n'], True),
        (["c", "3"], 3, ["c,3\n"], False),
        (["d\ne", "4"], 4, ['"d\n', 'e",4\n'], False),
        (["f"], 6, ["f\n"], False),
    ]


def test_quotation_that_is_never_closed_costs_one_row() -> None:
    assert rows_of('a\n"b\nc\nd') == [
        (["a"], 1, ["a\n"], False),
        ([], 2, ['"b\n'], True),
        (["c"], 3, ["c\n"], False),
        (["d"], 4, ["d"], False),
    ]


def test_reading_again_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHARS", 2000)
    read = itertools.count()
    text = ('a","\n' for _ in range(300) if next(read) >= 0)  # each takes all that follow
    rows = list(table_rows(itertools.chain(['"\n'], text), ","))
    assert "and the rest of the file is not read" in rows[-1].error
    assert len(rows) < 10


def test_nearest_is_the_name_that_was_meant() -> None:
    assert nearest("txet", ["id", "text", "label"]) == "text"
    assert nearest("label", ["id", " Label "]) == " Label "
    assert nearest("zzz", ["id", "text"]) == ""


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\ufeff"))),
    st.sampled_from([*WIDE, "utf-8"]),
)
def test_lines_come_back_in_any_encoding(texts: list[str], encoding: str) -> None:
    content = "".join(f"{text}\n" for text in texts).encode(encoding)
    lines = lines_of(content, encoding)
    assert list(lines) == [f"{text}\n" for text in texts]
    assert lines.bytes_read == len(content)
