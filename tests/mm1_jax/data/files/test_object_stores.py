"""Buckets as input and output: a real client against a server in this process."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import fsspec
import numpy as np
import object_store
import own_data
import pytest
from fsspec.registry import _registry
from http_server import serving
from object_store import upload

from ablations.errors import UserError
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.pipeline import batches
from mm1_jax.data.files import urls
from mm1_jax.data.files.folder import Folder, Range
from mm1_jax.data.own import shard_preparation
from mm1_jax.data.own.manifest import read_manifest
from mm1_jax.data.own.shard_preparation import prepare_own


@pytest.fixture(scope="module")
def bucket():
    with object_store.bucket_server() as url:
        yield url


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(urls, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(shard_preparation, "MEGABYTE", 18_000)


def prepare_there(raw: Path, url: str, data_root: Path) -> str:
    """Files and shards both at a URL; the folder of shards."""
    upload(raw, f"{url}/raw")
    spec = own_data.spec("captions", Path("x"), urls=(f"{url}/raw/{{00000..00001}}.tar",))
    prepare_own(spec, f"{url}/out", data_root)
    return f"{url}/out"


def first_batches(folder: str, data_root: Path) -> list:
    data = {
        "sources": {"mine": {"folder": folder, "kind": "captions"}},
        "mixture": {"mine": 1},
        "text_tokens": 48,
        "images": 4,
    }
    config = TrainConfig.model_validate({"data": data, "training": {"batch_size": 4}})
    return list(itertools.islice(batches(config, data_root, 0), 3))


def assert_same_data(there: str, here: Path, data_root: Path) -> None:
    assert read_manifest(there).fingerprint == read_manifest(str(here)).fingerprint
    names = [name for name in Folder(str(here)).names() if name != "provenance.json"]
    assert [name for name in Folder(there).names() if name != "provenance.json"] == names
    ours, theirs = first_batches(there, data_root), first_batches(str(here), data_root)
    for one, other in zip(ours, theirs, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_what_is_prepared_from_a_bucket_to_a_bucket_is_what_a_folder_has(
    bucket, raw_captions, own_captions, data_root
):
    there = prepare_there(raw_captions, bucket, data_root)
    assert_same_data(there, own_captions, data_root)
    found = urls.expand(f"{bucket}/raw/*.tar", (".tar",), "tars")
    assert found == urls.expand(f"{bucket}/raw/", (".tar",), "tars")
    assert found == [f"{bucket}/raw/0000{n}.tar" for n in range(2)]


@pytest.mark.slow
def test_googles_buckets_serve_as_well(raw_captions, own_captions, data_root, monkeypatch):
    pytest.importorskip("gcsfs")  # `make reference` installs both
    server = pytest.importorskip("gcp_storage_emulator.server").create_server(
        "127.0.0.1", 0, in_memory=True, default_bucket="bucket"
    )
    server.start()
    host, port = server._api._httpd.server_address
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        assert_same_data(
            prepare_there(raw_captions, "gs://bucket", data_root), own_captions, data_root
        )
    finally:
        server.stop()


class TestMistakes:
    def test_a_bucket_that_is_not_there_is_named_and_not_made(
        self, bucket, raw_captions, data_root
    ):
        given = own_data.spec("captions", raw_captions)
        with pytest.raises(UserError, match=r"s3://buckte/out/.*: there is no such bucket"):
            prepare_own(given, "s3://buckte/out", data_root)
        assert not fsspec.filesystem("s3").exists("buckte")
        with pytest.raises(UserError, match=r"s3://buckte/out/manifest.json: there is no such buc"):
            read_manifest("s3://buckte/out")
        with pytest.raises(UserError, match=r"s3://buckte/1.tar: there is no such bucket"):
            urls.read_bytes("s3://buckte/1.tar", 10)

    def test_a_file_that_is_not_there(self, bucket):
        with pytest.raises(UserError, match=r"no prepared data at s3://bucket/none"):
            read_manifest(f"{bucket}/none")
        with pytest.raises(UserError, match=r"s3://bucket/1.tar: there is no such file"):
            urls.read_bytes(f"{bucket}/1.tar", 10)

    def test_without_the_client_the_extra_is_named(self, monkeypatch):
        monkeypatch.delitem(_registry, "s3", raising=False)  # where it was found before
        monkeypatch.setitem(sys.modules, "s3fs", None)
        for attempt in (Folder, read_manifest, lambda url: urls.read_bytes(url, 10)):
            with pytest.raises(UserError, match=r's3://b/x: s3:// needs `pip install "mm1\[s3\]"`'):
                attempt("s3://b/x")


class TestFailures:
    def test_a_server_that_is_busy_is_asked_again(self, tmp_path):
        (tmp_path / "bucket").mkdir()
        (tmp_path / "bucket" / "file").write_bytes(bytes(range(100)))
        with serving(tmp_path) as server, object_store.account(server.url):
            for read in (
                lambda: Folder("s3://bucket").read("file"),
                lambda: urls.read_bytes("s3://bucket/file", 1000),
                lambda: Folder("s3://bucket").read_ranges([Range("file", 0, 100)])[0],
            ):
                server.failures["bucket/file"] = 3
                assert read() == bytes(range(100))
            server.failures["bucket/file"] = 1000
            with pytest.raises(UserError, match=r"s3://bucket/file cannot be read after 5 tries"):
                Folder("s3://bucket").read("file")

    def test_a_server_that_is_gone_is_named(self, tmp_path):
        with serving(tmp_path) as server:
            gone = server.url
        with object_store.account(gone):
            told = r"s3://bucket/.* cannot be read after 5 tries: Could not connect to the endpoint"
            with pytest.raises(UserError, match=told):
                read_manifest("s3://bucket/never-read")
            with pytest.raises(UserError, match=told):
                urls.read_bytes("s3://bucket/1.tar", 10)
