"""Downloads from a server on this machine that can drop the line, ignore ranges and so on."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mgic_geo.datasets import DownloadError
from mgic_geo.datasets.download import download

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the server's `drop_at`, `ranges` and `seen` steer and record it."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.seen.append(asked)
        ranges = self.server.ranges if asked else "none"
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if ranges == "as asked" else 0
        if asked and start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(200 if ranges == "none" else 206)
        if ranges != "none":
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.drop_at])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.drop_at, server.ranges, server.seen = None, "as asked", []
        server.url = f"http://127.0.0.1:{server.server_port}/Thing.zip"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_whole_file(server, tmp_path, capfd):
    path = tmp_path / "new" / "Thing.zip"
    download(server.url, path, md5=MD5)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    download(server.url, path, md5=MD5)
    assert server.seen == [None]
    assert capfd.readouterr().err == ""  # no terminal, no bar


@pytest.mark.parametrize("ranges", ["as asked", "none", "from the start"])
def test_resume(server, tmp_path, ranges):
    path = tmp_path / "Thing.zip"
    server.drop_at = 300_000
    with pytest.raises(DownloadError, match=r"closed after 300000 of 1048576 bytes\. Run again to continue"):
        download(server.url, path, md5=MD5)
    assert not path.exists()
    server.drop_at, server.ranges = None, ranges
    download(server.url, path, md5=MD5)
    assert server.seen == [None, "bytes=300000-"]
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("extra", [b"", b"more than the server has"], ids=["whole", "too long"])
def test_killed_before_the_last_step(server, tmp_path, extra):
    (tmp_path / "Thing.zip.part").write_bytes(CONTENT + extra)
    download(server.url, tmp_path / "Thing.zip", md5=MD5)
    assert (tmp_path / "Thing.zip").read_bytes() == CONTENT


def test_wrong_checksum(server, tmp_path):
    path = tmp_path / "Thing.zip"
    with pytest.raises(DownloadError, match=f"has MD5 {MD5}, not {'0' * 32}, and was deleted"):
        download(server.url, path, md5="0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_damaged_start_is_not_kept(server, tmp_path):
    path = tmp_path / "Thing.zip"
    (tmp_path / "Thing.zip.part").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="and was deleted"):
        download(server.url, path, md5=MD5)
    download(server.url, path, md5=MD5)
    assert path.read_bytes() == CONTENT


def test_file_put_there_by_hand(tmp_path):
    path = tmp_path / "Thing.zip"
    path.write_bytes(CONTENT)
    download("http://127.0.0.1:9/never-asked", path, md5=MD5)
    path.write_bytes(b"another")
    with pytest.raises(DownloadError, match=r"Thing\.zip is not the official file: its MD5 is .* Delete it"):
        download("http://127.0.0.1:9/never-asked", path, md5=MD5)


def test_offline_says_what_to_put_where(server, tmp_path):
    path = tmp_path / "Thing.zip"
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError) as caught:
        download(server.url, path, md5=MD5)
    message = str(caught.value)
    assert "Connection refused" in message
    assert f"download {server.url} elsewhere and put it at {path} (MD5 {MD5})" in message
    assert not path.exists()


def test_missing_file(tmp_path, server):
    Handler_404 = type("Handler404", (Handler,), {"do_GET": lambda self: self.send_error(404)})
    server.RequestHandlerClass = Handler_404
    with pytest.raises(DownloadError, match="Not Found"):
        download(server.url, tmp_path / "Thing.zip", md5=MD5)
