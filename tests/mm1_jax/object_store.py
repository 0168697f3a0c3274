"""An S3 server in this process, for tests of reading from and writing to buckets."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from pathlib import Path

import fsspec
import pytest

ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",  # the client's own, before ours
}


@contextlib.contextmanager
def account(endpoint: str) -> Generator[None]:
    """Everything at `s3://` is at this server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ACCOUNT, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        files = fsspec.get_filesystem_class("s3")
        files.clear_instance_cache()
        yield
        files.clear_instance_cache()


@contextlib.contextmanager
def bucket_server() -> Generator[str]:
    """A server with an empty bucket, by its address: `s3://bucket`."""
    import requests
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        requests.post(f"{address}/moto-api/reset")  # servers of one process share their buckets
        with account(address):
            fsspec.filesystem("s3").mkdir("bucket")
            yield "s3://bucket"
    finally:
        server.stop()


def upload(folder: Path, url: str) -> str:
    """Copy a folder's files to a URL."""
    files, root = fsspec.core.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder)}", path.read_bytes())
    return url
