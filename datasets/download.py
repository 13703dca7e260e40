"""Downloading one file over verified TLS, with progress, resume and a checksum."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

_BLOCK = 1 << 20


class DownloadError(OSError):
    """A file that could not be fetched; the message says what to put where instead."""


def download(url: str, path: Path, *, md5: str, progress: bool = True, timeout: float = 30.0) -> None:
    """Fetch ``url`` to ``path``, unless a file is there already; verify its MD5 either way.

    What has arrived is kept in ``path`` with ``.part`` appended, and a later call asks for the rest only.
    The file takes its name once it is whole and verified.

    Args:
        url: Where the file is; https is verified against the system's certificates.
        path: Where it goes.
        md5: Its checksum, 32 hexadecimal digits.
        progress: Show a progress bar, if stderr is a terminal.
        timeout: Seconds without an answer after which the server counts as out of reach.

    Raises:
        DownloadError: If the server cannot be reached, stops early, or the checksum is not ``md5``.
    """
    by_hand = f"Run again to continue, or download {url} elsewhere and put it at {path}"
    if path.exists():
        if (found := _md5(path)) != md5:
            raise DownloadError(
                f"{path} is not the official file: its MD5 is {found}, not {md5}. Delete it to download it "
                "again; to use it as it is, pass its path as the data"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _fetch(url, part, progress, timeout)
    except (OSError, http.client.HTTPException) as error:  # URLError and its kin are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"cannot download {url}: {reason}. {by_hand} (MD5 {md5})") from error
    if (found := _md5(part)) != md5:
        part.unlink()
        raise DownloadError(
            f"what {url} sent has MD5 {found}, not {md5}, and was deleted. {by_hand} (MD5 {md5})"
        )
    os.replace(part, path)


def _fetch(url: str, part: Path, progress: bool, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    context = ssl.create_default_context() if url.startswith("https:") else None
    try:
        response = urllib.request.urlopen(request, timeout=timeout, context=context)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") != f"bytes */{have}":  # else all of it is here already
            part.unlink()
            _fetch(url, part, progress, timeout)
        return
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT or _start(response) != have:
            have = 0  # the server sends the whole file, whatever was asked
        rest = response.headers.get("Content-Length")
        total = have + int(rest) if rest else None
        bar = tqdm(
            total=total,
            initial=have,
            desc=part.name.removesuffix(".part"),
            unit="B",
            unit_scale=True,
            disable=None if progress else True,  # None: shown on a terminal only
        )
        with bar, part.open("ab" if have else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and (got := part.stat().st_size) != total:
        raise OSError(f"the connection closed after {got} of {total} bytes")


def _start(response: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
