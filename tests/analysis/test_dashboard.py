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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dashboard_client import (
    POST,
    TOKEN,
    client_page,
    figures_of,
    get,
    page_body,
    page_of,
    served,
    tick,
    tick_until,
    told,
    values,
)

from ablations.errors import UserError
from analysis.dashboard import make_app, serve
from analysis.dashboard.view import Reading, View, Views
from sweeps import leases
from sweeps.store import Store

OVERVIEW, CURVES = "/study/demo/overview", "/study/demo/curves"


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


def body_of(address: str, path: Any, search: Any = "", seen: Any = None) -> dict[str, Any]:
    return page_body(json.loads(get(f"{address}/_dash-dependencies")), path, search, seen)


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
        for asset in ("/assets/dashboard.js", "/assets/style.css"):
            text = get(address + asset)
            assert not re.search(r"https?://|@import", text)


def test_a_study_is_shown_on_every_page(full_store: Store) -> None:
    with served(full_store) as address:
        answer = tick(address, OVERVIEW)
        assert answer is not None
        effects = dict(figures_of(answer["page"]))["effects"]["data"]
        assert sum(len(trace.get("y", [])) for trace in effects) == 3
        page = told(answer["page"])
        for word in ("12 done", "Supported", "Refuted", "Undecided", "C-Abstractor"):
            assert word in page
        assert tick(address, OVERVIEW, answer["seen"]) is None
        curves = tick(address, CURVES, answer["seen"], "?runs=single")
        assert curves is not None
        assert len(dict(figures_of(curves["page"]))["curves"]["data"]) == 12
        means = tick(address, CURVES)
        assert means is not None
        assert len(dict(figures_of(means["page"]))["curves"]["data"]) == 8  # a mean and a band each


def test_curves_are_drawn_by_what_was_read(full_store: Store) -> None:
    with served(full_store) as address:
        by_step, by_tokens = (
            [values(line["x"]) for line in dict(figures_of(answer["page"]))["curves"]["data"]]
            for query in ("?runs=single", "?runs=single&x=tokens")
            if (answer := tick(address, CURVES, None, query)) is not None
        )
        assert by_tokens == [[512 * step for step in steps] for steps in by_step]


def test_all_studies_are_listed_and_searched(full_store: Store) -> None:
    with served(full_store) as address:
        shown = tick_until(address, "/", lambda page: "✓" in page)
        assert "12 done" in told(shown["page"])
        none = tick(address, "/", None, "?q=nosuchword")
        assert none is not None
        assert "No study matches" in told(none["page"])


def test_a_study_that_goes_on_is_followed(tmp_path: Path, make_plan, fill: Callable) -> None:
    store, plan = Store(tmp_path), make_plan()
    with served(store) as address:
        empty = tick(address, "/")
        assert "No study has run" in json.dumps(empty)
        store.register(plan)
        fill(store, plan, skip={(trial.arm, trial.seed) for trial in plan.trials if trial.seed > 1})
        # Effects without intervals.
        one_seed = tick_until(address, OVERVIEW, lambda page: "1 of 3 seeds" in page)
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
            now = "10 done, 1 running, 1 waiting, 0 failed"
            first = tick_until(
                address,
                OVERVIEW,
                lambda page: now in page and "interim: 2 of 3 seeds" in page,
                one_seed["seen"],
            )
            curves = tick(address, CURVES, None, "?runs=single")
            assert curves is not None
            assert len(dict(figures_of(curves["page"]))["curves"]["data"]) == 11
            with reports.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": 50, "time": 1.0, "loss": 3.0}) + "\n")
            for _ in range(100):
                curves = tick(address, CURVES, None, "?runs=single")
                assert curves is not None
                lines = dict(figures_of(curves["page"]))["curves"]["data"]
                found = [values(line["y"]) for line in lines]
                if [3.5, 3.0] in found:
                    break
            assert [3.5, 3.0] in found
        finally:
            lease.release()
        fill(store, plan)
        tick_until(address, OVERVIEW, lambda page: "exactly once" in page, first["seen"])


