from __future__ import annotations

import gzip
import os
import zipfile

import fsspec
import pytest
from http_server import serving

from ablations.errors import UserError
from mm1_jax.data.files import urls

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


ODD = (
    "[D]",
    "{v1}",
    "{a,b}",
    "a*b",
    "a?b",
    "100%",
    "%41",
    "a#b",
    "a b",
    "a::b",
    "zip::x",
    "~x",
    "file:",
)


@pytest.mark.parametrize("odd", ODD)
def test_a_path_that_exists_is_that_path_whatever_is_in_its_name(tmp_path, monkeypatch, odd):
    monkeypatch.chdir(tmp_path)
    for folder in (odd, "D", "v1", "a", "b", "aab", "A"):
        (tmp_path / folder).mkdir()
        for name in ("a.tar", "[b].tar", "b.tar"):
            (tmp_path / folder / name).write_text(f"{folder}/{name}", encoding="utf-8")

    def content(written: str) -> list[bytes]:
        return [read(name) for name in urls.expand(written, (".tar",), "tars")]

    (own, bracket, plain) = [f"{odd}/{n}".encode() for n in ("a.tar", "[b].tar", "b.tar")]
    for top in (odd, str(tmp_path / odd), f"file://{tmp_path}/{odd}"):
        assert (
            content(top) == content(f"{top}/") == content(f"{top}/*.tar") == [bracket, own, plain]
        )
        assert content(f"{top}/a.tar") == content(f"{top}/a.t[a]r") == [own]
        assert content(f"{top}/[b].tar") == content(f"{top}/{{[b],a}}.tar")[:1] == [bracket]


def test_a_chain_of_addresses_keeps_its_links(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for archive in ("[z].zip", "z.zip"):
        with zipfile.ZipFile(tmp_path / archive, "w") as file:
            for name in ("[y].tar", "x.tar", "deep/q.tar"):
                file.writestr(name, f"{archive}/{name}")

    def content(written: str) -> list[bytes]:
        return [read(name) for name in urls.expand(written, (".tar",), "tars")]

    whole = [f"[z].zip/{name}".encode() for name in ("[y].tar", "deep/q.tar", "x.tar")]
    assert content("zip://::[z].zip") == whole
    assert content("zip://*.tar::[z].zip") == [whole[0], whole[2]]
    assert content("zip://[y].tar::[z].zip") == whole[:1]
    assert content("zip://deep::[z].zip") == whole[1:2]
    assert content("zip://x.tar::{[z],z}.zip") == [whole[2], b"z.zip/x.tar"]
    (tmp_path / "[t].tar").write_bytes(b"t")
    assert content("simplecache::[t].tar") == [b"t"]
    for missing in ("zip://none.tar::z.zip", "zip://x.tar::none.zip"):
        with pytest.raises(UserError, match="there is no such file"):
            content(missing)
    assert urls.folder_of("zip://deep/q.tar::z.zip") == "zip://deep::z.zip"
    assert urls.below("zip://deep::z.zip", "q.tar") == "zip://deep/q.tar::z.zip"
    assert urls.below(urls.folder_of("zip://x.tar::z.zip"), "y") == "zip://y::z.zip"


def test_names_on_servers_are_taken_as_they_are(server):
    store = fsspec.filesystem("memory")
    for folder in ("[D]", "D", "{v}", "v"):
        store.pipe(f"/odd/{folder}/a.tar", folder.encode())
        (server.folder / folder).mkdir()
        (server.folder / folder / "a.tar").write_text(folder, encoding="utf-8")
    try:
        for top in ("memory://odd", server.url):
            for odd in ("[D]", "{v}"):
                (name,) = urls.expand(f"{top}/{odd}/a.tar", (".tar",), "tars")
                assert read(name) == odd.encode()
        assert urls.expand("memory://odd/[D]", (".tar",), "tars") == ["memory://odd/[D]/a.tar"]
        assert urls.expand("memory://odd/[D]/*", (".tar",), "t") == ["memory://odd/[D]/a.tar"]
        assert urls.expand("memory://odd/[Dx]/*", (".tar",), "t") == ["memory://odd/D/a.tar"]
        with pytest.raises(UserError, match=r"odd/\*: matches 4 folders \(D, \[D\], v, …\)"):
            urls.expand("memory://odd/*", (".tar",), "tars")
    finally:
        store.rm("/odd", recursive=True)
    (server.folder / "100%25 a?b#c.bin").write_bytes(b"odd")
    (server.folder / "100% a").write_bytes(b"another")
    assert urls.read_bytes(urls.below(server.url, "100%25 a?b#c.bin"), 10) == b"odd"


def test_a_glob_that_matches_folders_says_so(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tar").touch()
    (tmp_path / "b.tar").touch()
    with pytest.raises(UserError) as told:
        urls.expand(f"{tmp_path}/*", (".tar",), "tars")
    assert str(told.value) == (
        f"{tmp_path}/*: matches 2 folders (train, val), and a glob names files; nearest: "
        f"{tmp_path}/*/**/*.tar"
    )
    for written in (f"{tmp_path}/**", f"{tmp_path}/**/*.tar"):
        assert len(urls.expand(written, (".tar",), "tars")) == 3


def test_a_folder_is_its_files_in_any_case_and_behind_links_but_not_hidden_ones(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.tar").touch()
    top = tmp_path / "top"
    (top / ".checkpoints").mkdir(parents=True)
    (top / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(top)
    for name in ("A.TAR", "b.tar", "._b.tar", ".checkpoints/b.tar"):
        (top / name).touch()
    found = urls.expand([str(top), f"{top}/link/../top/b.tar"], (".tar",), "tars")
    assert [name.removeprefix(f"{top}/") for name in found] == ["A.TAR", "b.tar", "link/c.tar"]
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "._b.tar").touch()
    with pytest.raises(UserError, match="found nothing and 1 whose names begin with a dot"):
        urls.expand(str(tmp_path / "hidden"), (".tar",), "tars")


def test_braces_for_more_names_than_memory_holds_are_refused():
    with pytest.raises(UserError, match="stand for more than 1,000,000 names"):
        urls.expand("{0..9999999999}.tar", (".tar",), "tars")
    with pytest.raises(UserError, match="stand for more than 1,000,000 names"):
        urls.expand("{0..999}{0..999}{0..999}.tar", (".tar",), "tars")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    for name in ("pipe.tar", "x" * 300):
        with pytest.raises(UserError, match="cannot be read"):
            read(str(tmp_path / name))


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
