"""Reading labelled rows: every format by hand, hostile files, tables in any dialect."""

import codecs
import csv
import dataclasses
import json
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import without_type_checks

from minibert.errors import DataError
from minibert.training import rows as module
from minibert.training.dialect import Dialect
from minibert.training.rows import BadRow, Place, Row, fingerprint, read_rows

SPACED = Dialect("csv", delimiter=" ", columns=2, header=False)
BARE = Dialect(header=False, quoting=False)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(source: Any, dialect: Dialect | None = None, **options: Any) -> list[dict[str, Any]]:
    """The values of rows that are all good."""
    rows = list(read_rows(source, dialect, **options))
    assert all(isinstance(row, Row) for row in rows), rows
    return [dict(row.values) for row in rows if isinstance(row, Row)]


def outcomes(source: Any, dialect: Dialect | None = None, **options: Any) -> list[Any]:
    """The values of good rows; of bad ones line, kind, message."""
    return [
        list(row.values.values())
        if isinstance(row, Row)
        else (row.place.line, row.kind, row.message)
        for row in read_rows(source, dialect, **options)
    ]


def refusal(source: Any, dialect: Dialect | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(source, dialect, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Each format by hand.


def test_csv_rows_have_columns_by_name_and_by_number(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", '\ufefftext,label,2\r\n"a ""b"",\nc",x,p\n\nd,y,q\n')
    first, second = read_rows(path)
    assert isinstance(first, Row)
    assert dict(first.values) == {"text": 'a "b",\nc', "label": "x", "2": "p"}
    assert (first.value("1"), first.value(3), first.values["2"]) == ('a "b",\nc', "p", "p")
    assert (str(first.place), str(second.place)) == (f"{path}: line 2", f"{path}: line 5")
    assert first.place == Place(str(path), 2)


def test_table_without_header_has_numbered_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'ham\t"hi" he said\nspam\twin "now\n')
    assert values(path, BARE) == [
        {"1": "ham", "2": '"hi" he said'},
        {"1": "spam", "2": 'win "now'},
    ]


def test_blank_splits_label_from_text_at_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "train.dev", '1 a  fine "film\r\n0 b\n1\n')
    assert outcomes(path, SPACED) == [
        ["1", 'a  fine "film'],
        ["0", "b"],
        (3, "columns", "has 1 column, expected 2 as set"),
    ]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("error", [["a", "b"], (2, "columns", "has 3 columns, expected 2 as set"), ["f", "g"]]),
        ("ignore", [["a", "b"], ["c", "d"], ["f", "g"]]),
        ("join", [["a", "b"], ["c", "d;e"], ["f", "g"]]),
    ],
)
def test_extra_columns_do_as_told(tmp_path: Path, extra: str, expected: list[Any]) -> None:
    path = write(tmp_path, "a.csv", "a;b\nc;d;e\nf;g")
    dialect = Dialect(delimiter=";", quoting=False, header=False, columns=2, extra_columns=extra)
    assert outcomes(path, dialect) == expected


def test_ragged_rows_are_told_and_reading_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,n\na,1\nb\nc,2,3\nd,4\n")
    assert outcomes(path) == [
        ["a", "1"],
        (3, "columns", "has 1 column, expected 2 as in the header"),
        (4, "columns", "has 3 columns, expected 2 as in the header"),
        ["d", "4"],
    ]
    assert outcomes(path, BARE)[2] == (
        3,
        "columns",
        "has 1 column, expected 2 as in the first row, line 1",
    )
    bad = [row for row in read_rows(path) if isinstance(row, BadRow)]
    assert [row.raw for row in bad] == ["b", "c,2,3"]


def test_jsonl_takes_objects_lists_and_strings(tmp_path: Path) -> None:
    lines = '{"text": "a", "labels": ["x", "y"], "n": 1.5}\n\n["b", 2]\r\n"c"\n'
    first, second, third = values(write(tmp_path, "a.jsonl", lines))
    assert first == {"text": "a", "labels": ["x", "y"], "n": 1.5}
    assert second == {"1": "b", "2": 2}
    assert third == {"text": "c"}


