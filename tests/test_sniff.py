"""Proposals of how to read a file, on files by hand and on the public data sets."""

import zipfile
from pathlib import Path

import pytest

from minibert.errors import DataError
from minibert.training import sniff as module
from minibert.training.dialect import Dialect
from minibert.training.rows import Row, read_rows
from minibert.training.sniff import sniff


def write(folder: Path, content: str | bytes, name: str = "a.data") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def proposal(folder: Path, content: str | bytes) -> tuple[Dialect, str]:
    dialect, evidence = sniff(write(folder, content))
    return dialect, " ".join(evidence)


def all_good(path: Path, dialect: Dialect) -> int:
    rows = list(read_rows(path, dialect))
    assert all(isinstance(row, Row) for row in rows)
    return len(rows)


@pytest.mark.parametrize(
    ("content", "encoding", "said"),
    [
        ("é\n".encode(), "utf-8", "All bytes are UTF-8."),
        ("\ufeffa\n".encode(), "utf-8", "begins with the byte order mark of UTF-8"),
        ("aé\n".encode("utf-16"), "utf-16", "begins with the byte order mark of UTF-16"),
        ("a text\n".encode("utf-16-be"), "utf-16-be", "Every other byte is 0, as in UTF-16-BE"),
        ("a text\n".encode("utf-16-le"), "utf-16-le", "Every other byte is 0, as in UTF-16-LE"),
        (b"a\ncaf\xe9\n", "latin-1", "Byte 5, on line 2, is 0xe9, which is no UTF-8; LATIN-1"),
        (b"caf\xe9 \x93x\x94\n", "cp1252", "which is no UTF-8; CP1252 (Windows) has"),
        (b"caf\xe9 \x81\n", "latin-1", "LATIN-1"),
    ],
)
def test_encoding_is_one_that_all_bytes_fit(
    tmp_path: Path, content: bytes, encoding: str, said: str
) -> None:
    dialect, evidence = proposal(tmp_path, content)
    assert dialect.encoding == encoding
    assert said in evidence


@pytest.mark.parametrize(
    ("content", "delimiter", "quoting", "header", "said"),
    [
        ("text,label\na,1\nb,2\n", ",", True, True, "Below 'label' there are only numbers"),
        ("id;note\nx;y, z\nw;v\n", ";", True, True, "names that columns have: id, note."),
        ("a b\tx\nc d\ty\ne\tx\nf\tx\n", "\t", False, False, "'x' of the first row stands below"),
        ("foo|kind\na|x\nb|x\nc|y\nd|y\n", "|", True, True, "'kind' is none of the 2 values below"),
        ("a,1\nb,2\n", ",", True, False, "has a number in a column"),
        ("foo,bar\nbaz,quux\n", ",", True, False, "Nothing tells the first row from the others"),
        (f"{'x' * 61},b\nc,d\n", ",", True, False, "has long or equal columns"),
        ('text,n\n"a, b",1\n"c\nd",2\n', ",", True, True, "Only with quotation marks read as"),
        ('a\t"b" c\nd\te\n', "\t", False, False, "do not match as quotation"),
        ('a\t"b"\nc\td\ne\tf\n', "\t", False, False, "1 columns begin with a quotation mark, most"),
        (
            'foo,kind\n"a",x\n"b",x\n"c",y\n,y\n',
            ",",
            True,
            True,
            "Every value of column 1 is quoted.",
        ),
        ('a\t"b\nc\t"d"\n', "\t", False, False, "do not match as quotation"),
        ('a\t"b ""c"""\nc\td\ne\tf\n', "\t", True, False, "every quotation mark is matched"),
        ('"a";"b"\n"c";"d"\n', ";", True, False, "4 columns are quoted"),
    ],
)
def test_tables_are_told_by_what_is_consistent(
    tmp_path: Path, content: str, delimiter: str, quoting: bool, header: bool, said: str
) -> None:
    dialect, evidence = proposal(tmp_path, content)
    assert (dialect.delimiter, dialect.quoting, dialect.header) == (delimiter, quoting, header)
    assert dialect.format == ("tsv" if delimiter == "\t" else "csv")
    assert dialect.columns == 2
    assert said in evidence
    all_good(tmp_path / "a.data", dialect)


