"""A dataset in a real S3 server on loopback, behind a proxy that drops connections, answers 503 and cuts replies."""

from __future__ import annotations

import http.client
import multiprocessing
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from bundles.dataset import write_dataset

import stpatch
from stpatch import remote
from stpatch.errors import RemoteError

for _package in ("s3fs", "moto.server", "flask"):
    pytest.importorskip(_package, reason="s3fs and moto[server] are needed for a store on loopback")

import fsspec  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
SHARD = "/bucket/data/train/train-000000.tar"


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a server, but for those of a path for which faults are planned."""

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = port
        self.faults = []
        self.gets = Counter()

    def handle_error(self, request, client_address):
        """Say nothing of connections that a test drops."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def _handle(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, fault = self.path.split("?")[0], None
        if self.command == "GET":
            self.server.gets[path] += 1
            if path == SHARD and self.server.faults:
                fault = self.server.faults.pop(0)
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "503":
            text = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            self._send(503, [("Content-Type", "application/xml")], text)
            return
        server = http.client.HTTPConnection("127.0.0.1", self.server.target)
        server.request(self.command, self.path, body=body, headers=dict(self.headers))
        reply = server.getresponse()
        data = reply.read()
        headers = [
            (name, value)
            for name, value in reply.getheaders()
            if name.lower() not in ("content-length", "connection", "transfer-encoding")
        ]
        if fault == "cut":  # fewer bytes than the reply says, and then nothing
            self._send(reply.status, headers, data[: len(data) // 2], told=len(data))
            self.close_connection = True
        elif fault == "short":  # fewer bytes than were asked for, and the reply says so
            self._send(reply.status, headers, data[: len(data) // 2])
        else:
            told = reply.getheader("Content-Length") if self.command == "HEAD" else None
            self._send(reply.status, headers, data, told=told)

    def _send(self, status, headers, data, told=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if told is None else told))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815


@pytest.fixture(scope="module")
def server():
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    proxy = Proxy(port)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    yield proxy
    proxy.shutdown()
    proxy.server_close()
    moto.stop()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """Return the store's proxy and a folder whose copy is in it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_MAX_ATTEMPTS": "1",
        "STPATCH_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.05, 0.1))
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)  # what s3fs does by itself is not what is tested
    folder = tmp_path / "data"
    write_dataset(folder, counts={"train": 12})
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    if not fs.exists("bucket"):
        fs.mkdir("bucket")
    for file in folder.rglob("*"):
        if file.is_file():
            fs.put_file(str(file), f"bucket/data/{file.relative_to(folder).as_posix()}")
    fsspec.filesystem("s3").clear_instance_cache()
    server.faults.clear()
    server.gets.clear()
    return server, folder


@pytest.mark.parametrize("cache", [False, True], ids=["in place", "kept"])
@pytest.mark.parametrize(
    "faults",
    [[], ["drop"], ["503"], ["cut"], ["short"], ["503", "drop", "cut"]],
    ids=lambda faults: " ".join(faults) or "sound",
)
def test_samples_come_through(bucket, tmp_path, faults, cache):
    proxy, folder = bucket
    dataset = stpatch.open("s3://bucket/data", "train", cache=tmp_path / "shards" if cache else None)
    assert proxy.gets == {f"/bucket/data/{name}": 1 for name in ("manifest.json", "patches.parquet", "slides.parquet")}
    proxy.faults += faults
    theirs = stpatch.open(folder, "train")
    for ours, other in zip(dataset.batches(3), theirs.batches(3), strict=True):
        assert ours.keys == other.keys
        np.testing.assert_array_equal(ours.x, other.x)
    assert not proxy.faults
    assert proxy.gets[SHARD] >= 1 + len(faults)


def test_a_store_that_stays_down(bucket):
    proxy, _ = bucket
    dataset = stpatch.open("s3://bucket/data", "train")
    proxy.faults += ["503"] * 4
    with pytest.raises(RemoteError, match=r"s3://bucket/data/train/train-000000.tar(.|\n)*4 times"):
        dataset.batch([0])
    proxy.faults.clear()
    assert dataset.batch([0]).keys == ["s1-000000"]


def _keys(dataset, numbers, found):
    found.put(dataset.batch(numbers).keys)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read(bucket, method):
    _, folder = bucket
    dataset = stpatch.open("s3://bucket/data", "train")
    expected = stpatch.open(folder, "train").batch([4, 7]).keys
    assert dataset.batch([4, 7]).keys == expected
    context = multiprocessing.get_context(method)
    found = context.Queue()
    worker = context.Process(target=_keys, args=(dataset, [4, 7], found))
    worker.start()
    assert found.get(timeout=60) == expected
    worker.join()