def test_other_registrations_and_their_results_are_followed_too(lab: Any) -> None:
    lab.finish(lab.register(), seeds=2)
    place = "/study/sizes/overview"
    with served(lab.store) as address:
        first = tick_until(address, place, lambda page: "2 of 3 seeds" in page)
        assert tick(address, place, first["seen"]) is None
        other = lab.register("again", seeds=[7, 8, 9])
        lab.finish(other, seeds=1)
        second = tick_until(
            address, place, lambda page: "one of 2 registrations" in page, first["seen"]
        )
        lab.finish(other)
        third = tick_until(address, place, lambda page: "better: supported" in page, second["seen"])
        seen = third["seen"]
        for _ in range(3):  # what was told of is counted at the next look
            last = tick(address, place, seen)
            if last is None:
                break
            seen = last["seen"]
        assert last is None


def test_a_damaged_store_is_told_on_the_page(tmp_path: Path, make_plan, fill: Callable) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=1)
    store.register(plan)
    fill(store, plan)
    for table in tmp_path.glob("stages/*/*/*/results.parquet"):
        table.write_bytes(b"nonsense")
    assert "damaged" in told(page_of(Store(tmp_path), OVERVIEW)["page"])


def test_a_taken_port_is_a_users_mistake(full_store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot serve on 127.0.0.1:{port}.*--port"):
            serve(full_store, "127.0.0.1", port)


# -- the address is the state --------------------------------------------------------------------


def test_what_an_address_names_that_is_not_there_is_told(full_store: Store) -> None:
    page = told(page_of(full_store, CURVES, "?metric=los&arm=base&x=hour&smooth=0.9")["page"])
    assert "metric=los is not there; did you mean 'loss'?" in page
    assert "x=hour is not there" in page
    assert "factor 0.9" in page


def test_a_page_that_is_not_there_is_told(full_store: Store) -> None:
    for path in ("/nosuch", "/study/demo/nosuch", "/study", "/study/"):
        assert "no such page" in told(page_of(full_store, path)["page"]), path


def test_numbers_of_a_figure_are_the_same_as_csv(full_store: Store) -> None:
    client = make_app(full_store).server.test_client()
    answer = client.get(f"/csv/curves{CURVES}?metric=loss&arm=base")
    lines = answer.get_data(as_text=True).splitlines()
    assert answer.mimetype == "text/csv"
    assert lines[0] == "arm,seed,step,value,is_live,metric"
    assert len(lines) == 1 + 3 * 20
    assert all(line.startswith("base,") for line in lines[1:])
    assert client.get(f"/csv/nosuch{CURVES}").status_code == 404
    assert client.get("/csv/curves/study/nosuch/curves").status_code == 404


# -- who may ask what ----------------------------------------------------------------------------


def test_only_names_of_this_dashboard_are_answered(full_store: Store) -> None:
    with served(full_store) as address:
        port = address.rpartition(":")[2]
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
            assert status_of(address, "/", Host=host) == 200, host
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
            for path in ("/", "/_dash-layout", "/_dash-dependencies", f"/csv/arms{OVERVIEW}"):
                assert status_of(address, path, Host=host) == 403, (host, path)


def test_other_names_than_localhost_need_the_token(full_store: Store) -> None:
    app = make_app(full_store, ["gpu7.lab"], token=TOKEN)
    for host in ("GPU7.lab:80", "192.0.2.7", socket.gethostname()):
        client = app.server.test_client()
        headers = {"Host": host}
        assert client.get("/", headers=headers).status_code == 403
        assert client.get("/?token=wrong", headers=headers).status_code == 403
        answer = client.get(f"{CURVES}?token={TOKEN}&metric=loss", headers=headers)
        assert answer.status_code == 302
        assert answer.headers["Location"] == f"{CURVES}?metric=loss"
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        headers["Cookie"] = cookie.partition(";")[0]
        assert client.get("/", headers=headers).status_code == 200
    assert app.server.test_client().get("/", headers={"Host": "gpu8.lab"}).status_code == 403
    # A proxy that calls us localhost passes on what others ask.
    forwarded = {"Host": "localhost", "X-Forwarded-For": "192.0.2.7"}
    assert app.server.test_client().get("/", headers=forwarded).status_code == 403
    away = app.server.test_client().get(f"/%2F%2Fevil.example/?token={TOKEN}")
    assert away.headers["Location"] == "/evil.example/"
    assert (
        make_app(full_store, ["gpu7.lab"])
        .server.test_client()
        .get("/", headers={"Host": "gpu7.lab"})
        .status_code
        == 403
    )


def test_a_page_may_run_no_script_but_ours(full_store: Store) -> None:
    policy = make_app(full_store).server.test_client().get("/").headers["Content-Security-Policy"]
    scripts = policy.partition("script-src ")[2].partition(";")[0]
    assert "unsafe" not in scripts
    assert "default-src 'self'" in policy


def test_posts_of_other_pages_are_refused(full_store: Store) -> None:
    with served(full_store) as address:
        body = json.dumps(body_of(address, OVERVIEW)).encode()
        assert status_of(address, POST, body) == 200
        assert status_of(address, POST, body, Origin=address) == 200
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            assert status_of(address, POST, body, Origin=origin) == 403
        assert status_of(address, POST, body, Sec_Fetch_Site="cross-site") == 403


def test_a_large_post_is_refused_before_it_is_read(full_store: Store) -> None:
    with served(full_store) as address:
        place = address.removeprefix("http://")
        answers = {"Content-Length: 300000001": b" 413 ", "Transfer-Encoding: chunked": b" 411 "}
        for length, status in answers.items():
            with socket.create_connection(tuple(place.split(":")), timeout=30) as connection:
                head = f"POST {POST} HTTP/1.1\r\nHost: {place}\r\n{length}\r\n"
                connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
                if "chunked" in length:
                    connection.sendall(b"20000\r\n" + b"x" * 0x20000 + b"\r\n")
                assert status in connection.recv(4096).partition(b"\r\n")[0]


def test_a_study_that_is_not_there_is_told_on_the_page(full_store: Store) -> None:
    client = make_app(full_store).server.test_client()
    odd = ["..", "../..", "demo/..", "de\x00mo", "x" * 5000, "größer 🐶", "%2e%2e", "dem"]
    for study in odd:
        page = client_page(client, f"/study/{quote(study, safe='')}/overview")["page"]
        assert "no study" in told(page), study


def test_nothing_odd_is_a_failure_of_the_server(full_store: Store) -> None:
    with served(full_store) as address:
        body = body_of(address, OVERVIEW)
        odd = [b"", b"{", b"[" * 50_000, b"[]", b"null", b'"x"', b"\xff", b"{}"]
        odd += [json.dumps({**body, key: None}).encode() for key in body if key != "changedPropIds"]
        odd.append(json.dumps({**body, "output": "..nosuch.children.."}).encode())
        odd.append(json.dumps({**body, "changedPropIds": [1]}).encode())
        odd.append(json.dumps({**body, "inputs": body["inputs"][1:]}).encode())
        for text in odd:
            assert status_of(address, POST, text) == 400, text[:80]
        for path, search in ((1, {}), (["demo"], None), ("\ud800", "?\ud800=%ff"), ("", "?" * 99)):
            for seen in (None, 1, [], {"version": []}):
                text = json.dumps(body_of(address, path, search, seen)).encode()
                assert status_of(address, POST, text) == 200, (path, search)
        for path in ("/..", "/%00", "/_dash-component-suites/no/such.js", "/nosuch", "/?study=%ff"):
            assert status_of(address, path) in (200, 404), path
        for path in ("/csv/%00/x", "/csv/effects/study", "/csv/curves/study/demo/curves?x=%ff"):
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
        listed = tick_until(address, "/", lambda page: "12 done" in page)
        assert "odd" in told(listed["page"])
        assert "banner bad" in json.dumps(tick(address, "/study/odd/overview"))
        assert "12 done" in json.dumps(tick(address, OVERVIEW))


def test_many_viewers_share_one_look(full_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import analysis.dashboard.view as views_module

    looks, came = [], []
    gate, studies, read = threading.Event(), full_store.studies, views_module.read_results

    def slow(*arguments: Any, **named: Any) -> Any:
        looks.append(1)
        gate.wait(60)
        return read(*arguments, **named)

    def counted() -> list[str]:
        came.append(1)
        return studies()

    monkeypatch.setattr(views_module, "read_results", slow)
    monkeypatch.setattr(full_store, "studies", counted)
    views = Views(full_store)
    with ThreadPoolExecutor(50) as pool:
        found = [pool.submit(views.of, "demo", wait=60) for _ in range(50)]
        while len(came) < 50:
            threading.Event().wait(0.01)
        gate.set()
        seen = [one.result() for one in found]
    assert len({view.version for view in seen if isinstance(view, View)}) == 1
    assert len(looks) <= 2  # the first one's, and one for all who came during it


def test_nobody_waits_for_a_slow_look(full_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import analysis.dashboard.view as views_module

    views = Views(full_store)
    first = views.of("demo", wait=60)
    gate, begun, look = threading.Event(), threading.Event(), views.look

    def slow(*arguments: Any) -> Any:
        begun.set()
        gate.wait(60)
        return look(*arguments)

    monkeypatch.setattr(views, "look", slow)
    try:
        while not begun.is_set():
            assert views.of("demo", wait=0.01) is first
        assert views.of("demo", wait=0.01) is first  # what was there before
        assert views.of("demo", anew=False) is first
        other = views_module.Views(full_store)
        monkeypatch.setattr(other, "look", slow)
        assert isinstance(other.of("demo", wait=0.01), Reading)
    finally:
        gate.set()


def test_who_comes_a_moment_after_a_look_began_waits_for_none(
    full_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import analysis.dashboard.view as views_module

    views, looks = Views(full_store), []
    look = views.look
    monkeypatch.setattr(views, "look", lambda *of: looks.append(1) or look(*of))
    monkeypatch.setattr(views_module, "PAUSE_SECONDS", 600)
    for _ in range(3):
        views.of("demo", wait=60)
    assert len(looks) == 1
    monkeypatch.setattr(views_module, "PAUSE_SECONDS", 0)
    views.of("demo", wait=60)
    assert len(looks) == 2


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


# -- pages ---------------------------------------------------------------------------------------


def test_a_trial_is_told_with_its_faults_and_what_it_printed(
    tmp_path: Path, make_plan, fill: Callable
) -> None:
    store, plan = Store(tmp_path), make_plan(seeds=2)
    store.register(plan)
    fill(store, plan, skip={("encoder.image_size=16", 2)})
    trial = next(t for t in plan.trials if (t.arm, t.seed) == ("encoder.image_size=16", 2))
    stage = trial.stages["multimodal"]
    store.record_failure(stage, "one", {"error": "ValueError: no", "traceback": "in <script>"})
    store.scratch(stage).mkdir(parents=True)
    (store.scratch(stage) / "printed.txt").write_text("first\nlast line\n", encoding="utf-8")
    client = make_app(store).server.test_client()
    listed = told(client_page(client, "/study/demo/trial", "?state=failed")["page"])
    assert "1 trials" in listed
    shown = client_page(client, "/study/demo/trial", "?arm=encoder.image_size%3D16&seed=2")
    page = told(shown["page"])
    for text in ("ValueError: no", "in <script>", "last line", "encoder.image_size", "failed"):
        assert text in page
    assert '"encoder.image_size"' not in page  # the path stands in a cell of its own
    done = told(client_page(client, "/study/demo/trial", "?arm=base&seed=1")["page"])
    assert "easy_vqa.accuracy" in done
    assert "jax" in done
    (store.scratch(stage) / "printed.txt").write_text("first\nand more\n" * 9, encoding="utf-8")
    client_page(
        client,
        "/study/demo/trial",
        "?arm=encoder.image_size%3D16&seed=2",
        lambda page: "and more" in page,
    )


def test_factors_are_those_of_the_statistics(full_store: Store) -> None:
    from analysis.results import load_results
    from analysis.statistics.paired_effects import paired_effects

    client = make_app(full_store).server.test_client()
    page = client_page(client, "/study/demo/factors")["page"]
    found = dict(figures_of(page))
    assert {"importance", "main-effects", "all-arms"} <= set(found)
    results = load_results("demo", full_store)
    expected = paired_effects(results.table, (*results.primary, "intact"))["effect"].tolist()
    drawn = [values(line["y"])[1] for line in found["main-effects"]["data"]]
    assert drawn == pytest.approx(expected)
    assert "no two factors" in told(page).casefold()
    for figure in ("importance", "main-effects", "all-arms"):
        assert client.get(f"/csv/{figure}/study/demo/factors").status_code == 200
    assert client.get("/csv/interactions/study/demo/factors").status_code == 409


def test_arms_of_two_studies_stand_beside_each_other(lab: Any) -> None:
    lab.run()
    lab.run("again", seeds=[1, 2, 3])
    client = make_app(lab.store).server.test_client()
    page = client_page(
        client, "/across", "?study=sizes&study=again", lambda page: "being read" not in page
    )["page"]
    text = told(page)
    assert "again: base" in text
    assert ", 2 seeds" in text  # 1 and 2 are in both
    lines = client.get("/csv/across/across?study=sizes&study=again").get_data(as_text=True)
    assert len({line.split(",")[0] for line in lines.splitlines()[1:]}) == 2


def test_notes_need_the_token_and_stay(full_store: Store, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(full_store.root, tmp_path / "store")
    store = Store(tmp_path / "store")
    app = make_app(store, token=TOKEN, actions=True)

    def write(client: Any, button: str, text: str) -> str:
        (callback,) = (
            one
            for one in client.get("/_dash-dependencies").get_json()
            if "note-answer" in one["output"]
        )
        given = {"n_clicks": 1, "value": text, "pathname": "/study/demo/notes"}
        body = {
            "output": callback["output"],
            "outputs": [
                {"id": "note-answer", "property": "children"},
                {"id": "note-text", "property": "value"},
            ],
            **{
                kind: [{**one, "value": given[one["property"]]} for one in callback[kind]]
                for kind in ("inputs", "state")
            },
            "changedPropIds": [f"{button}.n_clicks"],
        }
        answer = client.post(POST, json=body)
        return answer.get_json()["response"]["note-answer"]["children"]

    stranger, friend = app.server.test_client(), app.server.test_client()
    assert "token" in write(stranger, "note-add", "<b>no</b>")
    friend.get(f"/?token={TOKEN}")
    assert write(friend, "note-add", "<b>seed 2</b> looks odd") == "Written."
    assert write(friend, "tag-add", "paper") == "Written."
    page = told(client_page(stranger, "/study/demo/notes")["page"])
    assert "<b>seed 2</b> looks odd" in page
    assert "paper" in page
    assert "--actions" in page
    assert "paper" in told(client_page(stranger, "/", "?q=paper", lambda p: "demo" in p)["page"])
    assert write(friend, "tag-remove", "paper") == "Written."
    assert "No tags." in told(client_page(stranger, "/study/demo/notes")["page"])


def test_points_are_thinned_without_losing_a_peak() -> None:
    import numpy as np

    from analysis.dashboard.thinning import smoothed, thinned

    x = np.arange(10_000.0)
    y = np.sin(x / 500)
    y[7_777], y[3_333] = 9.0, -9.0
    kept = thinned(x, y)
    assert len(kept) <= 1_202
    assert {0, 3_333, 7_777, 9_999} <= set(kept.tolist())
    zoomed = thinned(x, y, (4_000.0, 4_500.0))
    assert zoomed.tolist() == list(range(3_999, 4_502))
    assert smoothed(np.full(50, 2.0), 0.9) == pytest.approx(np.full(50, 2.0))
    gap = smoothed(np.array([1.0, np.nan, 3.0]), 0.5)
    assert np.isnan(gap[1])
    assert gap[2] == pytest.approx((0.25 * 1 + 0.5 * 3) / 0.75)


def test_a_formula_in_a_name_is_text_in_csv() -> None:
    import pandas

    from analysis.dashboard.export import written

    frame = pandas.DataFrame({"arm": ["=cmd()", "-1+2", "plain,\n\x1b[2J"], "value": [-1.5, 2, 3]})
    lines = "".join(written(frame))
    assert lines == "arm,value\n'=cmd(),-1.5\n'-1+2,2.0\n\"plain,\n\\x1b[2J\",3.0\n"


def test_the_code_beside_a_figure_runs(
    full_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM1_STORE", full_store.root)
    monkeypatch.chdir(tmp_path)
    client = make_app(full_store).server.test_client()
    ran = 0
    for path, search in (
        ("/study/demo/overview", ""),
        ("/study/demo/factors", ""),
        ("/study/demo/curves", ""),
        ("/study/demo/trial", "?arm=base&seed=1"),
        ("/study/demo/data", ""),
        ("/across", "?study=demo"),
    ):
        page = client_page(client, path, search, lambda text: "being read" not in text)["page"]
        for code in codes(page):
            exec(compile(code, path, "exec"), {})
            ran += 1
    assert ran >= 7


def codes(part: Any) -> list[str]:
    """The programs that a page shows."""
    if isinstance(part, list):
        return [code for one in part for code in codes(one)]
    if not isinstance(part, dict):
        return []
    props = part.get("props", {})
    if props.get("className") == "code":
        return [one["props"]["children"] for one in props["children"] if one["type"] == "Pre"]
    return codes(list(props.values()))
