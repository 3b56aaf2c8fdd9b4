"""Rows of files read for prediction, and written with columns added."""

import contextlib
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.cli import records as module
from minibert.cli.records import (
    Joined,
    Records,
    RecordWriter,
    check_output,
    json_line,
    pair_in,
    text_in,
    text_or_words_in,
)
from minibert.errors import DataError
from minibert.training.dialect import Dialect
from minibert.training.rows import Cells, Columns, Place, Row


def row(values: dict[str, Any], line: int = 1) -> Row:
    cells = Cells(list(values.values()), Columns(tuple(values), len(values)))
    return Row(cells, Place("a.csv", line))


def rows_of(path: Path, **dialect: Any) -> list[dict[str, Any]]:
    return [dict(each.values) for each in Records(str(path), Dialect(**dialect)).read()]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def written(
    path: Path | None, rows: list[tuple[Row, dict[str, Any]]], format: str = "jsonl"
) -> None:
    with RecordWriter(path, format=format) as writer:
        for each, added in rows:
            writer.write(each, added)


# ---- reading


def test_rows_of_every_format(tmp_path: Path) -> None:
    table = [{"id": "1", "text": 'a, "b"'}, {"id": "2", "text": ""}]
    assert rows_of(write(tmp_path / "a.csv", 'id,text\n1,"a, ""b"""\n2,\n')) == table
    assert rows_of(write(tmp_path / "a.tsv", "id\ttext\n1\ta\n")) == [{"id": "1", "text": "a"}]
    assert rows_of(write(tmp_path / "a.jsonl", '{"n": [1], "text": "a"}\n"b"\n')) == [
        {"n": [1], "text": "a"},
        {"text": "b"},
    ]
    assert rows_of(write(tmp_path / "a.conll", "a B-X\nb O\n\nc O\n")) == [
        {"tokens": ["a", "b"], "tags": ["B-X", "O"]},
        {"tokens": ["c"], "tags": ["O"]},
    ]


def test_lines_of_a_txt_are_rows_the_empty_ones_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n\nthree\r\n")
    found = list(Records(str(path), Dialect()).read())
    assert [each.values["text"] for each in found] == ["one", "", "three"]
    assert [str(each.place) for each in found] == [f"{path}: line {n}" for n in (1, 2, 3)]


def test_dialect_is_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", 'id;text\n1;gr\xfcn "\n'.encode("latin-1"))
    found = rows_of(path, format="csv", delimiter=";", encoding="latin-1", quoting=False)
    assert found == [{"id": "1", "text": 'grün "'}]
    assert rows_of(write(tmp_path / "b.txt", b"gr\xfcn"), encoding="latin-1") == [{"text": "grün"}]
    assert rows_of(write(tmp_path / "c.csv", "a,b\n"), header=False) == [{"1": "a", "2": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "id,text\n1,a\n2\n", "line 3: has 1 column, expected 2 as in the header"),
        ("a.csv", 'text\n"a\nb\n', "line 2: its quotation marks are wrong"),
        ("a.csv", b"text\n\xff\n", "line 2: byte 5, on line 2, is 0xff, expected UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{\n', "line 2: is not JSON"),
        ("a.txt", b"a\n\xff\n", "byte 2, on line 2, is 0xff, expected UTF-8"),
        ("a.xml", "a", "the suffix '.xml' says no format"),
    ],
)
def test_row_that_cannot_be_read_ends_it(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert said in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_are_counted_and_each_is_tried(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": 3}\n')
    records = Records(str(path), Dialect())
    assert records.counted(lambda each: each.values) == 2
    with pytest.raises(DataError, match="line 2: column 'text' is 3, expected a text"):
        records.counted(lambda each: text_in(each, None, "text"))
    empty = Records(str(write(tmp_path / "b.csv", "text\n")), Dialect())
    with pytest.raises(DataError, match=r"b\.csv: holds no row, expected one at least"):
        empty.counted(lambda each: None)


def test_standard_input_is_not_read_to_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def give(content: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))

    give("a\nb\n")
    assert Records("-", Dialect()).counted(lambda each: 1 / 0) is None
    assert [each.values["text"] for each in Records("-", Dialect()).read()] == ["a", "b"]
    give("id,text\n1,a\n")
    (found,) = Records("-", Dialect(format="csv")).read()
    assert (dict(found.values), str(found.place)) == (
        {"id": "1", "text": "a"},
        "standard input: line 2",
    )


def test_column_is_the_one_named_the_usual_one_or_the_only_one() -> None:
    assert text_in(row({"id": "1", "text": "a"}), None, "text") == "a"
    assert text_in(row({"id": "1", "text": "a"}), "id", "text") == "1"
    assert text_in(row({"id": "1", "text": "a"}), "2", "text") == "a"
    assert text_in(row({"review": "a"}), None, "text") == "a"
    with pytest.raises(DataError, match=r"a\.csv: line 1: has no column 'text', perhaps 'texts'"):
        text_in(row({"texts": "a", "id": "1"}), None, "text")
    with pytest.raises(DataError, match="has no column 'nope'"):
        text_in(row({"text": "a"}), "nope", "text")


@pytest.mark.parametrize("value", [None, 3, True, ["a"], {"a": 1}])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"^a\.csv: line 1: column 'x' is .*, expected a text$"):
        text_in(row({"x": value}), "x", "text")


