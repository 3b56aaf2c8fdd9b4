"""Where labelled rows lie: files, patterns of names, folders, and members of zip archives.

An archive is never unpacked: its members are read where they are, as streams.
"""

import glob
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias
from zipfile import BadZipFile, ZipFile

from minibert.errors import DataError
from minibert.lines import STDIN, Stream, listed, opened

# Text shrinks to a third or a tenth. What would grow beyond both of these is no archive of texts.
_BOMB_BYTES = 100 << 20
_BOMB_RATIO = 200


class DataFile(NamedTuple):
    """A file, or a member of an archive."""

    name: str  # as messages say it
    path: Path
    member: str = ""  # of the archive at `path`

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.member).name if self.member else self.path.name

    @property
    def folder_name(self) -> str:
        """The name of the folder that it lies in; of an archive's top, the archive's."""
        if not self.member:
            return self.path.absolute().parent.name
        return PurePosixPath(self.member).parent.name or self.path.stem


OpenFile: TypeAlias = Callable[[DataFile], AbstractContextManager[tuple[Stream, int | None]]]


def find_files(source: str | Path | Iterable[str | Path], *, folders: bool) -> list[DataFile]:
    """The files of a source, in the order given, those of one pattern or folder sorted by name.

    A source is a file, or "-" for standard input; a pattern such as `data/*.csv`, `**` for any
    folders; members of an archive by their names in it, such as `reviews.zip/pos/*.txt`, where a
    folder that everything in the archive lies in may be left out; with `folders`, a folder, and
    what lies in it.  What patterns and folders find leaves out names that begin with a dot.

    Raises: DataError for what is absent, found twice, or an archive that is damaged, encrypted,
        grows beyond measure, or has names that lead out of it.
    """
    sources = [source] if isinstance(source, str | Path) else source
    found = [file for each in sources for file in _found(Path(each), folders)]
    seen: set[tuple[Path, str]] = set()
    for file in found:
        if (file.path, file.member) in seen:
            raise DataError(
                f"{file.name}: is given twice, expected once; its rows would count double"
            )
        seen.add((file.path, file.member))
    return found


@contextmanager
def opener() -> Iterator[OpenFile]:
    """What opens data files, and opens an archive once for all its members."""
    archives: dict[Path, ZipFile] = {}
    with ExitStack() as stack:

        @contextmanager
        def open_file(file: DataFile) -> Iterator[tuple[Stream, int | None]]:
            if not file.member:
                with opened(file.path) as plain:
                    yield plain
                return
            if file.path not in archives:
                archives[file.path] = stack.enter_context(_archive(file.path))
            with _refusing_damage(file.name):
                member = archives[file.path].open(file.member)
            with io.BufferedReader(member) as stream:  # type: ignore[type-var]
                yield stream, archives[file.path].getinfo(file.member).file_size

        yield open_file


def _found(path: Path, folders: bool) -> list[DataFile]:
    if str(path) == STDIN:
        return [DataFile("standard input", path)]
    archive, inside = _in_archive(path)
    if archive is not None:
        return _members(archive, inside)
    if path.is_dir():
        if not folders:
            raise DataError(
                f'{path}: is a folder, expected a file; set format = "folders" to read each of its '
                f"files as a text, or give files, such as {path}/*.csv"
            )
        return [DataFile(str(each), each) for each in _below(path)]
    if path.exists():
        return [DataFile(str(path), path)]
    if not glob.has_magic(str(path)):
        raise DataError(
            f"{path}: cannot be read: there is no such file; give a file, a pattern such as "
            "data/*.csv, or members of an archive such as data.zip/train/*.txt"
        )
    names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path's takes no absolute
    matches = [Path(name) for name in names]
    files = [file for match in matches if not match.is_dir() for file in _found(match, folders)]
    if not files:
        raise DataError(f"{path}: no file has such a name; look at the pattern")
    return files


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and (path := Path(place, name)).is_file():
                yield path


def _in_archive(path: Path) -> tuple[Path | None, str]:
    """The archive that a path leads into, and the way inside."""
    for candidate in (path, *path.parents):
        if candidate.suffix.lower() == ".zip" and candidate.is_file():
            return candidate, path.relative_to(candidate).as_posix()
    return None, ""


def _members(path: Path, inside: str) -> list[DataFile]:
    with _archive(path) as archive:
        sizes = {each.filename: each.file_size for each in archive.infolist() if not each.is_dir()}
    for name in sizes:
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or ":" in name:
            raise DataError(f"{path}: its member {name!r} leads out of it, expected plain names")
    shown = [name for name in sorted(sizes) if not _is_hidden(name)]
    tops = {name.split("/")[0] for name in shown}
    chosen = [name for name in shown if _matches(name, inside)]
    if not chosen and len(tops) == 1:
        chosen = [name for name in shown if _matches(name, f"{glob.escape(min(tops))}/{inside}")]
    if not chosen:
        raise DataError(f"{path}: no member is named {inside}; it has {listed(shown)}")
    grown = sum(sizes[name] for name in chosen)
    if grown > max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size):
        raise DataError(
            f"{path}: would grow to {grown:,} bytes, over {_BOMB_RATIO} times its size, which no "
            "archive of texts does; unpack it yourself if you trust it"
        )
    return [DataFile(f"{path}/{name}", path, name) for name in chosen]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _matches(name: str, pattern: str) -> bool:
    """Whether a member has this name, or lies in this folder; `.` is the whole archive."""
    parts, patterns = name.split("/"), [part for part in pattern.split("/") if part != "."]
    return _parts_match(parts, patterns) or _parts_match(parts, [*patterns, "**", "*"])


def _parts_match(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_parts_match(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    fits = bool(parts) and fnmatchcase(parts[0], patterns[0])
    return fits and _parts_match(parts[1:], patterns[1:])


@contextmanager
def _archive(path: Path) -> Iterator[ZipFile]:
    with _refusing_damage(str(path)):
        archive = ZipFile(path)
    with archive:
        yield archive


@contextmanager
def _refusing_damage(name: str) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: its archive is damaged: {error}") from None
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression; encryption
        raise DataError(f"{name}: cannot be read from its archive: {error}; unpack it") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
