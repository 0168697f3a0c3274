from __future__ import annotations

import json
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from analysis.dashboard import make_app, serve
from mm1_jax.errors import UserError
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
    (callback,) = json.loads(get(f"{address}/_dash-dependencies"))
    names = re.findall(r"(\w+)\.(\w+)", callback["output"])
    body = {
        "output": callback["output"],
        "outputs": [{"id": name, "property": prop} for name, prop in names],
        "inputs": [
            {"id": "study", "property": "value", "value": study},
            {"id": "tick", "property": "n_intervals", "value": 1},
        ],
        "state": [{"id": "seen", "property": "data", "value": seen}],
        "changedPropIds": ["tick.n_intervals"],
    }
    request = urllib.request.Request(
        f"{address}/_dash-update-component",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
        assert "NaN" not in text  # which browsers cannot read
        return json.loads(text)["response"] if answer.status == 200 else None


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
        stage = next(t.train for t in plan.trials if (t.arm, t.seed) == ("base", 3))
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
