"""Bad rows: counted, refused in one line, or set aside in a file."""

import csv
import zipfile
from pathlib import Path

import pytest

from minibert.errors import DataError
from minibert.training.problems import Problems, good, take
from minibert.training.rows import BadRow, Place, Row, read_rows


def ragged(folder: Path, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(b'text,n\na,1\nb\nc,2,3\n"d,4\nd\xff,5\ne,6\n')
    return path


def test_error_reads_everything_and_refuses_in_one_line(tmp_path: Path) -> None:
    path = ragged(tmp_path)
    with pytest.raises(DataError) as caught:
        take(read_rows(path))
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(
        f"4 of 6 rows are bad; 2 of kind 'columns', first {path}: line 3: has 1 column, expected 2 "
        f"as in the header; 1 of kind 'quotation', first {path}: line 5: its quotation marks are"
    )
    assert f"; 1 of kind 'encoding', first {path}: line 6: byte" in said
    assert said.endswith('; mend them, or set bad_rows = "quarantine" to go on without them')


def test_quarantine_keeps_the_good_rows_and_writes_the_bad(tmp_path: Path) -> None:
    path, rejected = ragged(tmp_path), tmp_path / "rejected.csv"
    taken = take(read_rows(path), bad_rows="quarantine", rejected=rejected)
    assert [row.value("text") for row in taken.rows] == ["a", "e"]
    assert taken.problems.counts() == {"columns": 2, "quotation": 1, "encoding": 1}
    assert taken.problems.n_rows == 6
    with rejected.open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["raw"] for row in written] == ["b", "c,2,3", '"d,4', "d\\xff,5"]
    assert written[0]["place"] == f"{path}: line 3"
    assert written[1]["kind"] == "columns"
    assert written[1]["message"] == "has 3 columns, expected 2 as in the header"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.csv", "rejected.csv"]
    take(read_rows(path), bad_rows="quarantine", rejected=rejected)  # replaces its own


def test_without_bad_rows_nothing_is_written(tmp_path: Path) -> None:
    made = [{"text": "a"}]
    for policy in ("error", "quarantine"):
        taken = take(read_rows(made), bad_rows=policy, rejected=tmp_path / "rejected.csv")
        assert len(taken.rows) == 1
    assert not list(tmp_path.iterdir())


def test_no_file_but_an_earlier_one_is_replaced(tmp_path: Path) -> None:
    path, other = ragged(tmp_path), tmp_path / "other.csv"
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"a\.csv: rows are read from it, expected another file"):
        take(read_rows(path), bad_rows="quarantine", rejected=path)
    other.write_text("text,n\na,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="exists and holds no bad rows of an earlier run"):
        take(read_rows(path), bad_rows="quarantine", rejected=other)
    assert other.read_text(encoding="utf-8") == "text,n\na,1\n"
    other.write_text("place,kind,message,raw\na\n", encoding="utf-8")
    with pytest.raises(DataError, match="rows are read from it"):  # as part of *.csv
        take(read_rows(tmp_path / "*.csv"), bad_rows="quarantine", rejected=other)
    packed = tmp_path / "r.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("a.csv", "text,n\na\n")
    with pytest.raises(DataError, match="rows are read from it"):
        take(read_rows(packed), bad_rows="quarantine", rejected=packed)
    assert path.read_bytes() == before


def test_rejected_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"r\.csv: cannot be written: No such file or directory"):
        take(read_rows(ragged(tmp_path)), bad_rows="quarantine", rejected=tmp_path / "no/r.csv")


def test_policy_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    rows = read_rows(ragged(tmp_path))
    with pytest.raises(DataError, match="bad_rows is 'skip', expected one of error, quarantine"):
        take(rows, bad_rows="skip")
    with pytest.raises(DataError, match="expected a file for the bad rows too"):
        take(rows, bad_rows="quarantine")
    assert isinstance(next(rows), Row)


def test_later_checks_add_problems_of_their_own(tmp_path: Path) -> None:
    problems = Problems()
    for row in good(read_rows([{"text": "a", "label": "x"}, {"text": "\ud800"}]), problems):
        problems.add(row.place, "label", "has the label 'x', expected one of 'y'", "a,x")
    assert problems.counts() == {"label": 1, "surrogate": 1}
    with pytest.raises(DataError, match="2 of 2 rows are bad; 1 of kind 'label', first row 1: has"):
        problems.raise_if_any()
    problems.write(tmp_path / "r.csv")
    assert "{'text': '\\ud800'}" in (tmp_path / "r.csv").read_text(encoding="utf-8")
    problems.add(Place("row 3"), "label", "", "\ud800")  # no text that can be encoded
    problems.write(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text(encoding="utf-8").endswith("\\ud800\n")
    Problems().raise_if_any()


def test_summary_has_a_limit() -> None:
    problems = Problems()
    problems.bad = [BadRow(Place(f"row {n}"), f"kind {n}", "x" * 1000, "") for n in range(50)]
    problems.add(Place("row 0"), "kind 7", "again")
    said = problems.summary()
    assert said.startswith("50 of 50 rows are bad; 2 of kind 'kind 7', first row 7: xxx")
    assert said.endswith("…; and 42 more kinds")
    assert len(said) < 3000
