"""How are a plan's files reached? In a folder or an archive, read with distrust and written crash-safely."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from lpc.specs.diagnostics import Diagnostic, LpcError
from lpc.specs.files import leftovers, locked, replacing
from lpc.specs.plan.image import Image, Stored, chunks
from lpc.specs.plan.manifest import MANIFEST, STORED_NAME

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that an archive can name
_LOCAL = 30  # bytes of an archive's header before a file, which ends with the lengths of a name and of more


class Container(Protocol):
    """Something that holds files by name. `read` raises LpcError (0504, 0505, 0507, 0508, 0509)."""

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's bytes; refuse a file of more than `limit` bytes before reading it."""
        ...

    def stored(self, name: str, limit: int) -> Stored:
        """Return a file's bytes as they are stored, read once; they are read again as they are needed."""
        ...


def _refuse(code: str, message: str, place: object) -> NoReturn:
    raise LpcError(Diagnostic(code, message, place=str(place)))


class Folder:
    """A plan in a folder. Links are never followed inside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's bytes; see `Container`."""
        with self._opened(name, limit) as stream:
            return stream.read(limit)

    def stored(self, name: str, limit: int) -> Stored:
        """Return a file's bytes as they are stored; see `Container`."""
        with self._opened(name, limit) as stream:
            return Stored(stream.fileno(), 0, limit, str(self.path / name))

    @contextmanager
    def _opened(self, name: str, limit: int) -> Iterator[BinaryIO]:
        path = self.path / name
        if path.parent != self.path and path.parent.is_symlink():
            _refuse("0507", "a folder inside the plan is a symbolic link", path.parent)
        if path.is_symlink():
            _refuse("0507", "a file of the plan is a symbolic link", path)
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except (FileNotFoundError, NotADirectoryError):
            _refuse("0504", f"the plan's file {name} is missing", path)
        except OSError as problem:
            _refuse("0501", f"the plan's file cannot be read: {problem.strerror}", path)
        with os.fdopen(handle, "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                _refuse("0507", "a file of the plan is no plain file", path)
            if found.st_size > limit:
                _refuse("0508", f"the file has {found.st_size} bytes; at most {limit} were expected", path)
            yield stream


class Archive:
    """A plan in a .zip whose files are stored uncompressed, so that it cannot be larger than it looks."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive = archive
        self.path = path
        self.files: dict[str, zipfile.ZipInfo] = {}
        size = path.stat().st_size
        for info in archive.infolist():
            self._admit(info)
        if sum(info.file_size for info in self.files.values()) > size:
            _refuse("0508", "the archive's files claim more bytes than the archive has", path)

    def _admit(self, info: zipfile.ZipInfo) -> None:
        place = f"{self.path}: {info.filename}"
        if info.filename in self.files:
            _refuse("0509", "the archive holds a file twice", place)
        stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not stored or info.flag_bits & 1:
            _refuse("0509", "the archive's files must be stored, not compressed or encrypted", place)
        if stat.S_ISLNK(info.external_attr >> 16):
            _refuse("0507", "a file of the plan is a symbolic link", place)
        self.files[info.filename] = info

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's bytes; see `Container`."""
        info = self._info(name, limit)
        with self._readable(name):
            return self.archive.read(info)

    def stored(self, name: str, limit: int) -> Stored:
        """Return a file's bytes as they are stored; see `Container`."""
        info, found = self._info(name, limit), self.archive.fp
        with self._readable(name), self.archive.open(info):  # which compares the header before the file with the list
            assert found is not None
            file = found.fileno()
            header = os.pread(file, _LOCAL, info.header_offset)
            before = _LOCAL + sum(int.from_bytes(header[i : i + 2], "little") for i in (_LOCAL - 4, _LOCAL - 2))
            return Stored(file, info.header_offset + before, info.file_size, f"{self.path}: {name}")

    def _info(self, name: str, limit: int) -> zipfile.ZipInfo:
        info = self.files.get(name)
        place = f"{self.path}: {name}"
        if info is None:
            _refuse("0504", f"the plan's file {name} is missing", place)
        if info.file_size > limit:
            _refuse("0508", f"the file has {info.file_size} bytes; at most {limit} were expected", place)
        return info

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as problem:
            _refuse("0505", f"the file cannot be read from the archive: {problem}", f"{self.path}: {name}")


@contextmanager
def opened(path: Path) -> Iterator[Container]:
    """Open the plan at `path`, a folder or an archive. Raises LpcError (0501, 0507 to 0509)."""
    if path.is_dir():
        with locked(path, shared=True):
            yield Folder(path)
        return
    if not path.is_file():
        _refuse("0501", "there is no plan here", path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as problem:
        _refuse("0509", f"this is neither a plan folder nor an archive: {problem}", path)
    with archive:
        yield Archive(archive, path)


def write_folder(path: Path, files: Mapping[str, Image]) -> None:
    """Write all files, the manifest last, then sweep what the new manifest does not name."""
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        _refuse_foreign(path)
        for name in sorted(files, key=lambda name: (name == MANIFEST, name)):
            target = path / name
            target.parent.mkdir(exist_ok=True)
            if name == MANIFEST or not _holds(target, files[name]):
                with replacing(target) as stream:
                    stream.writelines(chunks(files[name]))
        _sweep(path, files)


def write_archive(path: Path, files: Mapping[str, Image]) -> None:
    """Write all files into one archive, manifest first; equal files give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent), replacing(path) as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(files, key=lambda name: (name != MANIFEST, name)):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                info.file_size = len(files[name])
                with archive.open(info, "w") as entry:
                    entry.writelines(chunks(files[name]))
        for stale in leftovers(path):
            if stale != Path(stream.name):
                stale.unlink(missing_ok=True)


def _refuse_foreign(path: Path) -> None:
    """Sweeping deletes files; so a folder with files of another origin is left alone."""
    kernels = path / "kernels"
    if kernels.is_symlink():
        _refuse("0507", "a folder inside the plan is a symbolic link", kernels)
    if (path / MANIFEST).exists():
        return
    foreign = [entry for entry in sorted(path.iterdir()) if entry.name != "kernels" and not _ours(entry.name)]
    if foreign:
        _refuse("0511", f"the folder is no plan: it holds {foreign[0].name}", path)


def _ours(name: str) -> bool:
    return STORED_NAME.fullmatch(name) is not None or _TEMPORARY.fullmatch(name) is not None


def _holds(path: Path, data: Image) -> bool:
    """Tell whether the file is there already; damage under the right name is written over."""
    with suppress(OSError):
        if not path.is_symlink() and path.stat().st_size == len(data):
            with path.open("rb") as stream:
                return all(stream.read(len(chunk)) == chunk for chunk in chunks(data))
    return False


def _sweep(path: Path, files: Mapping[str, Image]) -> None:
    kept = {path / name for name in files}
    for folder in (path, path / "kernels"):
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry not in kept and _ours(entry.name) and not entry.is_dir():
                entry.unlink(missing_ok=True)