def test_bad_json_is_told_and_reading_goes_on(tmp_path: Path) -> None:
    deep = "[" * 100_000
    path = write(tmp_path, "a.jsonl", f'{{"text": "a"}}\n{{"text": }}\n7\n{deep}\n{{"text": "b"}}')
    found = outcomes(path)
    assert found[0] == ["a"]
    assert found[1] == (2, "JSON", "is not JSON: Expecting value at character 10")
    assert found[2] == (3, "JSON", 'is 7, expected an object, such as {"text": "…"}')
    assert found[3][:2] == (4, "JSON")
    assert found[4] == ["b"]


def test_characters_that_no_text_has_are_told(tmp_path: Path) -> None:
    lines = '{"a": "\\ud800"}\n{"a": ["x", {"b": "\\u0000"}]}\n{"a": "\\ud83d\\ude00"}\n'
    surrogate, nul, good = outcomes(write(tmp_path, "a.jsonl", lines))
    assert surrogate[:2] == (1, "surrogate")
    assert "has the lone surrogate '\\ud800', half of a character" in surrogate[2]
    assert nul[:2] == (2, "NUL")
    assert good == ["\U0001f600"]
    table = write(tmp_path, "a.csv", "text\na\n\0b\nc\n")
    assert outcomes(table) == [["a"], (3, "NUL", outcomes(table)[1][2]), ["c"]]
    assert "has a NUL at character 1" in outcomes(table)[1][2]
    utf7 = Dialect(encoding="utf-7")
    assert outcomes(write(tmp_path, "b.txt", "+2AA-"), utf7)[0][:2] == (1, "surrogate")


def test_conll_gives_sentences(tmp_path: Path) -> None:
    text = (
        "# a comment\n-DOCSTART- -X- -X- O\n\nEU\tNNP\tB-ORG\n#\tNN\tO \n \t\n\n"
        "# text = x y\nit\tPRP\tO\r\n"
    )
    first, second = read_rows(write(tmp_path, "a.conll", text))
    assert isinstance(first, Row)
    assert dict(first.values) == {"tokens": ["EU", "#"], "2": ["NNP", "NN"], "tags": ["B-ORG", "O"]}
    assert first.values["3"] == ["B-ORG", "O"]
    assert first.values["1"] == ["EU", "#"]
    assert (first.place.line, second.place.line) == (4, 9)


def test_conll_may_be_split_at_blanks(tmp_path: Path) -> None:
    path = write(tmp_path, "a.bio", "# note that this is no token\nEU  B-ORG\n# O\n")
    assert values(path, Dialect(columns=2)) == [{"tokens": ["EU", "#"], "tags": ["B-ORG", "O"]}]
    piped = Dialect("conll", delimiter="|")
    assert values(write(tmp_path, "b", "a b|O\n"), piped) == [{"tokens": ["a b"], "tags": ["O"]}]


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ("b", "columns", "line 5 has 1 column, expected 2"),
        ("#b", "columns", "line 5 has 1 column, expected 2"),
        ("b\tO\tx", "columns", "line 5 has 3 columns, expected 2"),
        ("\tO", "columns", "line 5 has nothing in column 1"),
        ("b\0\tO", "NUL", "has a NUL at character 2"),
    ],
)
def test_conll_line_that_is_wrong_makes_its_sentence_bad(
    tmp_path: Path, wrong: str, kind: str, said: str
) -> None:
    path = write(tmp_path, "a.conll", f"x\tO\n\n\na\tO\n{wrong}\nc\tO\nd\n\ny\tO")
    good, bad, last = read_rows(path)
    assert isinstance(bad, BadRow)
    assert bad.place == Place(str(path), 4)
    assert bad.kind == kind
    assert said in bad.message
    assert bad.raw == f"a\tO\n{wrong}\nc\tO\nd"
    assert isinstance(good, Row)
    assert isinstance(last, Row)
    assert last.value("tokens") == ["y"]


def test_conll_without_tags_is_told_and_extra_columns_may_be_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, "a.conll", "a\n\nb\tO\textra\n")
    assert outcomes(path)[0] == (1, "columns", "line 1 has 1 column, expected 2 or more")
    assert outcomes(path, Dialect(columns=2, extra_columns="ignore"))[1] == [["b"], ["O"]]


