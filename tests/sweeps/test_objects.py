"""Bytes of a store: of two writers one wins, whatever is lost on the way; no key leads outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import threading
import uuid
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import object_store
import pytest

from ablations.errors import UserError
from ablations.stage import ResultRow
from ablations.stages import Stage
from ablations.workload import Work
from sweeps import leases, objects
from sweeps.objects import StorageError, is_inside, open_objects
from sweeps.records import Done, sealed
from sweeps.store import Store

ROWS = [ResultRow(task="noop", metric="accuracy", value=50.0)]


def a_stage(number: int = 1) -> Stage:
    work = Work(kind="noop", run="noop_stage:run", config={}, decides="", compile_class="noop")
    return Stage(f"{number:064x}", work, 1, {}, "one")


class Proxy:
    """Stands before a server, and forgets to pass on `lost` answers to puts."""

    def __init__(self, server: str):
        self.server, self.lost, self.puts = urlsplit(server), 0, 0


@contextlib.contextmanager
def a_proxy(server: str) -> Generator[tuple[str, Proxy]]:
    state = Proxy(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection(state.server.netloc, timeout=10)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
            if self.command == "PUT":
                state.puts += 1
                if state.lost:
                    state.lost -= 1
                    self.close_connection = True
                    return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") or "0"
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", state
    finally:
        listening.shutdown()
        listening.server_close()


@pytest.fixture(scope="module")
def bucket():
    """A bucket behind a proxy that loses answers."""
    with object_store.bucket_server() as url:
        server = os.environ["AWS_ENDPOINT_URL"]
        with a_proxy(server) as (address, proxy), object_store.account(address):
            yield url, proxy


@pytest.fixture
def remote(bucket, tmp_path, monkeypatch):
    """A store of its own in the bucket, and the proxy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url, proxy = bucket
    proxy.lost = 0
    return Store(f"{url}/{uuid.uuid4().hex}"), proxy


def finish(store: Store, stage: Stage, lose=lambda: None) -> bool:
    attempt = store.begin(stage)
    (attempt.output / "config.json").write_text("{}", encoding="utf-8")
    upload = store.objects.upload

    def then_lose(key):
        upload(key)
        lose()

    store.objects.upload = then_lose
    try:
        return store.finish(attempt, ROWS, {"seconds": 1.5})
    finally:
        store.objects.upload = upload


@pytest.mark.parametrize("lost", [1, 2])
def test_a_put_whose_answer_was_lost_has_won(remote, lost):
    store, proxy = remote
    puts = proxy.puts

    def lose():
        proxy.lost = lost

    assert finish(store, a_stage(), lose)
    assert proxy.lost == 0
    assert proxy.puts > puts + lost
    again = Store(store.root)
    assert again.rows([a_stage().id])["value"].tolist() == [50.0]
    assert (again.stage_folder(a_stage().id) / "config.json").read_text(encoding="utf-8") == "{}"


def test_a_put_whose_answers_are_all_lost_has_won_too(remote, monkeypatch):
    store, proxy = remote
    monkeypatch.setattr(store.objects._files, "retries", 1)  # ty: ignore[unresolved-attribute]

    def lose():
        proxy.lost = 1

    assert finish(store, a_stage(), lose)
    assert store.is_done(a_stage().id)


def test_after_a_lost_answer_the_other_writer_still_loses(remote):
    store, proxy = remote
    proxy.lost = 1
    assert store.objects.create("a/b", b"first")
    proxy.lost = 1
    assert not store.objects.create("a/b", b"second")
    assert store.objects.read("a/b") == b"first"


def test_leases_and_registrations_survive_lost_answers(remote):
    store, proxy = remote
    proxy.lost = 1
    lease = leases.acquire(store.objects, "one")
    assert lease is not None
    assert leases.acquire(store.objects, "one") is None
    lease.remove()


