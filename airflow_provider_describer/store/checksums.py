"""Checksums of the table's files on a local disk, where nothing else notices a changed byte or a missing file.

Lance has none of its own. Whoever has written a version of the table writes size and CRC-32 of all files of that
version into ``descriptions.lance/_checksums/<version>.json``, which Lance leaves alone, before shards are removed. The
table's files are never changed. A version whose writer was killed before that is read as it is, as the shards that it
was made from are still there; the next one that writes adds its files. Buckets have checksums of their own.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_describer.errors import CorruptShard, StoreError
from airflow_provider_describer.storage.folder import LocalFolder, sync_folder

if TYPE_CHECKING:
    from lance import LanceDataset

FOLDER = "_checksums"
MAX_ATTEMPTS = 10
KEPT = 3
"""Versions whose checksums are kept, for those who are just reading them."""


class FileSum(NamedTuple):
    """Size and CRC-32 of a file."""

    size: int
    crc: int


class Checksums:
    """What is known of the files of one table. A file is read once, and not again by the same object.

    The methods that check raise `CorruptShard`, which names the file that is damaged or missing.
    """

    def __init__(self) -> None:
        self._root: Path | None = None
        """The table's folder; None for a table that needs no checksums."""
        self._sums: dict[str, FileSum] = {}
        self._checked: set[str] = set()
        self.version = 0
        """The newest version whose checksums were written; 0 where there is none."""

    def load(self, root: str) -> None:
        """Read the newest checksums, and check the list of files of that version. Comes before the table is opened.

        :param root: the table's folder; empty for a table in a bucket, of which nothing is checked.
        """
        if not root:
            return
        self._root, files = Path(root), LocalFolder(Path(root))
        for _ in range(MAX_ATTEMPTS):
            names = files.names(FOLDER)
            if not names:
                break
            content = files.read(names[-1])
            if content is not None:
                self.version, self._sums = _decode(files.where(names[-1]), content)
                break
            # Newer ones have replaced it.
        else:
            raise _damaged(self._root / names[-1], "it is listed and is not there")
        try:
            self.check([_manifest(self.version)])
        except CorruptShard:
            # Of an older version it may have been removed since.
            if (self._root / _manifest(self.version)).exists():
                raise

    def check_version(self, version: int) -> None:
        """Check that an opened table is not older than what was written."""
        if self._root and version < self.version:
            raise _damaged(self._root / _manifest(self.version), "it is missing")

    def check_lookup(self, dataset: LanceDataset, columns: Iterable[str]) -> None:
        """Check what tells which rows have given values in these columns: indexes, and rows that no index has."""
        for column in columns:
            segments = [
                one for index in dataset.describe_indices() if index.field_names == [column] for one in index.segments
            ]
            indexed = {fragment for segment in segments for fragment in segment.fragment_ids}
            folders = tuple(f"_indices/{segment.uuid}/" for segment in segments)
            self.check(name for name in self._sums if folders and name.startswith(folders))
            self.check_fragments(dataset, {one.fragment_id for one in dataset.get_fragments()} - indexed)

    def check_fragments(self, dataset: LanceDataset, fragments: Iterable[int]) -> None:
        """Check the files of fragments whole."""
        wanted = set(fragments)
        self.check(name for one, name in _data_files(dataset) if one in wanted)

    def check_all(self, dataset: LanceDataset) -> list[StoreError]:
        """Read every file of the table and return what is damaged or missing."""
        found: list[StoreError] = []
        for name in self._sums if dataset.version == self.version else _files_of(dataset, self._root):
            try:
                self.check([name])
            except CorruptShard as error:
                found.append(error)
        return found

    def check(self, names: Iterable[str]) -> None:
        """Check these files; those whose checksums are not known yet are not read."""
        for name in names:
            known = self._sums.get(name)
            if self._root is None or known is None or name in self._checked:
                continue
            path = self._root / name
            try:
                size = path.stat().st_size
                found = _measure(path) if size == known.size else None
            except FileNotFoundError:
                raise _damaged(path, "it is missing") from None
            except OSError as error:
                raise _damaged(path, f"it cannot be read: {error}") from None
            if found is None:
                raise _damaged(path, f"it holds {size} bytes of {known.size}")
            if found != known:
                raise _damaged(path, "its checksum does not match its content")
            self._checked.add(name)

    def write(self, dataset: LanceDataset) -> None:
        """Make the files of this version survive a loss of power, and write their checksums."""
        if self._root is None or dataset.version <= self.version:
            return
        folders, sums = {self._root.parent}, dict[str, FileSum]()
        for name in _files_of(dataset, self._root):
            path = self._root / name
            if name not in self._sums:
                folders |= {above for above in path.parents if above.is_relative_to(self._root)}
            sums[name] = self._sums.get(name) or _sync(path)
        for folder in folders:
            sync_folder(folder)
        files = LocalFolder(self._root)
        files.create(f"{FOLDER}/{dataset.version:020d}.json", _encode(dataset.version, sums))
        files.delete(*files.names(FOLDER)[:-KEPT])
        self.version, self._sums = dataset.version, sums


def _files_of(dataset: LanceDataset, root: Path | None) -> Iterator[str]:
    """Yield the files that a version of the table is made of, relative to the table's folder."""
    if root is None:
        return
    yield _manifest(dataset.version)
    yield from (name for _, name in _data_files(dataset))
    for index in dataset.describe_indices():
        for segment in index.segments:
            folder = f"_indices/{segment.uuid}"
            yield from sorted(f"{folder}/{path.name}" for path in (root / folder).iterdir())


def _data_files(dataset: LanceDataset) -> Iterator[tuple[int, str]]:
    for fragment in dataset.get_fragments():
        for file in fragment.metadata.files:
            yield fragment.fragment_id, f"data/{file.path}"


def _manifest(version: int) -> str:
    # Lance counts down, so that the newest one is the first in a listing.
    return f"_versions/{2**64 - 1 - version:020d}.manifest"


def _measure(path: Path) -> FileSum:
    size = crc = 0
    buffer = memoryview(bytearray(1 << 18))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            size, crc = size + count, zlib.crc32(buffer[:count], crc)
    return FileSum(size, crc)


def _sync(path: Path) -> FileSum:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return _measure(path)


def _encode(version: int, sums: dict[str, FileSum]) -> bytes:
    body = json.dumps({"version": version, "files": sums})
    return f"{zlib.crc32(body.encode()):08x}\n{body}".encode()


def _decode(where: str, content: bytes) -> tuple[int, dict[str, FileSum]]:
    crc, _, body = content.partition(b"\n")
    if crc != f"{zlib.crc32(body):08x}".encode():
        raise CorruptShard(
            f"{where} is damaged. It holds the checksums of the table's files, so no call is made. Restore it from a "
            "backup, or remove it: what it has vouched for is then read unchecked."
        )
    told = json.loads(body)
    return told["version"], {name: FileSum(*values) for name, values in told["files"].items()}


def _damaged(path: Path, what: str) -> CorruptShard:
    return CorruptShard(
        f"{path} is damaged: {what}. It records calls that were paid for, so no call is made. Restore the whole table "
        f"from a backup."
    )