def test_surplus_columns_are_left_out(tmp_path: Path) -> None:
    dialect, evidence = proposal(tmp_path, "a\tb\tc\tx\n" + "a\tb\tc\n" * 3)
    assert (dialect.columns, dialect.extra_columns) == (3, "ignore")
    assert "75.0% of 4 rows have 3 columns" in evidence
    assert "1 rows have more columns, which are left out." in evidence
    assert sniff(write(tmp_path, "a\tb\n" + "a\tb\tc\n" * 3)).dialect.format == "txt"
    mostly = sniff(write(tmp_path, "a\tb\n" + "a\tb\tc\n" * 30)).dialect
    assert (mostly.columns, mostly.extra_columns) == (3, "error")


def test_labels_before_a_blank_are_seen(tmp_path: Path) -> None:
    lines = "".join(
        f"{'pos' if n % 3 else 'neg'} text number {n}{', or so' * (n % 2)}\n" for n in range(30)
    )
    dialect, evidence = proposal(tmp_path, lines)
    assert dialect == Dialect(
        "csv", delimiter=" ", quoting=False, header=False, columns=2, extra_columns="join"
    )
    assert "30 lines begin with one of 2 words, such as 'pos', 'neg'" in evidence
    assert sniff(write(tmp_path, f"{lines}alone\n")).dialect.format == "txt"
    many = "".join(f"word{n % 5} and a text {n}\n" for n in range(20))
    assert sniff(write(tmp_path, many)).dialect.format == "txt"
    assert sniff(write(tmp_path, many + many)).dialect.columns == 2


def test_other_formats_are_seen(tmp_path: Path) -> None:
    assert proposal(tmp_path, '{"text": "a"}\n\n{"text": "b, c"}\n')[0].format == "jsonl"
    dialect, evidence = proposal(tmp_path, "EU NNP B-ORG\nis VB O\n\n# x\nok JJ O\n")
    assert (dialect.format, dialect.columns) == ("conll", 3)
    assert "The last column holds tags, such as 'B-ORG'." in evidence
    assert proposal(tmp_path, "O\nB-ORG\n\nO\n")[0].format == "txt"
    dialect, evidence = proposal(tmp_path, "Some prose, here.\nAnd more.\n\n\nThe end\n")
    assert dialect == Dialect("txt")
    assert "3 lines of text; empty lines make 2 documents" in evidence


def test_folders_and_archives_are_seen(tmp_path: Path) -> None:
    for name in ("pos", "neg"):
        (tmp_path / "r" / name).mkdir(parents=True)
        write(tmp_path / "r" / name, b"caf\xe9", "1.txt")
    dialect, evidence = sniff(tmp_path / "r")
    assert dialect == Dialect("folders", encoding="latin-1")
    assert "2 files in 2 folders ('neg', 'pos'), the labels." in evidence
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as file:
        file.writestr("a.csv", "text,n\na,1\n")
    assert sniff(tmp_path / "r.zip").dialect.format == "csv"
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        file.writestr("a.data", "text,n\na,1\n")
    assert sniff(tmp_path / "s.zip").dialect.format == "csv"
    with zipfile.ZipFile(tmp_path / "r.zip", "a") as file:
        file.writestr("b/c.txt", "text")
    assert sniff(tmp_path / "r.zip").dialect.format == "folders"


def test_all_files_count_for_the_encoding(tmp_path: Path) -> None:
    for name in ("neg", "pos"):
        (tmp_path / "r" / name).mkdir(parents=True)
    write(tmp_path / "r" / "neg", "a", "1.txt")
    write(tmp_path / "r" / "pos", b"caf\xe9", "1.txt")
    assert sniff(tmp_path / "r").dialect == Dialect("folders", encoding="latin-1")
    both = [str(tmp_path / "r" / name) for name in ("neg", "pos")]
    assert sniff(both).dialect == Dialect("folders", encoding="latin-1")
    dialect, evidence = sniff(both[:1])
    assert dialect == Dialect("folders")
    assert evidence[-1] == "1 files in one folder ('neg'), which is no label."