def test_an_attempt_that_may_have_won_is_not_removed(remote, monkeypatch):
    store, _ = remote
    attempt = store.begin(a_stage())
    create = store.objects.create

    def create_and_break(key, data, **_):
        create(key, data)
        raise StorageError(key, OSError("gone"))

    monkeypatch.setattr(store.objects, "create", create_and_break)
    with pytest.raises(StorageError):
        store.finish(attempt, ROWS, {"seconds": 1.0})
    monkeypatch.undo()
    store.fail(attempt, {"error": "StorageError: gone"})
    assert store.rows([a_stage().id])["value"].tolist() == [50.0]


def test_a_link_that_is_there_although_it_was_ours_has_won(tmp_path, monkeypatch):
    store = Store(tmp_path)
    link = os.link

    def answer_lost(source, target):
        link(source, target)
        raise FileExistsError(17, "File exists", str(target))

    monkeypatch.setattr(os, "link", answer_lost)
    assert finish(store, a_stage())
    assert store.rows([a_stage().id])["value"].tolist() == [50.0]
    assert not finish(store, a_stage())
    assert store.rows([a_stage().id])["value"].tolist() == [50.0]
    assert not list(tmp_path.rglob(".*"))


def test_a_file_system_without_links_is_told(tmp_path, monkeypatch):
    def none(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    with pytest.raises(UserError, match="no hard links"):
        Store(tmp_path / "store").begin(a_stage())


def test_putting_into_a_folder_that_others_remove_goes_on(tmp_path):
    disk = open_objects(tmp_path)
    ended = threading.Event()

    def remove():
        while not ended.is_set():
            disk.remove("a")

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for number in range(300):
            disk.create(f"a/b/{number}", b"1")
            disk.write(f"a/b/{number}", b"2")
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..", "", "a\\..\\x", "a/", "a\0b"])
def test_names_that_lead_outside(name):
    assert not is_inside(name)


@pytest.mark.parametrize("name", ["x", "a/b.c", ".hidden", "a..b/c", "a b/ü"])
def test_names_that_stay_inside(name):
    assert is_inside(name)


def test_a_key_with_dots_is_never_written_on_a_readers_disk(remote, tmp_path):
    """Whoever can write to the bucket cannot write to the disks of those who read it."""
    store, _ = remote
    stage = a_stage()
    assert finish(store, stage)
    files = store.objects._files  # ty: ignore[unresolved-attribute]
    bad = f"{store.root.removeprefix('s3://')}/stages/{stage.id[:2]}/{stage.id}"
    attempt = next(n for n in store.objects.children(f"stages/00/{stage.id}") if n != "done.json")
    escape = "/".join([".."] * 12) + str(tmp_path / "escaped")
    files.pipe_file(f"{bad}/{attempt}/{escape}", b"evil")
    files.pipe_file(f"{bad}/{attempt}/output/extra", b"not in done.json")

    os.environ["XDG_CACHE_HOME"] = str(tmp_path / "other")
    folder = Store(store.root).stage_folder(stage.id)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json"]
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("name", ["../../../../../escaped", "/tmp/escaped-absolute"])
@pytest.mark.parametrize("where", ["file", "attempt"])
def test_a_done_record_that_leads_outside_is_damage(remote, name, where, tmp_path):
    store, _ = remote
    stage = a_stage()
    assert finish(store, stage)
    key = f"stages/00/{stage.id}/done.json"
    fields = json.loads(store.objects.read(key))
    del fields["checksum"]
    if where == "file":
        fields["files"] = {**fields["files"], name: "0" * 64}
    else:
        fields["attempt"] = name
    store.objects.write(key, sealed(Done.model_construct(**fields)))
    with pytest.raises(UserError, match="damaged"):
        Store(store.root).stage_folder(stage.id)
    assert not store.is_done(stage.id)


def test_a_stage_that_is_no_identity_is_refused(tmp_path):
    store = Store(tmp_path)
    for stage_id in ("../../x", "/etc", "ab", "A" * 64, "0" * 64 + "/.."):
        with pytest.raises(UserError, match="identity"):
            store.is_done(stage_id)
        with pytest.raises(UserError, match="identity"):
            store.scratch(stage_id)


def test_a_link_in_an_attempt_of_a_local_store_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}", encoding="utf-8")
    store = Store(tmp_path / "store")
    assert finish(store, a_stage())
    (path,) = tmp_path.glob("store/stages/*/*/*/output/config.json")
    path.unlink()
    path.symlink_to(secret)  # its checksum is right
    with pytest.raises(UserError, match="leads out"):
        Store(tmp_path / "store").stage_folder(a_stage().id)


