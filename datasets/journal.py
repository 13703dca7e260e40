"""An append-only file of fixed-size records that survives a kill at any moment."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Journal:
    """Records of one numpy dtype, each with an integer key and a checksum, appended in any order.

    What a kill leaves of a half-written record is cut off when the file is opened again. One process at a
    time may have it open.

    Args:
        path: The file; made if missing.
        payload: The dtype of a record's content.
    """

    def __init__(self, path: Path, payload: DTypeLike) -> None:
        self._dtype = np.dtype([("key", "<i8"), ("checksum", "<u4"), ("payload", payload)])
        self._path = path
        path.touch()
        whole = path.stat().st_size // self._dtype.itemsize
        records = self._map(whole)
        valid = next((i for i, r in enumerate(records) if r["checksum"] != _checksum(r)), whole)
        self.keys = [int(key) for key in records["key"][:valid]]
        del records  # unmaps the file before it is cut
        self._file = path.open("r+b")
        self._file.truncate(valid * self._dtype.itemsize)
        self._file.seek(0, 2)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, key: int, **payload: object) -> None:
        """Append one record; the fields of ``payload`` are those of its dtype."""
        record = np.zeros((), self._dtype)
        record["key"] = key
        for name, value in payload.items():
            record["payload"][name] = value
        record["checksum"] = _checksum(record)
        self._file.write(record.tobytes())
        self._file.flush()
        self.keys.append(key)

    def payloads(self) -> NDArray[np.void]:
        """The payloads of all records, in the order of ``keys``, mapped from the file."""
        return self._map(len(self.keys))["payload"]

    def _map(self, count: int) -> NDArray[np.void]:
        if not count:  # an empty file cannot be mapped
            return np.zeros(0, self._dtype)
        return np.memmap(self._path, self._dtype, mode="r", shape=(count,))


def _checksum(record: np.void | NDArray[np.void]) -> int:
    return zlib.crc32(record["payload"].tobytes(), zlib.crc32(record["key"].tobytes()))