def test_several_tables_are_read_as_the_first(tmp_path: Path) -> None:
    for number, label in enumerate(("x", "é")):
        write(tmp_path, f"a b,{label}\nc d,{label}\n".encode("latin-1"), f"p{number}.csv")
    expected = Dialect("csv", "latin-1", ",", True, False, 2, "error")
    assert sniff(tmp_path / "p*.csv").dialect == expected
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        for number in range(2):
            file.write(tmp_path / f"p{number}.csv", f"p{number}.csv")
    assert sniff(tmp_path / "p.zip").dialect == expected


def test_a_part_of_a_long_file_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINES", 6)
    content = 'text,n\n"a\nb",1\n"c\nd",2\n"e\nf",3\n' + 'g"",1\n' * 3 + "caf\xe9,1\n"
    dialect, evidence = proposal(tmp_path, content.encode("latin-1"))
    assert (dialect.quoting, dialect.header, dialect.encoding) == (True, True, "latin-1")
    assert "3 rows have 2 columns" in evidence


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "a.csv", "is empty, expected rows to look at"),
        (" \n\n", "a.csv", "is empty"),
        (
            b"PK\x03\x04\x14\0\x01\x02" + b"ab\0" * 9,
            "a.xlsx",
            "of a spreadsheet, save a table as CSV",
        ),
        ("a,1\rb,2\r", "a.csv", "carriage returns alone, expected line feeds; convert it"),
        (
            '[{"text": "a"},\n{"text": "b"}]',
            "a.json",
            "is one JSON list, expected an object a line",
        ),
    ],
)
def test_what_holds_no_rows_is_refused(
    tmp_path: Path, content: str | bytes, name: str, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        sniff(write(tmp_path, content, name))
    assert said in str(caught.value)


def test_what_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        sniff(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="has no files"):
        sniff(tmp_path)


BLANK = {"format": "csv", "delimiter": " ", "columns": 2, "header": False}
TABS = {"format": "tsv", "delimiter": "\t", "header": False}


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "expected", "count"),
    [
        ("sst2/stsa.binary.train", {**BLANK, "encoding": "utf-8"}, 6920),
        ("sst2/stsa.binary.dev", BLANK, 872),
        ("sst2/stsa.binary.test", BLANK, 1821),
        ("trec/TREC.train", {**BLANK, "encoding": "latin-1"}, 5452),
        ("trec/TREC.test", {**BLANK, "encoding": "utf-8"}, 500),
        ("trec/TREC.train.all", BLANK, 5452),
        ("sms_spam/sms.tsv", {**TABS, "quoting": False, "columns": 2}, 5574),
        ("goemotions/train.tsv", {**TABS, "quoting": True, "columns": 3}, 43410),
        ("goemotions/dev.tsv", {**TABS, "quoting": True, "columns": 3}, 5426),
        ("goemotions/test.tsv", {**TABS, "quoting": True, "columns": 3}, 5427),
        ("stsb/sts-train.csv", {**TABS, "quoting": False, "columns": 7}, 5749),
        ("stsb/sts-dev.csv", {**TABS, "quoting": False, "extra_columns": "ignore"}, 1500),
        ("stsb/sts-test.csv", {**TABS, "quoting": False, "extra_columns": "ignore"}, 1379),
        ("wnut17/wnut17train.conll", {"format": "conll", "columns": 2}, 3394),
        ("wnut17/emerging.dev.conll", {"format": "conll"}, 1009),
        ("wnut17/emerging.test.annotated", {"format": "conll"}, 1287),
        ("movie_reviews/movie_reviews.zip/*/cv*", {"format": "folders"}, 2000),
        ("gutenberg/alice_11-0.txt", {"format": "txt", "encoding": "utf-8"}, 2791),
        ("gutenberg/sherlock_holmes_1661-8.txt", {"format": "txt", "encoding": "latin-1"}, 10387),
        ("wikitext2/valid.txt", {"format": "txt", "encoding": "utf-8"}, 2461),
        ("wikitext2/test.txt", {"format": "txt"}, 2891),
    ],
)
def test_data_sets_are_read_as_proposed(
    data: Path, name: str, expected: dict[str, object], count: int
) -> None:
    dialect, evidence = sniff(data / name)
    assert {setting: getattr(dialect, setting) for setting in expected} == expected
    assert all_good(data / name, dialect) == count
    assert all(sentence.endswith(".") for sentence in evidence)
