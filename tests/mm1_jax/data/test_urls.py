from __future__ import annotations

import gzip
import zipfile

import fsspec
import pytest
from http_server import serving

from mm1_jax.data import urls
from mm1_jax.errors import UserError

CONTENT = bytes(range(256)) * 40_000  # 10 MB: two blocks of fsspec's HTTP files


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(urls, "FIRST_WAIT_SECONDS", 0.001)
    with serving(tmp_path) as running:
        yield running


def read(url: str) -> bytes:
    with urls.opened(url) as stream:
        return stream.read()


def test_ranges_lists_and_globs_name_files_in_order_and_once(tmp_path):
    for number in (0, 1, 2, 10):
        (tmp_path / f"shard-{number:03d}.tar").touch()
    (tmp_path / "other.tar").touch()
    (tmp_path / "notes.txt").touch()

    def names(*written: str) -> list[str]:
        found = urls.expand([str(tmp_path / name) for name in written], (".tar",), "tars")
        return [name.removeprefix(f"{tmp_path}/") for name in found]

    assert names("shard-{002..000}.tar") == [f"shard-00{n}.tar" for n in range(3)]
    assert names("shard-{008..010}.tar") == ["shard-008.tar", "shard-009.tar", "shard-010.tar"]
    assert names("shard-00{0..1}.tar") == ["shard-000.tar", "shard-001.tar"]
    assert names("{other,shard-{000..001}}.tar") == ["other.tar", "shard-000.tar", "shard-001.tar"]
    assert names("shard-00*.tar", "shard-001.tar") == [f"shard-00{n}.tar" for n in range(3)]
    local = [f"file://{tmp_path}/shard-00{n}.tar" for n in range(3)]
    assert urls.expand(f"file://{tmp_path}/shard-00?.tar", (".tar",), "tars") == local
    assert names("") == ["other.tar", *(f"shard-{n:03d}.tar" for n in (0, 1, 2, 10))]


def test_a_folder_without_such_files_says_what_was_expected_and_found(tmp_path):
    for name in ("a.parquet", "b.parquet", "c.jsonl.gz", "readme"):
        (tmp_path / name).touch()
    with pytest.raises(UserError) as told:
        urls.expand(str(tmp_path), (".tar",), "webdataset files")
    assert str(told.value) == (
        f"{tmp_path}: expected webdataset files (*.tar), found 2 .parquet, 1 .jsonl.gz, 1 no suffix"
    )
    with pytest.raises(UserError, match=r"\*\.tar: no file matches; expected tars"):
        urls.expand(str(tmp_path / "*.tar"), (".tar",), "tars")


def test_a_query_of_a_web_address_is_no_glob():
    address = "https://example.org/data.tar?part=1"
    assert urls.expand(address, (".tar",), "tars") == [address]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_taken_up_at_the_byte_that_was_reached(server, ranges):
    (server.folder / "data.bin").write_bytes(CONTENT)
    server.ranges = ranges
    server.failures["data.bin"] = 2
    server.cut_after["data.bin"] = 3_000_000
    assert read(f"{server.url}/data.bin") == CONTENT
    assert server.requests["data.bin"] == 4
    first, again = server.first_bytes
    assert first == 0
    assert (again > 1_000_000) == ranges


def test_a_server_that_stays_down_is_told_by_its_url_after_all_tries(server):
    (server.folder / "data.bin").write_bytes(b"content")
    server.failures["data.bin"] = 1000
    url = f"{server.url}/data.bin"
    with pytest.raises(UserError, match=r"cannot be read after 5 tries: .*503") as told:
        read(url)
    assert str(told.value).startswith(url)
    assert server.requests["data.bin"] == 5
    server.status = 403
    with pytest.raises(UserError, match=f"{url} cannot be read: .*403"):
        read(url)
    assert server.requests["data.bin"] == 6


def test_a_missing_file_is_told_at_once(server, tmp_path):
    for url in (f"{server.url}/none.tar", str(tmp_path / "none.tar")):
        for reading in (read, lambda url: urls.local_copy(url).__enter__()):
            with pytest.raises(UserError, match=f"{url}: there is no such file"):
                reading(url)
    assert server.requests["none.tar"] == 2


def test_an_unknown_protocol_is_told():
    with pytest.raises(UserError, match=r"nowhere://x/y.tar: .*nowhere"):
        read("nowhere://x/y.tar")


def test_compressed_files_are_read_as_what_they_hold(tmp_path):
    text = b"one\ntwo\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w") as archive:
        archive.writestr("a.jsonl", text)
    for name in ("a.jsonl.gz", "a.jsonl.zip"):
        with urls.opened(str(tmp_path / name)) as stream:
            assert [*stream] == [b"one\n", b"two\n"]


def test_a_local_copy_of_a_url_is_whole_and_gone_afterwards(server, tmp_path):
    (server.folder / "data.bin").write_bytes(CONTENT)
    with urls.local_copy(f"{server.url}/data.bin") as path:
        assert path.read_bytes() == CONTENT
    assert not path.exists()
    with urls.local_copy(str(tmp_path / "data.bin")) as path:
        assert path == tmp_path / "data.bin"


def test_of_a_file_without_end_no_more_than_the_limit_is_read(server):
    (server.folder / "data.bin").write_bytes(CONTENT)
    assert len(urls.read_bytes(f"{server.url}/data.bin", limit_bytes=1000)) == 1001


def test_folders_and_globs_of_a_store_are_named_by_their_urls():
    store = fsspec.filesystem("memory")
    for name in ("b.tar", "a.tar", "deep/c.tar", "notes.txt"):
        store.pipe(f"/shards/{name}", name.encode())
    try:
        found = urls.expand("memory://shards/", (".tar",), "tars")
        assert found == [f"memory://shards/{name}" for name in ("a.tar", "b.tar", "deep/c.tar")]
        assert urls.expand("memory://shards/?.tar", (".tar",), "tars") == found[:2]
        assert [read(url) for url in found] == [b"a.tar", b"b.tar", b"deep/c.tar"]
        with urls.local_copy(found[2]) as path:
            assert path.read_bytes() == b"deep/c.tar"
        with pytest.raises(
            UserError, match=r"expected parquet \(\*\.parquet\), found 3 \.tar, 1 \.t"
        ):
            urls.expand("memory://shards/", (".parquet",), "parquet")
    finally:
        store.rm("/shards", recursive=True)
