"""Files that are told by their names to be for training, validation and test."""

import zipfile
from pathlib import Path

import pytest

from minibert.errors import DataError
from minibert.training.parts import Parts, find_parts, role_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "d"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a\n")


def relative(parts: Parts, folder: Path) -> dict[str, list[str]]:
    return {
        part: [str(Path(source).relative_to(folder)) for source in sources]
        for part, sources in parts.sources.items()
    }


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train.csv", "train"),
        ("stsa.binary.train", "train"),
        ("wnut17train.conll", "train"),
        ("labeledTrainData.tsv", "train"),
        ("TRAIN.txt", "train"),
        ("my-dev_set.csv", "validation"),
        ("valid.jsonl", "validation"),
        ("emerging.test.annotated", "test"),
        ("strain.csv", None),
        ("trainers.csv", None),
        ("latest.csv", None),
        ("train_test.csv", None),
        ("a.csv", None),
    ],
)
def test_roles_are_words_of_names(name: str, role: str | None) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["a.csv", "b.csv"], "a.csv", {"train": ["a.csv"]}),
        (
            ["train.csv", "dev.csv", "test.csv", ".dev.csv"],
            "train.csv",
            {"train": ["train.csv"], "validation": ["dev.csv"], "test": ["test.csv"]},
        ),
        (
            ["T.train", "T.train.all", "T.test", "T.test.all"],
            "T.train.all",
            {"train": ["T.train.all"], "test": ["T.test.all"]},
        ),
        (["x17train.conll", "y.dev.conll"], "x17train.conll",
         {"train": ["x17train.conll"], "validation": ["y.dev.conll"]}),
        (["train.csv", "a.dev.csv", "b.dev.csv"], "train.csv", {"train": ["train.csv"]}),
        (["reviews.csv", "reviews_test.csv", "other.test.csv"], "reviews.csv",
         {"train": ["reviews.csv"], "test": ["reviews_test.csv"]}),
        (["reviews.csv", "test.csv"], "reviews.csv", {"train": ["reviews.csv"]}),
        (["train.csv", "test/a.csv"], "train.csv", {"train": ["train.csv"]}),
    ],
)  # fmt: skip
def test_siblings_are_those_of_the_same_name(
    folder: Path, names: list[str], given: str, expected: dict[str, list[str]]
) -> None:
    write(folder, *names)
    assert relative(find_parts(folder / given), folder) == expected


def test_siblings_that_cannot_be_told_apart_are_named(folder: Path) -> None:
    write(folder, "train.csv", "a.dev.csv", "b.dev.csv")
    said = " ".join(find_parts(folder / "train.csv").why["validation"])
    assert "'a.dev.csv', 'b.dev.csv': name the one" in said


def test_relative_paths_stay_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "train.csv", "test.csv")
    monkeypatch.chdir(folder)
    assert find_parts("train.csv").sources == {"train": ["train.csv"], "test": ["test.csv"]}


def test_what_is_for_validation_is_said_to_be(folder: Path) -> None:
    write(folder, "a.train", "a.dev", "a.test")
    found = find_parts(folder / "a.dev")
    assert relative(found, folder) == {"train": ["a.dev"]}
    assert found.why["train"] == [
        "Its name says that it is for validation; 'a.train' beside it may be what to train on."
    ]


def test_patterns_are_taken_as_they_are(folder: Path) -> None:
    write(folder, "train-1.csv", "train-2.csv", "test.csv")
    pattern = str(folder / "train-*.csv")
    assert find_parts(pattern).sources == {"train": [pattern]}
    with pytest.raises(DataError, match="no file has such a name"):
        find_parts(folder / "dev*.csv")
    write(folder, "a[1].csv", "a[1].test.csv")
    assert relative(find_parts(folder / "a[1].csv"), folder) == {
        "train": ["a[1].csv"],
        "test": ["a[1].test.csv"],
    }


def test_a_folder_has_one_file_to_train_on(folder: Path) -> None:
    write(folder, "LICENSE", "train.csv", "dev.csv", "labels.txt")
    found = find_parts(folder)
    assert relative(found, folder) == {"train": ["train.csv"], "validation": ["dev.csv"]}
    assert found.why["train"][0].endswith("it is named as training data.")
    write(folder, "train.tsv")
    with pytest.raises(DataError, match=r"\('train.csv', 'train.tsv'\).*give the file to train on"):
        find_parts(folder)


def test_the_only_table_of_a_folder_is_taken(folder: Path) -> None:
    write(folder, "LICENSE", "notes.txt", "sms.tsv")
    assert relative(find_parts(folder), folder) == {"train": ["sms.tsv"]}
    write(folder, "more.csv")
    with pytest.raises(DataError, match=r"has 4 files in one folder \('more.csv', 'sms.tsv'\)"):
        find_parts(folder)
    write(folder / "empty", "x")
    (folder / "empty" / "x").unlink()
    with pytest.raises(DataError, match="has no files"):
        find_parts(folder / "empty")


def test_folders_are_labels_without_what_lies_beside_them(folder: Path) -> None:
    write(folder, "pos/1.txt", "neg/1.txt")
    assert find_parts(folder).sources == {"train": [str(folder)]}
    write(folder, "README", "unsup/1.txt")
    found = find_parts(folder)
    assert relative(found, folder) == {"train": ["neg", "pos"]}
    assert found.why["train"] == ["Left out, for they are in no label's folder: 'README', '1.txt'."]


def test_folders_that_are_both_named_so_are_labels(folder: Path) -> None:
    write(folder, "train-a/1.txt", "train-b/1.txt")
    assert find_parts(folder).sources == {"train": [str(folder)]}


def test_folders_of_parts_are_told(folder: Path) -> None:
    write(folder, "README", "train/pos/1.txt", "train/neg/1.txt", "train/urls", "test/pos/1.txt")
    write(folder, "test/neg/1.txt", "test/urls", "valid/neg/1.txt")
    assert relative(find_parts(folder), folder) == {
        "train": ["train/neg", "train/pos"],
        "validation": ["valid"],
        "test": ["test/neg", "test/pos"],
    }


def test_archives_are_like_folders(folder: Path) -> None:
    folder.mkdir()
    path = folder / "r.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("r/README", "r/pos/1.txt", "r/neg/1.txt"):
            file.writestr(name, "a")
    assert relative(find_parts(path), path) == {"train": ["r/neg", "r/pos"]}
    with zipfile.ZipFile(path, "w") as file:
        for name in ("r/train/pos/1.txt", "r/train/neg/1.txt", "r/test/neg/1.txt"):
            file.writestr(name, "a")
    assert relative(find_parts(path), path) == {"train": ["r/train"], "test": ["r/test"]}
    with zipfile.ZipFile(path, "w") as file:
        for name in ("train.csv", "test.csv"):
            file.writestr(name, "a")
    assert relative(find_parts(path), path) == {"train": ["train.csv"], "test": ["test.csv"]}
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.csv", "a")
    assert find_parts(path).sources == {"train": [str(path)]}
