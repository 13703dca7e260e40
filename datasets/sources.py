"""Where the meshes of a data set lie: a folder or a zip in ModelNet's layout."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .files import is_hidden, list_entries
from .layout import check_classes, check_filled, check_one_root, subfolders

SPLITS = ("train", "test")


@dataclass(frozen=True)
class MeshFile:
    """One mesh: the path of its file within the source, what the path says about it, its size in bytes."""

    path: str
    label: str
    split: str
    size: int

    @property
    def name(self) -> str:
        """The file's name without its suffix, such as ``chair_0001``."""
        return PurePosixPath(self.path).stem

    @property
    def key(self) -> str:
        """``class/split/file``: the same in a folder, in a zip and under any root."""
        return "/".join(PurePosixPath(self.path).parts[-3:])


@dataclass(frozen=True)
class MeshSource:
    """The meshes of a folder or zip, sorted, and a fingerprint that changes when any of them does."""

    path: Path
    meshes: tuple[MeshFile, ...]
    fingerprint: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted: a label is an index into them."""
        return tuple(sorted({mesh.label for mesh in self.meshes}))


def find_meshes(path: Path) -> MeshSource:
    """List the meshes ``NAME/<class>/{train,test}/*.off`` of a folder or zip.

    ``path`` may be the folder NAME itself, or one that holds it; links in it are followed. The
    fingerprint is made from names, sizes and, in a zip, the members' checksums, in a folder, the files'
    modification times.

    Raises:
        ValueError: If ``path`` is neither folder nor zip, what it holds is not in the layout, a class has no
            meshes, or train and test differ in their classes.
    """
    from .hdf5 import as_bytes  # takes longer to import than a worker takes for many meshes

    stamps = _entries(path)
    found = (_mesh_file(name, size) for name, (size, _) in stamps.items())
    meshes = sorted((mesh for mesh in found if mesh), key=lambda mesh: mesh.key)
    check_one_root(path, roots := {PurePosixPath(mesh.path).parts[:-3] for mesh in meshes})
    missing = [split for split in SPLITS if not any(mesh.split == split for mesh in meshes)]
    if missing:
        raise ValueError(
            f"{path} holds no {' or '.join(missing)} meshes; the layout is NAME/<class>/{{train,test}}/*.off"
        )
    (root,) = roots
    check_filled(path, _empty_folders(stamps, root, meshes), "meshes")
    train, test = ({mesh.label for mesh in meshes if mesh.split == split} for split in SPLITS)
    check_classes(f"{path}'s train", train, "test", test)
    as_bytes(tuple(mesh.key for mesh in meshes))  # refuses names that the cache could not hold
    digest = hashlib.sha256(repr([(mesh.key, stamps[mesh.path]) for mesh in meshes]).encode())
    return MeshSource(path, tuple(meshes), digest.hexdigest())


@contextmanager
def opened(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Open a source for reading; gives a function from a mesh's path to the bytes of its file."""
    if path.is_dir():
        yield lambda name: (path / name).read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            yield archive.read


def _entries(path: Path) -> dict[str, tuple[int, int]]:
    """What tells files and empty folders, which end in a slash, from changed ones: size and time."""
    if path.is_dir():
        return {name: _stamp(path / name) for name in list_entries(path)}
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                shown = [info for info in archive.infolist() if not is_hidden(info.filename)]
                return {info.filename: (info.file_size, info.CRC) for info in shown}
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is a damaged zip file ({error}); fetch it again") from error
    if path.exists():
        raise ValueError(
            f"{path} is neither a folder nor a whole zip file; if it was downloaded, fetch it again"
        )
    raise FileNotFoundError(f"there is no file or folder {path}")


def _stamp(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:  # a link to nothing: whoever reads the file says so, by name
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _mesh_file(path: str, size: int) -> MeshFile | None:
    parts = PurePosixPath(path).parts
    if len(parts) < 3 or path.endswith("/"):
        return None
    label, split, file = parts[-3:]
    is_mesh = split in SPLITS and file.lower().endswith(".off")
    return MeshFile(path, label, split, size) if is_mesh else None


def _empty_folders(entries: Iterable[str], root: tuple[str, ...], meshes: Iterable[MeshFile]) -> set[str]:
    """The folders of classes, and of the splits in them, that hold no meshes.

    A folder that holds other things, and no splits, is no class.
    """
    used = {PurePosixPath(entry).parent for entry in entries if not entry.endswith("/")}
    folders = used | {PurePosixPath(entry) for entry in entries if entry.endswith("/")}
    labels, filled = subfolders(used, root), {(mesh.label, mesh.split) for mesh in meshes}
    empty = subfolders(folders, root) - labels
    for label in labels:
        splits = subfolders(folders, (*root, label)) & {*SPLITS}
        empty |= {f"{label}/{split}" for split in splits if (label, split) not in filled}
    return empty