def test_a_runner_that_leaves_a_link_is_told(tmp_path):
    store = Store(tmp_path / "store")
    attempt = store.begin(a_stage())
    (attempt.output / "model").symlink_to(tmp_path)
    with pytest.raises(UserError, match="link in its output"):
        store.finish(attempt, ROWS, {"seconds": 1.0})


def test_a_damaged_cache_of_a_remote_store_is_read_anew(remote, tmp_path):
    store, _ = remote
    assert finish(store, a_stage())
    folder = Store(store.root).stage_folder(a_stage().id)
    (folder / "config.json").write_text("damaged", encoding="utf-8")
    assert (Store(store.root).stage_folder(a_stage().id) / "config.json").read_text(
        encoding="utf-8"
    ) == "{}"


def test_a_server_that_is_gone_is_one_kind_of_error(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with object_store.account("http://127.0.0.1:9"):
        gone = open_objects("s3://bucket/x")
        monkeypatch.setattr(gone._files, "retries", 1)  # ty: ignore[unresolved-attribute]
        with pytest.raises(StorageError) as told:
            gone.read("format.json")
    assert told.value.filename == "s3://bucket/x/format.json"
    assert "\n" not in str(told.value)


def test_what_is_finished_is_flushed_before_it_is_named_and_its_name_after(tmp_path, monkeypatch):
    happened = []
    link = os.link

    def named(source, target):
        happened.append(target)
        link(source, target)

    monkeypatch.setattr(objects, "flush", happened.append)
    store = Store(tmp_path / "store")
    attempt = store.begin(a_stage())
    (attempt.output / "weights").write_bytes(b"1")
    monkeypatch.setattr(os, "link", named)
    assert store.finish(attempt, ROWS, {"seconds": 1.0})
    stage = tmp_path / "store" / "stages" / "00" / a_stage().id
    place = happened.index(stage / "done.json")
    before, after = happened[:place], happened[place:]
    assert {attempt.folder, *attempt.folder.rglob("*")} <= set(before)
    assert any(path.name.startswith(".done.json") for path in before)
    assert {stage.parent, stage.parents[1], tmp_path / "store"} <= set(before)  # its folders' names
    assert stage in after


def test_a_new_store_is_its_owners_alone(tmp_path):
    old = os.umask(0o022)
    try:
        finish(Store(tmp_path / "new" / "store"), a_stage())
        (tmp_path / "shared").mkdir(mode=0o755)
        finish(Store(tmp_path / "shared"), a_stage())
    finally:
        os.umask(old)
    assert (tmp_path / "new" / "store").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755  # somebody's choice


def test_a_store_whose_client_is_not_installed_names_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    told = r'cannot open the store gs://b/x: gs:// needs `pip install "mm1\[gcs\]"`'
    with pytest.raises(UserError, match=told):
        open_objects("gs://b/x")
    with pytest.raises(UserError, match=r"cannot open the store nowhere://b: .*nowhere"):
        open_objects("nowhere://b")


def test_a_store_at_a_local_address_is_at_its_path(tmp_path):
    for protocol in ("file://", "local://"):
        assert open_objects(f"{protocol}{tmp_path}").root == str(tmp_path)