def test_txt_gives_lines_and_numbers_documents_across_files(tmp_path: Path) -> None:
    first = write(tmp_path, "a.txt", "\n\ufeffone\r\n two \n \n\nthree".encode())
    second = write(tmp_path, "b.txt", "four\n")
    assert values([first, second]) == [
        {"text": "\ufeffone", "document": 1},
        {"text": " two ", "document": 1},
        {"text": "three", "document": 2},
        {"text": "four", "document": 3},
    ]


def test_folders_give_a_text_a_file(tmp_path: Path) -> None:
    write(tmp_path, "r/pos/2.txt", "\ufeffgood\r\nfilm\n")
    write(tmp_path, "r/neg/sub/1.txt", "")
    write(tmp_path, "r/neg/.hidden", "x")
    write(tmp_path, "r/.git/x", "x")
    write(tmp_path, "r/pos/3", b"a\nb\xff\nc\xff")
    *good, bad = read_rows(tmp_path / "r", Dialect("folders"))
    assert [dict(row.values) for row in good if isinstance(row, Row)] == [
        {"text": "", "label": "sub", "name": "1.txt"},
        {"text": "good\r\nfilm\n", "label": "pos", "name": "2.txt"},
    ]
    assert bad.place == Place(str(tmp_path / "r/pos/3"))
    assert isinstance(bad, BadRow)
    assert bad.message.startswith("byte 3, on line 2, is 0xff, expected UTF-8")
    assert bad.raw == "b\\xff"


def test_file_too_long_for_one_text_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHARS", 10)
    write(tmp_path, "r/a", "12345\n1234\n")
    write(tmp_path, "r/b", "12345\n123\n")
    bad, good = outcomes(tmp_path / "r", Dialect("folders"))
    assert bad == (None, "length", "is longer than 10 characters")
    assert good == ["12345\n123\n", "r", "b"]


def test_rows_may_be_made_in_python() -> None:
    made: list[dict[str, Any]] = [{"text": "a", "label": 1}, {"text": "b\0", "label": 2}]
    good, bad = read_rows(iter(made))
    assert isinstance(good, Row)
    assert (good.value(2), str(good.place)) == (1, "row 1")
    assert isinstance(bad, BadRow)
    assert (str(bad.place), bad.kind) == ("row 2", "NUL")
    assert bad.raw == "{'text': 'b\\x00', 'label': 2}"
    assert list(read_rows([])) == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([{"a": 1}, None], "row 2 is NoneType 'None', expected a mapping"),
        ([{"a": 1}, "a.csv"], "row 2 is str 'a.csv', expected a mapping"),
        ([{7: "a"}], "row 1 is dict"),
        ({"text": ["a"]}, "rows are a mapping, expected a list of mappings"),
        (iter(["text", "label"]), 'of a table of pandas, give .to_dict("records")'),
    ],
)
def test_what_is_no_row_is_a_type_error(source: Any, said: str) -> None:
    with pytest.raises(TypeError) as caught:
        list(without_type_checks(module).read_rows(source))
    assert said in str(caught.value)


# Columns.


def test_absent_column_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,label\na,b\n")
    assert refusal(path, wanted=["txet"]) == (
        f"{path}: has no column 'txet', perhaps 'text'; it has 'text', 'label', numbered from 1"
    )
    assert "has no column '3'" in refusal(path, wanted=[3])
    assert len(values(path, wanted=["text", "2", 1])) == 1
    (row,) = read_rows(path)
    assert isinstance(row, Row)
    with pytest.raises(DataError, match=r"line 2: has no column 'lable', perhaps 'label'; it"):
        row.value("lable")
    with pytest.raises(DataError, match="here: has no column 'txt', perhaps 'text'"):
        Row({"text": "a"}, Place("here")).value("txt")
    assert refusal(path, BARE, wanted=["text"]).endswith(
        "has no column 'text', for it has no names of columns; choose by number from 1 to 2"
    )
    tabs = write(tmp_path, "b.csv", "a\tb\nc\td\n")
    assert refusal(tabs, wanted=["b"]).endswith("; is ',' what its columns are split at?")


