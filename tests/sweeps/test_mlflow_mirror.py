"""The MLflow mirror, read back through MLflow's own API."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from noop_stage import a_plan
from sqlalchemy.engine import make_url

from ablations.errors import UserError
from ablations.stage import ResultRow
from sweeps import leases
from sweeps.mlflow_mirror import Mirror, MirrorProcess, is_current, metric_name, tracking_uri
from sweeps.mlflow_names import original
from sweeps.store import Store

PATIENCE = 300.0  # s; a live MLflow on a busy machine
PLAN = a_plan("mirrored", {"base": {"width": 8}, "wide": {"width": 16}}, seeds=(1, 2))


def finish(store: Store, stage_id: str) -> None:
    stage = PLAN.stages[stage_id]
    attempt = store.begin(stage)
    if stage.inputs:
        (attempt.output / "examples.parquet").write_bytes(b"PAR1")
        rows = [ResultRow("easy_vqa", "accuracy", 70.0 + stage.seed, split="test", n_items=5)]
    else:
        rows = [ResultRow("training", "loss", 1.0 / step, step=step) for step in range(1, 1202)]
    execution = {
        "started_at": 1e9,
        "seconds": 2.0,
        "git_revision": "abc",
        "host": "h",
        "libraries": {"jax": "1"},
    }
    store.finish(attempt, rows, execution)


@pytest.fixture(scope="module", autouse=True)
def patient():
    """Nothing here depends on how busy the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(round(PATIENCE)))
        patch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        yield


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """A mirror written in three goes, the second one after a kill amid a run."""
    store = Store(tmp_path_factory.mktemp("store"))
    uri = tracking_uri(store, None)
    registration = store.register(PLAN)
    first, *others = PLAN.stages
    finish(store, first)
    assert Mirror(store, PLAN, registration, uri).stages() == 1

    mirror = Mirror(store, PLAN, registration, uri)
    torn = mirror._create(mirror._experiment("mm1-stages"), "torn", {"mm1.stage": others[0]}, 0)
    for stage_id in others:
        finish(store, stage_id)
    assert mirror.stages() == len(PLAN.stages)
    assert mirror.study() == len(PLAN.trials)
    mirror.conclude(None)

    report = store.local / "report.html"
    report.write_text("<html>", encoding="utf-8")
    process = MirrorProcess(store, PLAN, uri)
    assert process.finish(report, silence=PATIENCE) is None
    process.end()
    return store, uri, torn


@pytest.fixture
def client(mirrored):
    import mlflow

    return mlflow.MlflowClient(tracking_uri=mirrored[1])


def runs_of(client, experiment):
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], max_results=100)


def test_each_stage_has_one_run_without_parent_under_its_identity(client, mirrored):
    runs = runs_of(client, "mm1-stages")
    assert sorted(run.data.tags["mm1.stage"] for run in runs) == sorted(PLAN.stages)
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs)
    assert mirrored[2] not in {run.info.run_id for run in runs}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_run_of_a_stage_holds_params_curve_environment_and_examples(client, mirrored):
    trial = PLAN.trials[0]
    runs = {run.data.tags["mm1.stage"]: run for run in runs_of(client, "mm1-stages")}
    train = runs[trial.stages["multimodal"]]
    assert train.data.params["width"] == "8"
    curve = client.get_metric_history(train.info.run_id, "training.loss")
    assert sorted((point.step, point.value) for point in curve) == [
        (step, 1.0 / step) for step in range(1, 1202)
    ]
    assert train.data.tags["mlflow.source.git.commit"] == "abc"
    assert train.data.tags["mm1.execution.libraries.jax"] == "1"
    scored = runs[trial.stages["easy_vqa"]]
    assert scored.data.metrics["easy_vqa.accuracy"] == 71.0
    artifacts = {item.path for item in client.list_artifacts(scored.info.run_id)}
    assert artifacts == {"examples.parquet", "execution.json"}
    assert (mirrored[0].local / "mlartifacts").is_dir()


def test_study_is_a_parent_with_a_child_per_arm_and_seed(client):
    runs = runs_of(client, "mm1-mirrored")
    (parent,) = [run for run in runs if run.data.tags["mm1.role"] == "study"]
    children = [run for run in runs if run.data.tags["mm1.role"] == "trial"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mm1.trials"] == "4 of 4"
    assert {(run.data.tags["mm1.arm"], run.data.tags["mm1.seed"]) for run in children} == {
        (trial.arm, str(trial.seed)) for trial in PLAN.trials
    }
    assert len(children) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    base = next(run for run in children if run.info.run_name == "base seed 2")
    assert base.data.metrics == {"easy_vqa.accuracy": 72.0, "training.loss": 1.0 / 1201}
    stage_runs = {run.info.run_id for run in runs_of(client, "mm1-stages")}
    assert base.data.tags["mm1.run.multimodal"] in stage_runs
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"plan.json", "study.yaml", "report.html"}