def test_words_of_a_text_may_be_a_list() -> None:
    assert text_or_words_in(row({"text": ["a", "b"]}), None, "text") == ["a", "b"]
    assert text_or_words_in(row({"text": "a b"}), None, "text") == "a b"
    for value in ([1], 3, None):
        with pytest.raises(DataError, match="expected a text, or a list of words"):
            text_or_words_in(row({"text": value}), None, "text")


def test_pair_has_a_second_text_where_its_column_is_named() -> None:
    both = row({"text": "a", "other": "b"})
    assert pair_in(both, None, None) == ("a", None)
    assert pair_in(both, "other", "text") == ("b", "a")
    with pytest.raises(DataError, match="column 'other' is 3, expected a text"):
        pair_in(row({"text": "a", "other": 3}), None, "other")


# ---- writing


def test_columns_are_added_to_the_rows(tmp_path: Path) -> None:
    added = {"label": "pos", "probability": 0.5, "truncated": False, "nothing": None}
    rows = [(row({"id": "1", "text": 'a, "b"\nc'}), added), (row({"id": "2", "text": ""}), added)]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        written(tmp_path / name, rows)
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file, delimiter=delimiter)) == [
                ["id", "text", "label", "probability", "truncated", "nothing"],
                ["1", 'a, "b"\nc', "pos", "0.5", "false", ""],
                ["2", "", "pos", "0.5", "false", ""],
            ]
    written(tmp_path / "a.jsonl", rows)
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"id": "1", "text": 'a, "b"\nc', **added}


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")), max_size=4
    ),
    st.sampled_from(["csv", "tsv", "jsonl"]),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str], format: str
) -> None:
    path = tmp_path_factory.mktemp("again") / f"a.{format}"
    rows = [(row({"text": cell, "more": "x"}), {"label": cell[::-1]}) for cell in ["", *cells]]
    written(path, rows)
    assert rows_of(path) == [
        {"text": cell, "more": "x", "label": cell[::-1]} for cell in ["", *cells]
    ]


def test_values_that_are_several_are_a_list_or_joined(tmp_path: Path) -> None:
    added = {"a": Joined(["x", "y"], " "), "b": Joined([0.5, 1], ","), "c": Joined(["x y"], " "),
             "d": [{"é": 1}]}  # fmt: skip
    written(tmp_path / "a.csv", [(row({"text": "t"}), added)])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1] == ["t", "x y", "0.5,1", '["x y"]', '[{"é": 1}]']
    assert json_line(added) == ('{"a": ["x", "y"], "b": [0.5, 1], "c": ["x y"], "d": [{"é": 1}]}')
    written(tmp_path / "a.jsonl", [(row({"text": "t"}), added)])
    assert json.loads((tmp_path / "a.jsonl").read_text())["b"] == [0.5, 1]


