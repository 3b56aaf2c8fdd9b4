"""Reading files of texts: every format, and every fault with its line or byte."""

import csv
import io
import json
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import DataError
from minibert.texts import format_of, read_texts, size_bytes

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ONE_LINE = ANY_TEXT.map(lambda text: text.replace("\n", " ").removesuffix("\r"))


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts_of(path: Path, **options: str) -> list[str]:
    return [item.text for item in read_texts(path, **options)]


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        texts_of(path, **options)
    return str(caught.value)


# Numbers by hand.


def test_txt_gives_a_text_a_line_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"\xef\xbb\xbfone\r\n\ntw\xc3\xb6\nlast")
    assert list(read_texts(path)) == [
        ("one", 1, 8),
        ("", 2, 9),
        ("twö", 3, 14),
        ("last", 4, 18),
    ]


def test_txt_breaks_lines_at_line_feeds_only(tmp_path: Path) -> None:
    text = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h"
    assert texts_of(write(tmp_path, "a.txt", f"{text}\n")) == [text]


def test_txt_keeps_nul_bytes_blanks_and_a_second_bom(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "\ufeff\ufeffa\0b \n \n")
    assert texts_of(path) == ["\ufeffa\0b ", " "]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_empty_file_has_no_texts(tmp_path: Path, name: str) -> None:
    assert texts_of(write(tmp_path, name, b"")) == []


def test_jsonl_gives_strings_and_fields(tmp_path: Path) -> None:
    lines = '"a\\u0000b"\n{"text": "c", "title": "x"}\r\n{"text": ""}'
    path = write(tmp_path, "a.jsonl", lines)
    assert [(item.text, item.line) for item in read_texts(path)] == [("a\0b", 1), ("c", 2), ("", 3)]
    assert texts_of(write(tmp_path, "b.ndjson", '{"title": "x"}'), field="title") == ["x"]


def test_csv_gives_the_column_by_name_number_or_default(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", '\ufeffid,text,2\n1,"a ""b"", c",d\n2,"two\nlines",e\n3,,f')
    assert list(read_texts(path)) == [
        ('a "b", c', 2, 30),
        ("two\nlines", 3, 46),
        ("", 5, 50),
    ]
    assert texts_of(path, field="id") == texts_of(path, field="1") == ["1", "2", "3"]
    assert texts_of(path, field="2") == ["d", "e", "f"]  # a name goes before a number
    assert texts_of(path, field="3") == ["d", "e", "f"]


def test_table_with_one_column_needs_no_field(tmp_path: Path) -> None:
    assert texts_of(write(tmp_path, "a.csv", "words\na\nb\n")) == ["a", "b"]


def test_tsv_splits_at_tabs_only(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "id\ttext\n1\ta, b; c\r\n")
    assert texts_of(path) == ["a, b; c"]


def test_csv_may_choose_among_columns_of_one_name_by_number(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,text\na,b\n")
    assert texts_of(path, field="2") == ["b"]


def test_very_long_lines_are_read_and_the_limit_of_csv_stays(tmp_path: Path) -> None:
    long = "word " * 100_000
    before = csv.field_size_limit()
    assert texts_of(write(tmp_path, "a.csv", f"text\n{long}\n")) == [long]
    assert texts_of(write(tmp_path, "a.txt", f"{long}\n{long}")) == [long, long]
    assert csv.field_size_limit() == before


def test_format_goes_by_suffix_unless_given(tmp_path: Path) -> None:
    assert [format_of(name) for name in ("-", "a.TXT", "b/c.jsonl", "d.csv", "e.tsv")] == [
        "txt",
        "txt",
        "jsonl",
        "csv",
        "tsv",
    ]
    assert texts_of(write(tmp_path, "a.data", '"a"\n'), format="jsonl") == ["a"]


def test_standard_input_is_read_as_text_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ä\nb".encode())))
    assert size_bytes("-") is None
    assert [item.text for item in read_texts("-")] == ["ä", "b"]


def test_other_encodings_are_read_where_they_are_said(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "grün\nblau\n".encode("utf-16"))
    assert texts_of(path, encoding="utf-16") == ["grün", "blau"]
    path = write(tmp_path, "a.csv", "text\ngrün\n".encode("latin-1"))
    assert texts_of(path, encoding="latin-1") == ["grün"]
    assert "expected UTF-8" in refusal(path)


def test_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    assert size_bytes(pipe) is None  # and does not wait for a writer
    if (child := os.posix_spawn("/bin/sh", ["sh", "-c", f"printf 'a\\nb' > '{pipe}'"], {})) > 0:
        assert texts_of(pipe) == ["a", "b"]
        os.waitpid(child, 0)


def test_file_that_grows_is_read_to_the_size_it_had(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one\ntwo\n")
    texts = read_texts(path)
    assert next(texts).text == "one"
    with path.open("a") as file:
        file.write("three\n")
    assert [item.text for item in texts] == ["two"]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", f"{'a line ' * 150}\n" * 3000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_texts(path)) == 3000
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < path.stat().st_size / 10


# Refusals: each one line, with the file and the place.


def test_file_cut_short_meanwhile_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "a line of text\n" * 100_000)
    texts = read_texts(path)
    next(texts)
    os.truncate(path, 15)
    with pytest.raises(DataError, match="expected 1500000 as when it was opened"):
        list(texts)


def test_wrong_encoding_is_refused_with_its_byte(tmp_path: Path) -> None:
    assert refusal(write(tmp_path, "a.txt", b"good\nb\xe9d\n")).endswith(
        "a.txt: byte 6, on line 2, is 0xe9, expected UTF-8; convert the file, for example with "
        "iconv -f LATIN1 -t UTF-8"
    )
    assert "byte 0, on line 1, is 0xff, expected UTF-8" in refusal(
        write(tmp_path, "b.txt", "a\nb".encode("utf-16"))
    )
    assert "iconv -f UTF-16 -t UTF-8" in refusal(tmp_path / "b.txt")
    assert "byte 5, on line 1" in refusal(write(tmp_path, "c.txt", b"\xef\xbb\xbfab\xff"))
    assert "byte 4, on line 1, is 0xc3" in refusal(write(tmp_path, "d.csv", b"text\xc3\n"))
    assert "byte 1, on line 1, is 0xff" in refusal(write(tmp_path, "e.jsonl", b'"\xff"\n'))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "a.jsonl: line 2 is not JSON: Expecting value"),
        ("", "a.jsonl: line 2 is not JSON: it is empty; expected a string or an object"),
        ('{"title": "x"}', "line 2 has no field 'text', only 'title'; choose one with --field"),
        ("{}", "line 2 has no field 'text', only none"),
        ('{"text": null}', "line 2: got NoneType null, expected a string, or an object whose"),
        ("[1]", "line 2: got list [1], expected a string"),
        ('"a\\ud800b"', "line 2 has the lone surrogate '\\ud800'"),
        ("[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_jsonl_line_without_text_is_refused(tmp_path: Path, line: str, said: str) -> None:
    assert said in refusal(write(tmp_path, "a.jsonl", f'"good"\n{line}\n'))


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ("", None, "a.csv: is empty, expected a header that names the columns"),
        ("a,b\n1,2\n", None, "has no column 'text', only 'a', 'b'; choose one with --field"),
        ("a,b\n1,2\n", "c", "has no column 'c'"),
        ("a,b\n1,2\n", "0", "has no column '0'"),
        ("a,b\n1,2\n", "3", "has no column '3'"),
        ("x,text,text\n1,2,3\n", None, "has 'text' 2 times, expected once; choose by number, for "),
        ('text,n\n"a\nb",1\nc\n', None, "a.csv: line 4 has 1 columns, expected 2 as in the header"),
        ("text,n\na,1\n\n", None, "a.csv: line 3 has 0 columns, expected 2"),
        ("text,n\na,1,2\n", None, "a.csv: line 2 has 3 columns, expected 2"),
        ('text,n\na,1\n"b"c,2\n', None, "a.csv: line 3 is no row of the table"),
        ('text,n\na,1\n"b,2\nc,3\n', None, "a.csv: line 3 is no row of the table"),
    ],
)
def test_bad_table_is_refused(tmp_path: Path, content: str, field: str | None, said: str) -> None:
    path = write(tmp_path, "a.csv", content)
    assert said in (refusal(path) if field is None else refusal(path, field=field))