def test_complete_mirror_is_known_until_its_database_is_gone(mirrored):
    store, uri, _ = mirrored
    assert is_current(store, PLAN, uri)
    assert not is_current(store, PLAN, "http://elsewhere")
    database = store.local / "mlflow.db"
    database.rename(store.local / "moved.db")
    assert not is_current(store, PLAN, uri)
    (store.local / "moved.db").rename(database)


def test_trouble_is_told_in_one_line(mirrored):
    process = MirrorProcess(mirrored[0], PLAN, "nosuch://place")
    trouble = process.finish(silence=PATIENCE)
    process.end()
    assert "nosuch" in trouble
    assert "mlflow.log" in trouble


def test_one_mirror_at_a_time_per_store(mirrored, monkeypatch):
    import sweeps.mlflow_mirror as mirror

    monkeypatch.setattr(mirror, "LEASE_SECONDS", 0.1)
    lease = leases.acquire(mirrored[0].objects, "mlflow/lease")
    with pytest.raises(TimeoutError, match="another run"), mirror._alone(mirrored[0]):
        pass
    lease.release()
    with mirror._alone(mirrored[0]):
        assert leases.holder(mirrored[0].objects, "mlflow/lease") is not None


def test_where_to_mirror_to(tmp_path, monkeypatch):
    store = Store(tmp_path)
    assert tracking_uri(store, None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri(store, "off") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://x")
    assert tracking_uri(store, None) == "http://x"
    assert tracking_uri(store, "http://y") == "http://y"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="--mlflow URI"):
        tracking_uri(Store("memory://m"), None)


@pytest.mark.parametrize("name", ["a?b=c", "a%20b", "100%", "#1", "[a] {b} ü"])
def test_the_database_is_in_its_own_store_whatever_that_is_called(tmp_path, monkeypatch, name):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = tracking_uri(Store(tmp_path / name), None)
    assert uri is not None
    assert make_url(uri).database == f"{tmp_path / name}/mlflow.db"


def test_metric_names_tell_the_variant():
    row = {"task": "easy_vqa", "metric": "accuracy", "shots": 0, "condition": "intact"}
    assert metric_name(row) == "easy_vqa.accuracy"
    assert metric_name(row | {"shots": 4, "condition": "shuffled"}) == (
        "easy_vqa.accuracy.4-shot.shuffled"
    )


# -- odd names and numbers, on a server --------------------------------------------------------

ARM = """it's "odd"; 50% \\ größer? 🐶 \x1b[2J ../x"""
CLAIMS = {
    "lower rate > base? (größer)": "score(base) > 1",
    "..": "score(base) > 2",
    "a//b": "score(base) > 3",
    "/": "score(base) > 4",
    "": "score(base) > 5",
    "c" * 300: "score(base) > 6",
    "c" * 300 + "!": "score(base) > 7",
    "long": "x" * 7000,
}
METRICS = {
    "accuracy/category:50% colour": 1.0,
    "accuracy/category:50_x0025_ colour": 2.0,
    "accuracy/category:a//b": 3.0,
    "loss is nan": math.nan,
    "loss is inf": math.inf,
    **{f"accuracy/category:{number}": float(number) for number in range(1200)},
}
ODD = a_plan("odd", {"base": {}, ARM: {"note": "n" * 7000, "keys": {"what?": 1}}}, seeds=(1,))
ODD = ODD.model_copy(update={"claims": CLAIMS})