def test_name_that_is_taken_gets_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = {"label": "pos", "score": 1}
    written(tmp_path / "a.csv", [(row({"text": "t", "label": "neg"}), added)] * 2)
    assert (tmp_path / "a.csv").read_text() == (
        "text,label,predicted_label,score\nt,neg,pos,1\nt,neg,pos,1\n"
    )
    said = "the input has columns of these names, so what is added is 'predicted_label'"
    assert capsys.readouterr().err == f"minibert: {said}\n"
    taken = row({"label": "a", "predicted_label": "b"})
    with pytest.raises(DataError, match="has the columns 'label' and 'predicted_label', expected"):
        written(tmp_path / "b.csv", [(taken, added)])
    assert not (tmp_path / "b.csv").exists()


def test_later_rows_with_other_columns(tmp_path: Path) -> None:
    one, other = row({"text": "a", "id": "1"}), row({"text": "b", "x": 2}, line=2)
    added = {"label": "pos"}
    written(tmp_path / "a.jsonl", [(one, added), (other, added)])
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2
    with pytest.raises(DataError, match=r"line 2: has the column 'x', which the first row lacks"):
        written(tmp_path / "a.csv", [(one, added), (other, added)])
    written(tmp_path / "b.csv", [(one, added), (row({"text": "b"}), added)])
    assert (tmp_path / "b.csv").read_text() == "text,id,label\na,1,pos\nb,,pos\n"
    clash = row({"text": "b", "label": "x"}, line=3)
    with pytest.raises(DataError, match="line 3: has the column 'label', which the first row lack"):
        written(tmp_path / "c.jsonl", [(one, added), (clash, added)])


def test_output_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "earlier")
    with contextlib.suppress(KeyboardInterrupt), RecordWriter(path, format="csv") as writer:
        writer.write(row({"text": "a"}), {"label": "x"})
        assert path.read_text() == "earlier"
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
    written(path, [(row({"text": "a"}), {"label": "x"})])
    assert path.read_text() == "text,label\na,x\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("when", ["open", "write", "close", "rename"])
def test_full_disk_is_told_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = write(tmp_path / "a.csv", "earlier")
    full = OSError(28, "No space left on device")

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            if when == "write":
                raise full
            return len(text)

        def close(self) -> None:
            if when == "close":
                raise full
            super().close()

    def opened(self: Path, *args: Any, **options: Any) -> Any:
        if when == "open":
            raise full
        return Full()

    def replaced(self: Path, target: Path) -> None:
        raise full

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(DataError) as caught:
        written(path, [(row({"text": "a"}), {"label": "x"})])
    monkeypatch.undo()
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device; what stood there is unchanged"
    )
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", [None, Path("-")])
def test_standard_output_has_the_format_asked_for(
    capsys: pytest.CaptureFixture[str], path: Path | None
) -> None:
    rows = [(row({"text": "a"}), {"label": "ü"})]
    for format, expected in (
        ("csv", "text,label\na,ü\n"),
        ("tsv", "text\tlabel\na\tü\n"),
        ("jsonl", '{"text": "a", "label": "ü"}\n'),
    ):
        written(path, rows, format)
        assert capsys.readouterr().out == expected


def test_reader_that_has_gone_is_not_the_disks_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(module.click, "echo", gone)
    with pytest.raises(BrokenPipeError):
        written(None, [(row({"text": "a"}), {"label": "x"})])


def test_outputs_that_could_not_be_written_are_refused_before(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "text\na\n")
    there = write(tmp_path / "out.csv", "")
    (tmp_path / "folder.csv").mkdir()
    for path, said in (
        (tmp_path / "a.txt", "has the suffix '.txt', expected one of .csv, .tsv, .jsonl"),
        (tmp_path / "folder.csv", "is a folder, expected the name of a file"),
        (tmp_path / "absent" / "a.csv", "there is no folder"),
        (source, "is the input too; choose another output"),
        (there, "exists; --overwrite replaces it"),
    ):
        with pytest.raises(DataError) as caught:
            check_output(path, source=str(source), overwrite=False)
        assert said in str(caught.value)
    check_output(there, source=str(source), overwrite=True)
    check_output(tmp_path / "new.jsonl", source="-", overwrite=False)
    check_output(Path("-"), source=str(source), overwrite=False)
    with pytest.raises(DataError, match="is the input too"):
        check_output(source, source=str(source), overwrite=True)