def test_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert "absent.txt: cannot be read: No such file" in refusal(tmp_path / "absent.txt")
    (tmp_path / "folder.txt").mkdir()
    assert "folder.txt: cannot be read: Is a directory" in refusal(tmp_path / "folder.txt")
    with pytest.raises(DataError, match="No such file"):
        size_bytes(tmp_path / "absent.txt")


def test_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, "a.txt", "a")
    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert "a.txt: cannot be read: Permission denied" in refusal(path)


def test_unknown_format_is_refused(tmp_path: Path) -> None:
    assert "has the suffix '.gz', expected one of txt, jsonl, csv, tsv; give --format" in refusal(
        tmp_path / "a.txt.gz"
    )
    assert "format is 'xml', expected one of" in refusal(tmp_path / "a.txt", format="xml")
    assert "txt has no field 'b'" in refusal(write(tmp_path, "a.txt", "a"), field="b")


# Properties.


@given(st.lists(ONE_LINE), st.booleans())
def test_lines_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], crlf: bool
) -> None:
    texts = [text.removeprefix("\ufeff") for text in texts]
    end = "\r\n" if crlf else "\n"
    path = write(tmp_path_factory.mktemp("t"), "a.txt", "".join(text + end for text in texts))
    items = list(read_texts(path))
    assert [item.text for item in items] == texts
    assert [item.line for item in items] == list(range(1, len(texts) + 1))
    assert not items or items[-1].bytes_read == path.stat().st_size


@given(st.lists(ANY_TEXT), st.booleans())
def test_json_lines_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], escaped: bool
) -> None:
    lines = [json.dumps({"n": 1, "text": text}, ensure_ascii=escaped) for text in texts]
    path = write(tmp_path_factory.mktemp("t"), "a.jsonl", "\n".join(lines))
    assert texts_of(path) == texts


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT)), st.sampled_from(["csv", "tsv"]))
def test_tables_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("t") / f"a.{suffix}"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if suffix == "tsv" else ",")
        writer.writerows([("x", "text"), *rows])
    assert texts_of(path) == [text for _, text in rows]
    assert texts_of(path, field="x") == [text for text, _ in rows]