def finish_odd(store: Store) -> None:
    for stage in ODD.stages.values():
        attempt = store.begin(stage)
        if stage.inputs:
            rows = [ResultRow("easy_vqa", name, value) for name, value in METRICS.items()]
            rows += [ResultRow("twice", "accuracy", 1.0, split=split) for split in ("val", "test")]
            rows += [ResultRow("a.b", "c", 1.0), ResultRow("a", "b.c", 2.0)]
        else:
            rows = [ResultRow("training", "loss", 1.0)]
        store.finish(attempt, rows, {"started_at": 1e9, "seconds": 0.1, "git_revision": "abc"})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`mlflow server` on a free port."""
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with open(folder / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def odd(tmp_path_factory, server):
    """The client of a server to which a study with odd names was mirrored."""
    import mlflow

    store = Store(tmp_path_factory.mktemp("odd"))
    store.register(ODD)
    finish_odd(store)
    process = MirrorProcess(store, ODD, server)
    assert process.finish(silence=PATIENCE) is None
    process.end()
    assert is_current(store, ODD, server)
    return mlflow.MlflowClient(tracking_uri=server), store


def test_a_study_with_odd_names_is_mirrored_whole(odd, server):
    client, _ = odd
    runs = runs_of(client, "mm1-odd")
    (parent,) = [run for run in runs if run.data.tags["mm1.role"] == "study"]
    assert parent.data.tags["mm1.trials"] == "2 of 2"
    claims = {
        original(key).removeprefix("claim."): value
        for key, value in parent.data.params.items()
        if key.startswith("claim.")
    }
    short = {name: text for name, text in CLAIMS.items() if len(name) < 200 and len(text) < 6000}
    assert short.items() <= claims.items()
    path = client.download_artifacts(parent.info.run_id, "in_full.json")
    in_full = json.loads(Path(path).read_text(encoding="utf-8"))
    assert {f"claim.{name}" for name in CLAIMS if len(name) > 200} <= set(in_full["names"].values())
    assert in_full["params"] == {"claim.long": "x" * 7000}
    assert len(parent.data.params["claim.long"]) <= 6000
    assert "7000 characters" in parent.data.params["claim.long"]


def test_odd_numbers_and_many_of_them_are_mirrored(odd):
    client, _ = odd
    trial = next(r for r in runs_of(client, "mm1-odd") if r.info.run_name == "base seed 1")
    found = {original(name): value for name, value in trial.data.metrics.items()}
    assert math.isnan(found.pop("easy_vqa.loss is nan"))
    assert found.pop("easy_vqa.loss is inf") > 1e308
    expected = {f"easy_vqa.{name}": x for name, x in METRICS.items() if not name.startswith("loss")}
    assert expected.items() <= found.items()
    assert found["twice.accuracy.val"] == found["twice.accuracy.test"] == 1.0
    assert {found["a.b.c"], found["a.b.c_x_2"]} == {1.0, 2.0}


def test_odd_items_are_found_again_and_written_once(odd, server):
    client, store = odd
    before = {run.info.run_id for run in runs_of(client, "mm1-odd")}
    mirror = Mirror(store, ODD, store.snapshot("odd")[1], server)
    mirror.stages()
    mirror.study()
    assert {run.info.run_id for run in runs_of(client, "mm1-odd")} == before
    assert mirror.refused == mirror.failed == {}


def test_what_is_refused_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    import mlflow

    store = Store(tmp_path)
    registration = store.register(ODD)
    finish_odd(store)
    uri = tracking_uri(store, None)
    monkeypatch.setattr("sweeps.mlflow_mirror.METRICS_PER_BATCH", 10)
    monkeypatch.setattr("sweeps.mlflow_mirror.valid_name", lambda name, *_: name)
    monkeypatch.setattr("sweeps.mlflow_names.valid_name", lambda name, *_: name)
    mirror = Mirror(store, ODD, registration, uri)
    assert mirror.stages() == len(ODD.stages)
    assert mirror.study() == len(ODD.trials)
    mirror.conclude(None)
    assert "odd: claim.lower rate > base? (größer)" in mirror.refused
    (parent,) = [
        run
        for run in runs_of(mlflow.MlflowClient(tracking_uri=uri), "mm1-odd")
        if run.data.tags["mm1.role"] == "study"
    ]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["arms"] == "2"
    assert parent.data.tags["mm1.trials"] == "2 of 2"


# -- MLflow that is not there ------------------------------------------------------------------


class _Broken(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(500)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture(params=["closed", "silent", "broken"])
def dead(request):
    """The address of an MLflow that is closed, never answers, or answers 500."""
    if request.param == "broken":
        with ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as broken:
            threading.Thread(target=broken.serve_forever, daemon=True).start()
            yield f"http://me:planted-secret@127.0.0.1:{broken.server_port}"
            broken.shutdown()
        return
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://me:planted-secret@127.0.0.1:{listening.getsockname()[1]}"
        if request.param == "closed":
            listening.close()
        yield address


@pytest.fixture
def small(tmp_path):
    store = Store(tmp_path)
    plan = a_plan("small", {"base": {}}, seeds=(1,))
    store.register(plan)
    for stage in plan.stages.values():
        facts = {"started_at": 1e9, "seconds": 0.1, "git_revision": "abc"}
        store.finish(store.begin(stage), [ResultRow("easy_vqa", "accuracy", 1.0)], facts)
    return store, plan


def test_mlflow_that_is_away_is_told_in_one_line_and_delivered_later(
    dead, small, server, monkeypatch
):
    store, plan = small
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    process = MirrorProcess(store, plan, dead)
    trouble = process.finish(silence=PATIENCE)
    process.end()
    assert trouble is not None
    assert "\n" not in trouble
    assert dead.rpartition("@")[2] in trouble
    assert any(f" {what}" in trouble for what in ("does not answer", "answers with error 500"))
    assert "the next run of the study delivers the rest" in trouble
    assert not is_current(store, plan, dead)
    process = MirrorProcess(store, plan, server)
    assert process.finish(silence=PATIENCE) is None
    process.end()
    assert is_current(store, plan, server)


def test_a_mirror_that_does_nothing_is_not_waited_for(small):
    store, plan = small
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = MirrorProcess(store, plan, f"http://127.0.0.1:{listening.getsockname()[1]}")
        trouble = process.finish(silence=0.5)
        process.end()
    assert trouble is not None
    assert "has not answered" in trouble


@pytest.mark.parametrize(("sign", "given_up"), [("", False), ("?.", False), ("?", True)])
def test_only_an_answer_that_does_not_come_is_silence(small, sign, given_up):
    """A busy machine takes its time to import MLflow, or between two questions."""
    store, plan = small
    process = MirrorProcess(store, plan, "off")
    process.end()
    slow = f"import time; print({sign!r}, end='', flush=True); time.sleep(2); print('.\\n')"
    process._process = subprocess.Popen(
        [sys.executable, "-c", slow], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    trouble = process.finish(silence=1)
    process.end()
    assert (trouble is not None) == given_up, trouble


def test_news_are_told_once_and_do_not_hide_how_it_ends(small):
    store, plan = small
    process = MirrorProcess(store, plan, "off")
    process.end()
    script = (
        "import sys; print('~it is away\\n~it is back', flush=True); sys.stdin.read();"
        "print('~too late', flush=True); print('?.', flush=True); print('something failed')"
    )
    process._process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    news = []
    while not news:
        news = process.news()
    assert (news, process.news()) == (["it is away", "it is back"], [])
    assert process.finish() == "something failed"
    assert process.news() == []
    process.end()


class Forward(socketserver.BaseRequestHandler):
    """Hands on what it is sent, and the answer."""

    def handle(self):
        with socket.create_connection(self.server.to) as other:
            ends = {self.request: other, other: self.request}
            while True:
                for one in select.select(list(ends), [], [])[0]:
                    data = one.recv(2**16)
                    if not data:
                        return
                    ends[one].sendall(data)


@pytest.mark.slow
def test_mlflow_that_goes_and_comes_while_a_study_runs_is_told(small, server, monkeypatch):
    store, plan = small
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")

    def told(process):
        news = []
        while not news:
            assert process._process.poll() is None
            news = process.news()
            time.sleep(0.1)
        return news

    with socket.create_server(("127.0.0.1", 0)) as free:
        place = free.getsockname()
    process = MirrorProcess(store, plan, f"http://user:secret@127.0.0.1:{place[1]}")
    (away,) = told(process)
    assert away == (
        f"http://user:***@127.0.0.1:{place[1]} does not answer (connection refused); "
        "what it lacks is kept, and written when that is over"
    )
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(place, Forward) as forward:
        forward.daemon_threads = True
        forward.to = ("127.0.0.1", int(server.rpartition(":")[2]))
        threading.Thread(target=forward.serve_forever, daemon=True).start()
        (back,) = told(process)
        assert back.endswith(f"127.0.0.1:{place[1]} is written to again")
        assert process.finish(silence=PATIENCE) is None
        process.end()
        forward.shutdown()
    assert is_current(store, plan, f"http://user:secret@127.0.0.1:{place[1]}")


def test_a_killed_mirror_is_told_and_completed_by_the_next(small):
    store, plan = small
    uri = tracking_uri(store, None)
    process = MirrorProcess(store, plan, uri)
    os.kill(process._process.pid, signal.SIGKILL)
    trouble = process.finish()
    process.end()
    assert trouble == (
        "its process was ended by SIGKILL; the next run of the study delivers the rest"
    )
    process = MirrorProcess(store, plan, uri)
    assert process.finish(silence=PATIENCE) is None
    process.end()
    assert is_current(store, plan, uri)


def test_secrets_of_the_address_are_in_no_argument_file_or_line(small, server, monkeypatch):
    store, plan = small
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted-token-secret")
    for uri in (
        server.replace("http://", "http://me:planted-secret@"),
        "nosuch://me:planted-secret@host/x?sig=planted-secret",
    ):
        process = MirrorProcess(store, plan, uri)
        arguments = Path(f"/proc/{process._process.pid}/cmdline").read_bytes()
        trouble = process.finish(silence=PATIENCE)
        process.end()
        assert b"planted" not in arguments
        assert "planted" not in (trouble or "")
    files = [path for path in store.local.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"planted" in path.read_bytes()]
    assert any(
        "me:***@" in path.read_text(encoding="utf-8") for path in store.local.glob("mlflow/*.json")
    )