def test_columns_of_one_name_are_chosen_by_number(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,n,text\na,1,b\n")
    assert values(path) == [{"1": "a", "n": "1", "3": "b"}]
    assert refusal(path, wanted=["text"]).endswith(
        "has 2 columns 'text'; choose one by its number, for example 1"
    )


def test_rows_without_a_wanted_column_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n{"txt": "b"}\n')
    good, bad = outcomes(path, wanted=["text"])
    assert good == ["a"]
    assert bad[:2] == (2, "missing column")
    assert bad[2].startswith("has no column 'text', perhaps 'txt'")
    assert outcomes([{"txt": "b"}], wanted=["text"])[0][1] == "missing column"
    for name in ("a.txt", "a.conll"):
        assert "has no column 'label'" in refusal(write(tmp_path, name, "a\tb\n"), wanted=["label"])
    assert "no column 'tags'" in refusal(tmp_path, Dialect("folders"), wanted=["tags"])


# Hostile files.


def test_quotation_never_closed_costs_its_row_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,n\n"a,1\nb,2\n"c\nd",3\n')
    bad, *good = outcomes(path)
    assert bad[:2] == (2, "quotation")
    assert "or set quoting = false" in bad[2]
    assert good == [["b", "2"], ["c\nd", "3"]]


def test_wrong_bytes_in_the_middle_cost_their_row_alone(tmp_path: Path) -> None:
    content = b'text,n\na,1\n"b\nb\xe9c",2\nd,3\ne\xff,4\n'
    path = write(tmp_path, "a.csv", content)
    good, bad, last, other = outcomes(path)
    assert (good, last) == (["a", "1"], ["d", "3"])
    assert bad == (
        3,
        "encoding",
        'byte 15, on line 4, is 0xe9, expected UTF-8; set encoding, perhaps to "cp1252"',
    )
    assert other[:2] == (6, "encoding")
    raw = [row.raw for row in read_rows(path) if isinstance(row, BadRow)]
    assert raw == ['"b\nb\\xe9c",2', "e\\xff,4"]
    assert outcomes(path, Dialect(encoding="latin-1"))[1] == ["b\nbéc", "2"]
    ascii_only = outcomes(write(tmp_path, "b.csv", b"t\n\xe9\n"), Dialect(encoding="ascii"))
    assert ascii_only == [(2, "encoding", "byte 2, on line 2, is 0xe9, expected ASCII")]


def test_wrong_bytes_are_told_after_lines_are_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b'text\n"a\nb\xff\nc\n')
    assert [row[:2] if isinstance(row, tuple) else row for row in outcomes(path)] == [
        (2, "quotation"),
        (3, "encoding"),
        ["c"],
    ]


