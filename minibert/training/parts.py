"""Which files are for training, which for validation and test: read off their names."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from minibert.errors import DataError
from minibert.lines import listed
from minibert.training.data_files import DataFile, find_files
from minibert.training.dialect import format_of

_ROLES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "test": "test",
    "testing": "test",
}
_UNLABELLED = ("unsup", "unsupervised", "unlabeled", "unlabelled")


@dataclass
class Parts:
    """Where the rows of a run stand, by "train", "validation" and "test"; `why` says more of it."""

    sources: dict[str, list[str]]
    why: dict[str, list[str]] = field(default_factory=dict)


def find_parts(source: str | Path) -> Parts:
    """The files to train on, and those beside them that are for validation and test.

    Of a folder or an archive: the one file or folder in it that is named as training data; else
    the folders whose names are labels.

    Raises: DataError for what is absent, and for a folder that leaves open what to train on.
    """
    path = Path(source)
    if _is_pattern(path):
        find_files(path, folders=True)
        return Parts({"train": [str(path)]})
    chosen = _training_part(path)
    sources, said = _labelled_folders(chosen)
    parts = Parts({"train": sources}, {"train": said})
    if chosen != path:
        parts.why["train"].insert(0, f"Of what {path} holds, it is named as training data.")
    _add_siblings(parts, chosen)
    return parts


def role_of(name: str) -> str | None:
    """What a name says that rows are for: "train", "validation", "test", or nothing."""
    roles = {_ROLES[word] for word in _words(name) if word in _ROLES}
    return roles.pop() if len(roles) == 1 else None


def _words(name: str) -> list[str]:
    """The words of a name, in small letters: of "wnut17trainSet.conll" wnut, 17, train, set."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)]


def _is_pattern(path: Path) -> bool:
    return not path.exists() and any(mark in str(path) for mark in "*?[")


# ---- folders and archives


def _training_part(path: Path) -> Path:
    """The file or the folder in here to train on; the path itself where that is a file, or where
    the names of its folders are the labels."""
    files = find_files(path, folders=True)
    if not files:
        raise DataError(f"{path}: has no files, expected some to look at")
    if not _is_several(path, files):
        return path
    if len({file.folder_name for file in files}) > 1:
        top, names = _tops(path, files)
        training = [name for name in names if role_of(name) == "train"]
        return _training_part(top / training[0]) if len(training) == 1 else path
    tables = [file for file in files if format_of(file.file_name) not in (None, "txt")]
    chosen = [file for file in files if role_of(file.file_name) == "train"] or tables
    if len(chosen) != 1:
        names = [file.file_name for file in chosen or files]
        raise DataError(
            f"{path}: has {len(files)} files in one folder ({listed(names)}), so that folders are "
            "no labels; give the file to train on"
        )
    return Path(chosen[0].name)


def _is_several(path: Path, files: list[DataFile]) -> bool:
    """Is it a folder, or an archive of several files?"""
    return path.is_dir() or (bool(files[0].member) and len(files) > 1)


def _tops(path: Path, files: list[DataFile]) -> tuple[Path, list[str]]:
    """The names at the top of a folder or an archive, and where; one that holds all is passed."""
    places = [Path(file.name).relative_to(path).parts for file in files]
    while len({place[0] for place in places}) == 1 and min(map(len, places)) > 1:
        path, places = path / places[0][0], [place[1:] for place in places]
    return path, sorted({place[0] for place in places})


def _labelled_folders(path: Path) -> tuple[list[str], list[str]]:
    """The folders whose names are labels, without the files that lie beside them; else the path."""
    files = find_files(path, folders=True)
    if not _is_several(path, files):
        return [str(path)], []
    places = Counter(str(Path(file.name).parent) for file in files)
    strays = {
        place
        for place in places
        if Path(place).name in _UNLABELLED
        or any(Path(place) in Path(other).parents for other in places)
    }
    if not strays:
        return [str(path)], []
    left_out = [file.file_name for file in files if str(Path(file.name).parent) in strays]
    said = f"Left out, for they are in no label's folder: {listed(left_out)}."
    return sorted(set(places) - strays), [said]


# ---- beside them


def _add_siblings(parts: Parts, path: Path) -> None:
    """Add what lies beside the training data and is named as validation or test data."""
    role, names = role_of(path.name), _beside(path)
    if role in ("validation", "test"):
        training = [name for name in names if role_of(name) == "train"]
        found = f"; {listed(training)} beside it may be what to train on" if training else ""
        parts.why["train"].append(f"Its name says that it is for {role}{found}.")
        return
    for wanted in ("validation", "test"):
        named = [name for name in names if role_of(name) == wanted]
        equal = [name for name in named if _stem(name) == _stem(path.name)]
        chosen = equal or (named if role == "train" else [])
        if len(chosen) == 1:
            parts.sources[wanted], said = _labelled_folders(path.parent / chosen[0])
            parts.why[wanted] = [f"{chosen[0]!r} lies beside the training data.", *said]
        elif chosen:
            parts.why[wanted] = [
                f"Beside the training data lie {listed(chosen)}: name the one that is for it."
            ]


def _stem(name: str) -> str:
    """What a name has in common with those of its siblings."""
    return " ".join(word for word in _words(name) if word not in _ROLES)


def _beside(path: Path) -> list[str]:
    """The names in the folder of a file or a folder, of the same sort as itself, and its own."""
    folder = path.absolute().parent
    if folder.is_dir():
        return sorted(
            each.name
            for each in folder.iterdir()
            if not each.name.startswith(".") and each.is_dir() == path.is_dir()
        )
    beside = [file.name for file in find_files(path.parent, folders=True)]  # in an archive
    return sorted({Path(name).relative_to(path.parent).parts[0] for name in beside})
