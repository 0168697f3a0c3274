from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from ablations.errors import UserError
from analysis.dashboard import make_app, serve
from sweeps import leases
from sweeps.store import Store

OUTPUTS = ("status", "verdicts", "effects", "curves", "arms")


@contextmanager
def served(store: Store) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, make_app(store).server, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def tick(address: str, study: str | None, seen: Any = None) -> dict[str, Any] | None:
    """What the browser asks for every two seconds; None where nothing has changed."""
    body = asked(address, study, seen)
    request = urllib.request.Request(
        f"{address}/_dash-update-component",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
        assert "NaN" not in text  # which browsers cannot read
        return json.loads(text)["response"] if answer.status == 200 else None


def asked(address: str, study: Any, seen: Any = None) -> dict[str, Any]:
    """The body of what the browser posts."""
    (callback,) = json.loads(get(f"{address}/_dash-dependencies"))
    names = re.findall(r"(\w+)\.(\w+)", callback["output"])
    return {
        "output": callback["output"],
        "outputs": [{"id": name, "property": prop} for name, prop in names],
        "inputs": [
            {"id": "study", "property": "value", "value": study},
            {"id": "tick", "property": "n_intervals", "value": 1},
        ],
        "state": [{"id": "seen", "property": "data", "value": seen}],
        "changedPropIds": ["tick.n_intervals"],
    }


def status_of(address: str, path: str, body: bytes | None = None, **headers: str) -> int:
    """The HTTP status of a request with these headers, `_` for `-` in their names."""
    place = address.removeprefix("http://")
    connection = http.client.HTTPConnection(place, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named.setdefault("Host", place)
    method = "GET" if body is None else "POST"
    connection.request(method, path, body, {"Content-Type": "application/json", **named})
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_page_loads_only_from_its_own_server(full_store: Store) -> None:
    with served(full_store) as address:
        page = get(address)
        loads = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
        assert loads
        assert all(load.startswith("/") and not load.startswith("//") for load in loads)
        assert not re.search(
            r"https?://", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
        )
        assert len(get(address + next(load for load in loads if "dash_renderer" in load))) > 10_000
        assert '"demo"' in get(f"{address}/_dash-layout")


def test_the_callback_returns_every_view(full_store: Store) -> None:
    with served(full_store) as address:
        answer = tick(address, "demo")
        assert answer is not None
        effects = answer["effects"]["figure"]["data"]
        assert sum(len(trace["y"]) for trace in effects) == 3
        assert len(answer["curves"]["figure"]["data"]) == 12
        told = json.dumps([answer[name] for name in ("status", "verdicts", "arms")])
        for word in ("12 done", "Supported", "Refuted", "Undecided", "C-Abstractor"):
            assert word in told
        assert tick(address, "demo", answer["seen"]["data"]) is None


def test_a_study_that_goes_on_is_followed(tmp_path: Path, make_plan, fill: Callable) -> None:
    store, plan = Store(tmp_path), make_plan()
    with served(store) as address:
        empty = tick(address, None)
        assert "No study has run" in json.dumps(empty)
        store.register(plan)
        fill(store, plan, skip={(trial.arm, trial.seed) for trial in plan.trials if trial.seed > 1})
        one_seed = tick(address, "demo")  # effects without intervals
        assert one_seed is not None
        assert "1 of 3 seeds" in json.dumps(one_seed)
        fill(store, plan, skip={("base", 3), ("connector.kind=c_abstractor", 3)})
        stage = next(t.stages["multimodal"] for t in plan.trials if (t.arm, t.seed) == ("base", 3))
        lease = leases.acquire(store.objects, store.lease_folder(stage))
        assert lease is not None
        try:
            store.scratch(stage).mkdir(parents=True)
            reports = store.scratch(stage) / "reports.jsonl"
            reports.write_text(
                json.dumps({"step": 25, "time": 0.0, "loss": 3.5}) + "\n", encoding="utf-8"
            )
            first = tick(address, "demo", one_seed["seen"]["data"])
            assert first is not None
            told = json.dumps(first["status"])
            assert "10 done, 1 running, 1 waiting, 0 failed" in told
            assert "interim: 2 of 3 seeds" in json.dumps(first, ensure_ascii=False)
            assert len(first["curves"]["figure"]["data"]) == 11
            with reports.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": 50, "time": 1.0, "loss": 3.0}) + "\n")
            second = tick(address, "demo", first["seen"]["data"])
            assert second is not None
        finally:
            lease.release()
        fill(store, plan)
        last = tick(address, "demo", second["seen"]["data"])
        assert last is not None
        assert "exactly once" in json.dumps(last["status"])


def test_other_registrations_and_their_results_are_followed_too(lab: Any) -> None:
    lab.finish(lab.register(), seeds=2)
    with served(lab.store) as address:
        first = tick(address, "sizes")
        assert first is not None
        assert tick(address, "sizes", first["seen"]["data"]) is None
        other = lab.register("again", seeds=[7, 8, 9])
        lab.finish(other, seeds=1)
        second = tick(address, "sizes", first["seen"]["data"])
        assert second is not None
        assert "one of 2 registrations" in json.dumps(second["verdicts"])
        lab.finish(other)
        third = tick(address, "sizes", second["seen"]["data"])
        assert third is not None
        assert "better: supported" in json.dumps(third["verdicts"])
        last = tick(address, "sizes", third["seen"]["data"])
        seen = third if last is None else last
        assert tick(address, "sizes", seen["seen"]["data"]) is None


def test_a_damaged_store_is_told_on_the_page(tmp_path: Path, make_plan, fill: Callable) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=1)
    store.register(plan)
    fill(store, plan)
    for table in tmp_path.glob("stages/*/*/*/results.parquet"):
        table.write_bytes(b"nonsense")
    with served(Store(tmp_path)) as address:
        assert "damaged" in json.dumps(tick(address, "demo"))


def test_a_taken_port_is_a_users_mistake(full_store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot serve on 127.0.0.1:{port}.*--port"):
            serve(full_store, "127.0.0.1", port)


POST = "/_dash-update-component"


def test_only_names_of_this_dashboard_are_answered(full_store: Store) -> None:
    with served(full_store) as address:
        port = address.rpartition(":")[2]
        for host in (
            f"127.0.0.1:{port}",
            f"localhost:{port}",
            f"[::1]:{port}",
            socket.gethostname(),
        ):
            assert status_of(address, "/", Host=host) == 200, host
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
            for path in ("/", "/_dash-layout", "/_dash-dependencies"):
                assert status_of(address, path, Host=host) == 403, (host, path)


def test_a_name_that_was_allowed_is_answered(full_store: Store) -> None:
    client = make_app(full_store, ["gpu7.lab"]).server.test_client()
    assert client.get("/", headers={"Host": "GPU7.lab:80"}).status_code == 200
    assert client.get("/", headers={"Host": "gpu8.lab"}).status_code == 403


def test_posts_of_other_pages_are_refused(full_store: Store) -> None:
    with served(full_store) as address:
        body = json.dumps(asked(address, "demo")).encode()
        assert status_of(address, POST, body) == 200
        assert status_of(address, POST, body, Origin=address) == 200
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            assert status_of(address, POST, body, Origin=origin) == 403
        assert status_of(address, POST, body, Sec_Fetch_Site="cross-site") == 403


def test_a_large_post_is_refused_before_it_is_read(full_store: Store) -> None:
    with served(full_store) as address:
        place = address.removeprefix("http://")
        told = {"Content-Length: 300000000": b" 413 ", "Transfer-Encoding: chunked": b" 411 "}
        for length, status in told.items():
            with socket.create_connection(tuple(place.split(":")), timeout=30) as connection:
                head = f"POST {POST} HTTP/1.1\r\nHost: {place}\r\n{length}\r\n"
                connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
                if "chunked" in length:
                    connection.sendall(b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
                assert status in connection.recv(4096).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "study",
    ["", "..", "../..", "demo/..", "de\x00mo", "x" * 5000, "größer 🐶", "%2e%2e", "\ud800", "dem"],
)
def test_a_study_that_is_not_there_is_told_on_the_page(full_store: Store, study: str) -> None:
    with served(full_store) as address:
        assert "no study" in json.dumps(tick(address, study))


def test_nothing_odd_is_a_failure_of_the_server(full_store: Store) -> None:
    with served(full_store) as address:
        body = asked(address, "demo")
        odd = [b"", b"{", b"[" * 50_000, b"[]", b"null", b'"x"', b"\xff", b"{}"]
        odd += [json.dumps({**body, key: None}).encode() for key in body if key != "changedPropIds"]
        odd += [json.dumps(asked(address, study)).encode() for study in (1, ["demo"], {"a": 1})]
        odd.append(json.dumps({**body, "output": "..nosuch.children.."}).encode())
        for text in odd:
            assert status_of(address, POST, text) == 400, text[:80]
        for path in ("/..", "/%00", "/_dash-component-suites/no/such.js", "/nosuch", "/?study=%ff"):
            assert status_of(address, path) in (200, 404), path
        assert status_of(address, "/", b"{}") in (400, 405)


def test_a_study_that_cannot_be_read_leaves_the_others(full_store: Store, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(full_store.root, tmp_path / "store")
    for name in ("odd", "%FF"):
        folder = tmp_path / "store" / "studies" / name
        folder.mkdir()
        (folder / "latest.json").write_text("[1", encoding="utf-8")
    with served(Store(tmp_path / "store")) as address:
        assert "odd" in get(f"{address}/_dash-layout")
        assert "banner" in json.dumps(tick(address, "odd"))
        assert "12 done" in json.dumps(tick(address, "demo"))


def test_many_viewers_share_one_look(full_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import analysis.dashboard as dashboard

    looks, came = [], []
    gate, studies, read = threading.Event(), full_store.studies, dashboard.read_results

    def slow(*arguments: Any, **named: Any) -> Any:
        looks.append(1)
        gate.wait(60)
        return read(*arguments, **named)

    def counted() -> list[str]:
        came.append(1)
        return studies()

    monkeypatch.setattr(dashboard, "read_results", slow)
    monkeypatch.setattr(full_store, "studies", counted)
    views = dashboard.Views(full_store)
    with ThreadPoolExecutor(50) as pool:
        found = [pool.submit(views.of, "demo") for _ in range(50)]
        while len(came) < 50:
            threading.Event().wait(0.01)
        gate.set()
        seen = [one.result() for one in found]
    assert len({view.version for view in seen if isinstance(view, dashboard.View)}) == 1
    assert len(looks) <= 2  # the first one's, and one for all who came during it


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_without_a_word(full_store: Store, number: int, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mm1", "dashboard", "--store", full_store.root]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        # As a shell starts a process in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stdout is not None
    assert "dashboard of" in process.stdout.readline()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_dash-layout", timeout=60) as answer:
        assert answer.status == 200
        os.kill(process.pid, number)
    assert process.wait(60) == code
    assert process.stdout.read() == ""