def test_utf16_is_refused_unless_declared(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\nä\n".encode("utf-16"))
    assert refusal(path).endswith('a.csv: begins with the mark of UTF-16; set encoding = "utf-16"')
    assert values(path, Dialect(encoding="utf-16")) == [{"text": "ä"}]
    assert path.read_bytes().startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def test_line_ends_may_be_mixed_but_not_carriage_returns_alone(tmp_path: Path) -> None:
    assert values(write(tmp_path, "a.csv", "t,n\r\na,1\nb,2\r\nc,3")) == [
        {"t": "a", "n": "1"},
        {"t": "b", "n": "2"},
        {"t": "c", "n": "3"},
    ]
    (bad,) = outcomes(write(tmp_path, "b.csv", "a,1\rb,2\r"), Dialect(header=False))
    assert bad[:2] == (1, "line end")
    assert "tr '\\r' '\\n'" in bad[2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a.csv: is empty, expected a header that names the columns"),
        ("\n\n", "a.csv: is empty, expected a header"),
        (b"te\xffxt\na\n", "a.csv: line 1, the header: byte 2, on line 1, is 0xff"),
        ('"text\na\n', "a.csv: line 1, the header: its quotation marks are wrong"),
    ],
)
def test_table_without_a_readable_header_is_refused(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    assert said in refusal(write(tmp_path, "a.csv", content))


def test_header_with_too_few_columns_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\na\n")
    assert refusal(path, Dialect(columns=2)).endswith(
        "line 1, the header, has 1 column, expected 2 as set"
    )


def test_header_with_surplus_columns_loses_them_too(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,n,\na,1,x\nb,2\n")
    dialect = Dialect(columns=2, extra_columns="ignore")
    assert values(path, dialect) == [{"text": "a", "n": "1"}, {"text": "b", "n": "2"}]


def test_header_alone_and_empty_files_have_no_rows(tmp_path: Path) -> None:
    assert values(write(tmp_path, "a.csv", "text,label")) == []
    for name in ("a.txt", "a.jsonl", "a.conll"):
        assert values(write(tmp_path, name, "")) == []
    assert values(write(tmp_path, "b.csv", ""), BARE) == []


def test_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    child = os.posix_spawn("/bin/sh", ["sh", "-c", f"printf 'text\\na' > '{pipe}'"], {})
    assert values(pipe) == [{"text": "a"}]
    os.waitpid(child, 0)


def test_limit_takes_the_first_rows_and_reads_no_further(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,n\na,1\nb\nc,3\nd,4\n")
    assert [outcome[0] for outcome in outcomes(path, limit=3)] == ["a", 3, "c"]

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield {"text": "a"}

    assert len(values(endless(), limit=5)) == 5
    with pytest.raises(DataError, match="limit is 0, expected 1 or more"):
        read_rows(path, limit=0)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\n" + f"{'a line ' * 150}\n" * 3000)
    tracemalloc.start()
    try:
        assert sum(isinstance(row, Row) for row in read_rows(path)) == 3000
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < path.stat().st_size / 10


# Dialects.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"format": "xml"}, "format is 'xml', expected one of csv, tsv"),
        ({"encoding": "utf-9"}, "encoding is 'utf-9', expected one of Python's"),
        ({"delimiter": ", "}, "delimiter is ', ', expected one character"),
        ({"delimiter": '"'}, "delimiter is '\"', expected"),
        ({"columns": 0}, "columns is 0, expected 1 or more"),
        ({"extra_columns": "drop"}, "extra_columns is 'drop', expected one of error, ignore, join"),
        ({"extra_columns": "join"}, 'extra_columns is "join", which needs columns'),
        ({"extra_columns": "join", "columns": 2, "quoting": True}, "no quoting"),
    ],
)
def test_wrong_dialect_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        Dialect(**settings)
    assert said in str(caught.value)


def test_format_goes_by_suffix_and_must_fit_the_settings(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dev", "a")
    assert "the suffix '.dev' says no format; set format to one of csv" in refusal(path)
    assert "txt has no delimiter; leave it out" in refusal(path, Dialect("txt", delimiter=","))
    assert "conll has no quotation" in refusal(path, Dialect("conll", quoting=True))
    assert [Dialect().completed(name).format for name in ("x.CSV", "y.tab", "z.ndjson")] == [
        "csv",
        "tsv",
        "jsonl",
    ]
    assert Dialect().completed("a.tsv").delimiter == "\t"


# The fingerprint.


def test_fingerprint_is_of_what_was_read(tmp_path: Path) -> None:
    def of(content: str, name: str = "a.csv") -> str:
        rows = read_rows(write(tmp_path, name, content))
        return fingerprint(row for row in rows if isinstance(row, Row))

    start = of("text,n\na,1\nb,2\n")
    assert start == of('text,n\r\n"a",1\n\nb,2', name="b.csv")
    changed = ["text,n\na,1\nb,3\n", "text,n\nb,2\na,1\n", "text,m\na,1\nb,2\n", "text,n\na,1\n"]
    assert len({start, *map(of, changed)}) == 5
    assert of("a,b\n1\x1f,2\n") != of("a,b\n1,\x1f2\n")


# Properties.

CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), max_size=8
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str]], Dialect, str]:
    """A header and rows, a dialect, and the file's line end."""
    n_columns = draw(st.integers(1, 4))
    row = st.lists(CELLS, min_size=n_columns, max_size=n_columns)
    header = draw(st.lists(CELLS, min_size=n_columns, max_size=n_columns, unique=True))
    rows = [header, *draw(st.lists(row, max_size=5))]
    encoding = draw(st.sampled_from(["utf-8", "utf-16", "utf-16-be", "utf-32", "gb18030"]))
    delimiter = draw(st.sampled_from([",", ";", "\t", "|", " ", "é"]))
    dialect = Dialect("csv", encoding=encoding, delimiter=delimiter, quoting=True)
    return rows, dialect, draw(st.sampled_from(["\n", "\r\n"]))


