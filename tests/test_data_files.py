"""Finding files: patterns, folders, members of archives; archives that mean harm."""

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from minibert.errors import DataError
from minibert.lines import Lines
from minibert.training import data_files as module
from minibert.training.data_files import DataFile, find_files, opener


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")


def archive(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def found(
    source: str | Path | list[str | Path], folder: Path, *, folders: bool = False
) -> list[str]:
    files = find_files(source, folders=folders)
    return [Path(file.name).relative_to(folder).as_posix() for file in files]


def refusal(source: str | Path | list[str | Path], *, folders: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        read(source, folders=folders)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(source: str | Path | list[str | Path], *, folders: bool = False) -> list[bytes]:
    contents = []
    with opener() as open_file:
        for file in find_files(source, folders=folders):
            with open_file(file) as (stream, _):
                contents.append(stream.readline())
    return contents


REVIEWS = {
    "reviews/README": "about",
    "reviews/pos/cv0.txt": "good",
    "reviews/pos/cv9.txt": "great",
    "reviews/neg/cv0.txt": "bad",
    "__MACOSX/reviews/pos/cv0.txt": "junk",
    "reviews/.DS_Store": "junk",
}


def test_patterns_give_files_in_order_of_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.csv", "a.csv", "c.txt", "d/e.csv", ".f.csv", "x[1].csv")
    assert found(tmp_path / "*.csv", tmp_path) == ["a.csv", "b.csv", "x[1].csv"]
    assert found(str(tmp_path / "**/e*"), tmp_path) == ["d/e.csv"]
    assert found(tmp_path / "x[1].csv", tmp_path) == ["x[1].csv"]  # there is such a file
    assert found([tmp_path / "c.txt", tmp_path / "[ab].csv"], tmp_path) == [
        "c.txt",
        "a.csv",
        "b.csv",
    ]


def test_folder_gives_what_lies_below_it(tmp_path: Path) -> None:
    touch(tmp_path, "pos/b", "pos/a", "neg/c", ".git/x", "neg/.y")
    os.mkfifo(tmp_path / "neg/pipe")
    assert found(tmp_path, tmp_path, folders=True) == ["neg/c", "pos/a", "pos/b"]
    assert find_files(tmp_path, folders=True)[1].folder_name == "pos"
    assert 'is a folder, expected a file; set format = "folders"' in refusal(tmp_path)


def test_members_are_found_by_their_names(tmp_path: Path) -> None:
    path = archive(tmp_path / "r.zip", REVIEWS)
    inside = "r.zip/reviews"
    assert found(path / "reviews/pos/cv[0-7]*.txt", tmp_path) == [f"{inside}/pos/cv0.txt"]
    assert found(path / "pos/cv0.txt", tmp_path) == [f"{inside}/pos/cv0.txt"]  # its one folder
    assert found(path / "*/cv0.txt", tmp_path) == [f"{inside}/neg/cv0.txt", f"{inside}/pos/cv0.txt"]
    assert found(path / "pos", tmp_path) == [f"{inside}/pos/cv0.txt", f"{inside}/pos/cv9.txt"]
    assert found(path / "**/cv9*", tmp_path) == [f"{inside}/pos/cv9.txt"]
    assert len(found(path, tmp_path)) == len(found(tmp_path / "*.zip", tmp_path)) == 4
    assert read(path / "pos/*.txt") == [b"good", b"great"]
    file = find_files(path / "pos/cv0.txt", folders=False)[0]
    assert (file.file_name, file.folder_name) == ("cv0.txt", "pos")
    assert DataFile("", path, "a.txt").folder_name == "r"


def test_archive_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "r.zip", REVIEWS)
    opened = []

    def counted(path: Path) -> zipfile.ZipFile:
        opened.append(path)
        return zipfile.ZipFile(path)

    monkeypatch.setattr(module, "ZipFile", counted)
    assert len(read(path)) == 4
    assert len(opened) == 2  # to list its members, and to read them


def test_what_is_absent_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "r.zip", REVIEWS)
    assert "absent.csv: cannot be read: there is no such file" in refusal(tmp_path / "absent.csv")
    assert "*.csv: no file has such a name" in refusal(tmp_path / "*.csv")
    assert "no member is named pos/x*; it has 'reviews/README', " in refusal(path / "pos/x*")
    assert "there is no such file" in refusal(tmp_path / "absent.zip/a.txt")


def test_file_given_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    assert "a.csv: is given twice" in refusal([tmp_path / "a.csv", tmp_path / "*.csv"])


@pytest.mark.parametrize(
    "name", ["../x.txt", "a/../../x.txt", "/etc/x.txt", "..\\x.txt", "C:x.txt"]
)
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "r.zip", {"good.txt": "a", name: "b"})
    assert "leads out of it, expected plain names" in refusal(path / "good.txt")


def test_archive_that_grows_beyond_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BOMB_BYTES", 100_000)
    path = archive(tmp_path / "r.zip", {"bomb.txt": "0" * 1_000_000, "good.txt": "0" * 90_000})
    assert "would grow to 1,000,000 bytes, over 200 times its size" in refusal(path / "bomb.txt")
    assert len(read(path / "good.txt")) == 1
    monkeypatch.setattr(module, "_BOMB_RATIO", 1_000)
    assert len(read(path / "bomb.txt")) == 1


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "r.zip", {"a.txt": "some text " * 100})
    whole = path.read_bytes()
    path.write_bytes(b"no archive")
    assert "r.zip: its archive is damaged" in refusal(path)
    flipped = bytearray(whole)
    flipped[40:50] = b"\xff" * 10  # of the compressed text
    path.write_bytes(flipped)
    with opener() as open_file, open_file(find_files(path, folders=False)[0]) as (stream, size):
        lines = Lines(stream, "a.txt", size)
        with pytest.raises(DataError, match=r"a\.txt: its archive is damaged"):
            list(lines)
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(encrypted)
    assert "cannot be read from its archive: " in refusal(path)


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb")))
    assert [file.name for file in find_files("-", folders=False)] == ["standard input"]
    assert read("-") == [b"a\n"]