@given(tables())
def test_tables_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[list[list[str]], Dialect, str]
) -> None:
    rows, dialect, end = table
    path = tmp_path_factory.mktemp("t") / "a"
    with path.open("w", encoding=dialect.encoding, newline="") as file:
        writer = csv.writer(file, delimiter=dialect.delimiter or "", lineterminator=end)
        writer.writerows(rows)
    read = [row for row in read_rows(path, dialect) if isinstance(row, Row)]
    assert [list(row.values) for row in read] == [rows[0]] * len(rows[1:])
    assert [list(row.values.values()) for row in read] == rows[1:]
    bare = list(read_rows(path, dataclasses.replace(dialect, header=False)))
    assert [list(row.values.values()) for row in bare if isinstance(row, Row)] == rows


LINES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n\t\ufeff"), max_size=8
)


@given(st.lists(st.lists(LINES, min_size=2, max_size=2)))
def test_bare_tables_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    path = write(tmp_path_factory.mktemp("t"), "a.tsv", "".join("\t".join(r) + "\n" for r in rows))
    assert outcomes(path, BARE) == rows


@given(st.lists(st.dictionaries(CELLS, st.none() | st.integers() | CELLS | st.lists(CELLS))))
def test_objects_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    assert values(write(tmp_path_factory.mktemp("t"), "a.jsonl", text)) == rows
    assert values(rows) == rows


@given(st.binary(max_size=200), st.sampled_from(["csv", "jsonl", "conll", "txt"]))
def test_any_bytes_give_rows_bad_rows_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, format: str
) -> None:
    path = write(tmp_path_factory.mktemp("t"), "a", content)
    lines: list[int] = []
    with suppress(DataError):
        lines += (row.place.line or 0 for row in read_rows(path, Dialect(format)))
    assert lines == sorted(set(lines))


# The public data sets.


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "dialect", "count"),
    [
        ("sst2/stsa.binary.train", SPACED, 6920),
        ("sst2/stsa.binary.dev", SPACED, 872),
        ("sst2/stsa.binary.test", SPACED, 1821),
        (
            "trec/TREC.train",
            Dialect("csv", delimiter=" ", columns=2, header=False, encoding="latin-1"),
            5452,
        ),
        ("trec/TREC.test.all", SPACED, 500),
        ("sms_spam/sms.tsv", BARE, 5574),
        ("goemotions/dev.tsv", Dialect(header=False), 5426),
        (
            "stsb/sts-test.csv",
            Dialect("tsv", quoting=False, header=False, columns=7, extra_columns="ignore"),
            1379,
        ),
        ("wnut17/wnut17train.conll", Dialect(), 3394),
        ("wnut17/emerging.dev.conll", Dialect(), 1009),
        ("wnut17/emerging.test.annotated", Dialect("conll"), 1287),
        ("gutenberg/sherlock_holmes_1661-8.txt", Dialect(encoding="latin-1"), 10387),
        ("wikitext2/valid.txt", Dialect(), 2461),
        ("movie_reviews/movie_reviews.zip/*/cv9*.txt", Dialect("folders"), 200),
    ],
)
def test_data_sets_are_read_whole(data: Path, name: str, dialect: Dialect, count: int) -> None:
    assert len(values(data / name, dialect)) == count


@pytest.mark.data
def test_labels_of_data_sets_are_as_their_publishers_count_them(data: Path) -> None:
    spam = values(data / "sms_spam/sms.tsv", BARE)
    assert sum(row["1"] == "spam" for row in spam) == 747
    sts = Dialect("tsv", quoting=False, header=False, columns=7, extra_columns="ignore")
    assert values(data / "stsb/sts-dev.csv", sts)[1]["5"] == "4.750"
    sentences = values(data / "wnut17/emerging.test.annotated", Dialect("conll"))
    assert sum(len(row["tokens"]) for row in sentences) == 23394
    assert len({tag for row in sentences for tag in row["tags"]}) == 13
    emotions = values(data / "goemotions/test.tsv", Dialect(header=False))
    assert len(emotions) == 5427
    assert {label for row in emotions for label in row["2"].split(",")} == set(map(str, range(28)))
