"""What a browser sees of a large store: seconds, memory and many viewers, beside MLflow and Aim.

    .venv/bin/python benchmarks/dashboard.py                     10,000 trials, 1 M stored examples
    .venv/bin/python benchmarks/dashboard.py --arms 100          1,000 trials
    .venv/bin/python benchmarks/dashboard.py --store FOLDER      made once, measured again
    .venv/bin/python benchmarks/dashboard.py --aim VENV/bin/aim  with Aim, installed elsewhere

The store has one study of a command: 50 metrics and 100 examples a trial. Chromium is the system's.
`first content` is from the navigation until what was asked for is on the screen, `interaction` from
a click or a key until what follows from it is: medians of several, in the browser's own clock.
`first ever` is of a server that was just started; the others of one that has read the study.
MLflow has the same trials and metrics in SQLite: one run is logged by its client, and the others
are copies of its rows with numbers of their own, for its client takes 47 ms a run. Aim logs runs
by its own client, which takes longer still, so it has fewer: how many is said. Neither has stored
examples as we have; theirs is the page of all runs. What is not there is skipped with a line.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "chromium"
TRIES, VIEWERS, WAIT_MILLISECONDS = 5, 50, 300_000
SEEDS, STEPS, METRICS, ITEMS, CORES = 10, 40, 50, 100, 2
STUDY = """\
study: {name}
question: How does a page of ten thousand trials feel?
workload:
  command: python3 train.py --config {{config}} --seed {{seed}} --out {{output}}
  metrics:
{metrics}
  code: [train.py]
base: base.json
design:
  factorial:
    rate: {rates}
    decay: {decays}
    width: {widths}
seeds: {seeds}
primary_metric: run.m00
claims:
  faster-is-better: effect(rate, {first} -> {second}) > 0
"""
WORDS = ("red", "blue", "teal", "circle", "square", "triangle", "left", "right", "above", "below")


def make(folder: Path, name: str, arms: int, items: int = ITEMS) -> int:
    """A store with a finished study of `arms` arms, `items` examples a trial; its trials."""
    from ablations.plan import make_plan
    from mm1.studies import load_study
    from sweeps.store import Store

    folder.mkdir(parents=True, exist_ok=True)
    sides = _sides(arms)
    rates = [round(0.1 * (1 + number), 3) for number in range(sides[0])]
    (folder / "train.py").write_text("# results are written by the benchmark\n", encoding="utf-8")
    (folder / "base.json").write_text('{"rate": 0.1, "decay": 0.01, "width": 8}', encoding="utf-8")
    text = STUDY.format(
        name=name,
        metrics="\n".join(f"    run.m{n:02}: {{goal: maximize}}" for n in range(METRICS)),
        rates=rates,
        decays=[round(0.01 * (1 + number), 4) for number in range(sides[1])],
        widths=[8 * (1 + number) for number in range(sides[2])],
        seeds=SEEDS,
        first=rates[0],
        second=rates[1],
    )
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    plan = make_plan(load_study(path), many=True)
    Store(folder / "store").register(plan)
    stages = list(plan.stages.values())
    parts = [(str(folder / "store"), stages[start::CORES], items) for start in range(CORES)]
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        pool.starmap(_finish, parts)
    return len(plan.trials)


def _sides(arms: int) -> tuple[int, int, int]:
    """Levels of three factors that make about so many arms."""
    side = max(2, round(arms ** (1 / 3)))
    return max(2, round(arms / side / side)), side, side


def _finish(root: str, stages: list[Any], items: int) -> None:
    import pyarrow
    from pyarrow import parquet

    from sweeps import objects
    from sweeps.store import Store

    setattr(objects, "flush", lambda path: None)  # noqa: B010 - it need not outlive the power
    opened, pictures = Store(root), [*_pictures()]
    for stage in stages:
        attempt = opened.begin(stage)
        columns = _examples(stage, items, pictures)
        types = {"references": pyarrow.list_(pyarrow.string()), "image": pyarrow.binary()}
        table = {key: pyarrow.array(column, types.get(key)) for key, column in columns.items()}
        parquet.write_table(pyarrow.table(table), attempt.output / "examples.parquet")
        execution = {
            "seconds": 40.0,
            "started_at": 1.7e9,
            "device_kind": "cpu",
            "device_count": 1,
            "threads": 1,
            "machine": "x86_64",
            "python": "3.11.7",
            "libraries": {f"library-{number}": f"1.{number}.0" for number in range(12)},
            "host": f"machine-{stage.seed}",
            "git_revision": "0" * 40,
        }
        opened.finish(attempt, list(_rows(stage)), execution)


def _pictures() -> Iterator[bytes]:
    from PIL import Image

    for number in range(10):
        file = io.BytesIO()
        Image.new("RGB", (24, 24), (25 * number, 90, 200)).save(file, "PNG")
        yield file.getvalue()


def _examples(stage: Any, items: int, pictures: list[bytes]) -> dict[str, list[Any]]:
    """Columns of a trial's examples: the same questions to everybody, answers of its own."""
    draw = random.Random(stage.id)
    skill = 0.4 + 0.4 * draw.random()
    asked = [random.Random(f"question {n}").choices(WORDS, k=6) for n in range(items)]
    right = [draw.random() < skill for _ in range(items)]
    return {
        "item_id": [f"question/{n}" for n in range(items)],
        "image_id": list(range(items)),
        "prompt": [f"<image>what is {' '.join(words)}?" for words in asked],
        "prediction": [
            words[0] if one else f"{draw.choice(WORDS)} {draw.randrange(1000)}"
            for words, one in zip(asked, right, strict=True)
        ],
        "references": [[words[0]] for words in asked],
        "score": [float(one) for one in right],
        "weight": [1.0] * items,
        "image_file": [f"{n}.png" for n in range(items)],
        "image": [pictures[n % len(pictures)] for n in range(items)],
    }


def _rows(stage: Any) -> Iterator[Any]:
    from ablations.stage import ResultRow

    draw = random.Random(stage.id)
    level = 0.5 + 0.1 * draw.random()
    for step in range(1, STEPS + 1):
        yield ResultRow("training", "m00", level - 0.5 / step, step=5 * step)
    for number in range(METRICS):
        yield ResultRow("run", f"m{number:02}", level + 0.01 * number, "test", step=5 * STEPS)


# -- others' stores ----------------------------------------------------------------------------


def to_mlflow(folder: Path, trials: int) -> str:
    """The same trials as runs of MLflow: its URI."""
    import mlflow
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    place = folder / "mlflow.db"
    uri = f"sqlite:///{place}"
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    experiment = client.create_experiment("large", artifact_location=f"file://{folder}/artifacts")
    run = client.create_run(experiment, run_name="trial 0")
    metrics = [Metric(f"m{n:02}", 0.5, 0, 0) for n in range(METRICS)]
    params = [Param(name, "1") for name in ("rate", "decay", "width", "seed")]
    client.log_batch(run.info.run_id, metrics=metrics, params=params)
    client.set_terminated(run.info.run_id)
    with contextlib.closing(sqlite3.connect(place)) as database:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            _copied(database, table, run.info.run_id, trials)
        database.commit()
    return uri


def _copied(database: sqlite3.Connection, table: str, run: str, trials: int) -> None:
    """Rows of a run again, for as many others, with numbers of their own."""
    found = database.execute(f"select * from {table} where run_uuid = ?", (run,))
    names = [one[0] for one in found.description]
    rows = found.fetchall()
    draw = random.Random(table)

    def copy(row: tuple[Any, ...], trial: int) -> tuple[Any, ...]:
        new = dict(zip(names, row, strict=True))
        new["run_uuid"] = f"{trial:032x}"
        if table in ("metrics", "latest_metrics"):
            new["value"] = 0.5 + 0.1 * draw.random()
        if table == "params":
            new["value"] = str(trial % SEEDS if new["key"] == "seed" else trial // SEEDS % 10)
        if table == "runs":
            new["name"] = f"trial {trial}"
        if table == "tags" and new["key"] == "mlflow.runName":
            new["value"] = f"trial {trial}"
        return tuple(new.values())

    signs = ", ".join("?" for _ in names)
    more = (copy(row, trial) for trial in range(1, trials) for row in rows)
    database.executemany(f"insert into {table} ({', '.join(names)}) values ({signs})", more)


AIM = """
import sys, random
from aim import Run
for trial in range(int(sys.argv[2])):
    run = Run(repo=sys.argv[1], experiment="large", system_tracking_interval=None,
              log_system_params=False, capture_terminal_logs=False)
    run["hparams"] = {"rate": trial // 10 % 10, "seed": trial % 10}
    for metric in range(int(sys.argv[3])):
        run.track(0.5 + 0.1 * random.random(), name=f"m{metric:02}", step=0)
    run.close()
"""


# -- servers -------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(command: list[str], port: int, path: str = "/") -> Generator[int]:
    """A server that answers: the number of its process."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=said, start_new_session=True
        )
        try:
            until = time.monotonic() + 300
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30).read()
                    break
                except urllib.error.HTTPError:
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until:
                        said.seek(0)
                        raise RuntimeError(said.read().decode()[-2000:]) from None
                    time.sleep(0.1)
            yield process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return opened.getsockname()[1]


def size_bytes(leader: int) -> int:
    """Resident memory of a process and of those that it started, together."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                facts = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(facts[2]) == leader:  # its group
                    pages = (folder / "statm").read_text(encoding="utf-8").split()[1]
                    total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total


# -- measuring -----------------------------------------------------------------------------------

Found = dict[str, float]


def until_shown(page: Any, action: Callable[[], Any], what: str, argument: Any = None) -> float:
    """Seconds from an action until a JavaScript condition holds, looked at once a frame."""
    begun = time.perf_counter()
    action()
    page.wait_for_function(what, arg=argument, polling="raf", timeout=WAIT_MILLISECONDS)
    return time.perf_counter() - begun


def new_page(browser: Any) -> Any:
    """A page of a desktop, which waits as long as it takes."""
    # What is waited for is JavaScript of ours, which our own pages would not run.
    page = browser.new_page(viewport={"width": 1400, "height": 1000}, bypass_csp=True)
    page.set_default_timeout(WAIT_MILLISECONDS)
    return page


def opened(browser: Any, url: str, what: str) -> float:
    """Seconds until a new page shows what it should."""
    page = new_page(browser)
    try:
        return until_shown(page, lambda: page.goto(url, wait_until="commit"), what)
    finally:
        page.close()


def has_text(text: str) -> str:
    """JavaScript: whether a page, which may have no body yet, shows a text."""
    return f"(document.body?.innerText ?? '').includes({json.dumps(text)})"


def ours(browser: Any, store: str) -> Found:
    """Our own pages."""
    port = free_port()
    mm1 = [sys.executable, "-m", "mm1", "dashboard", "--store", store, "--port", str(port)]
    place = f"http://127.0.0.1:{port}"
    overview, examples = f"{place}/study/large/overview", f"{place}/study/large/examples"
    cards = "document.querySelector('.claim') !== null"
    sides = "document.querySelector('.sides td') !== null"
    found: Found = {}
    with serving(mm1, port) as server:
        found["overview, first ever"] = opened(browser, overview, cards)
        found["examples, first ever"] = opened(browser, examples, sides)
        found["overview, first content"] = _median(lambda: opened(browser, overview, cards))
        found["examples, first content"] = _median(lambda: opened(browser, examples, sides))
        page = new_page(browser)
        page.goto(examples)
        page.wait_for_function(sides, timeout=WAIT_MILLISECONDS)
        page.wait_for_timeout(3_000)  # else what opening began is measured too
        found["examples, next question"] = _median(lambda: page.evaluate(NEXT_QUESTION))
        texts = itertools.cycle(("question/7", "question/77"))  # of another count each
        count = "document.querySelector('.listed h2').innerText"

        def search() -> float:
            before = page.evaluate(count)
            page.get_by_placeholder("a word of").fill(next(texts))
            return until_shown(
                page, lambda: page.keyboard.press("Enter"), f"old => {count} !== old", before
            )

        found["examples, text search"] = _median(search)
        page.close()
        found["unchanged tick"] = _ticked(place, "/study/large/examples", TRIES * 4)
        found |= _watched(place, "/study/large/examples", VIEWERS)
        found["process, GB"] = size_bytes(server) / 1e9
    return found


NEXT_QUESTION = """
() => new Promise((resolve) => {
  const heading = () => document.querySelector(".one h2").innerText;
  const links = [...document.querySelectorAll(".one .steps a")];
  const before = heading(), begun = performance.now();
  links.find((one) => one.innerText.includes("next")).click();
  const look = () => heading() === before
    ? requestAnimationFrame(look) : resolve((performance.now() - begun) / 1000);
  look();
})
"""


def _median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(TRIES))


class Viewer:
    """What a browser that is open asks for every two seconds."""

    def __init__(self, place: str, path: str):
        import re

        self._url = f"{place}/_dash-update-component"
        declared = json.loads(urllib.request.urlopen(f"{place}/_dash-dependencies").read())
        (callback,) = (one for one in declared if "page.children" in one["output"])
        named = re.findall(r"(\w+)\.(\w+)", callback["output"])
        self._body = {
            "output": callback["output"],
            "outputs": [{"id": name, "property": prop} for name, prop in named],
            "changedPropIds": ["tick.n_intervals"],
        }
        self._callback = callback
        self._values = {
            "url": {"pathname": path, "search": ""},
            "tick": {"n_intervals": 1},
            "seen": {"data": None},
            "chosen": {"data": None},
        }

    def tick(self) -> float:
        """Seconds of one."""
        body = self._body | {
            kind: [
                {**one, "value": self._values[one["id"]][one["property"]]}
                for one in self._callback[kind]
            ]
            for kind in ("inputs", "state")
        }
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        begun = time.perf_counter()
        with urllib.request.urlopen(request, timeout=120) as answer:
            data = answer.read()
        took = time.perf_counter() - begun
        if data:
            self._values["seen"] = json.loads(data)["response"]["seen"]
        return took


def _ticked(place: str, path: str, times: int) -> float:
    viewer = Viewer(place, path)
    for _ in range(3):
        viewer.tick()

    def tick() -> float:
        time.sleep(0.4)  # else it is answered from the look at the store that the last one began
        return viewer.tick()

    return statistics.median(tick() for _ in range(times))


def _watched(place: str, path: str, viewers: int) -> Found:
    """Many who look, each at its own two seconds."""
    took: list[float] = []
    lock = threading.Lock()

    def look(number: int) -> None:
        viewer = Viewer(place, path)
        viewer.tick()
        time.sleep(2 * number / viewers)
        for _ in range(5):
            seconds = viewer.tick()
            with lock:
                took.append(seconds)
            time.sleep(max(0.0, 2 - seconds))

    threads = [threading.Thread(target=look, args=(number,)) for number in range(viewers)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    took.sort()
    return {
        f"tick of {viewers} viewers, median": statistics.median(took),
        f"tick of {viewers} viewers, 95 %": took[int(0.95 * len(took))],
    }


def mlflows(browser: Any, folder: Path, trials: int) -> Found:
    """MLflow's page of the same runs."""
    uri = to_mlflow(folder, trials)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--port", str(port), "--workers", "1"]
    shown = has_text("trial ")
    url = f"http://127.0.0.1:{port}/#/experiments/1/runs"
    found: Found = {}
    with serving(command, port) as server:
        found["runs, first ever"] = opened(browser, url, shown)
        found["runs, first content"] = _median(lambda: opened(browser, url, shown))
        page = new_page(browser)
        page.goto(url)
        page.wait_for_function(shown, timeout=WAIT_MILLISECONDS)
        box = page.locator("input[placeholder*='metrics']").first
        numbers = iter(range(1, 9))

        def search() -> float:
            number = next(numbers)
            box.fill(f"attributes.run_name = 'trial {number}23'")
            only = f"{has_text(f'trial {number}23')} && !{has_text(f'trial {number - 1}23')}"
            return until_shown(page, lambda: page.keyboard.press("Enter"), only)

        if box.count():
            found["runs, search"] = _median(search)
        page.close()
        found["process, GB"] = size_bytes(server) / 1e9
    return found


def aims(browser: Any, aim: str, folder: Path, trials: int) -> Found:
    """Aim's page of runs."""
    python = str(Path(aim).with_name("python"))
    subprocess.run([aim, "init", "--repo", str(folder)], check=True, capture_output=True)
    subprocess.run(
        [python, "-c", AIM, str(folder), str(trials), str(METRICS)],
        check=True,
        capture_output=True,
    )
    port = free_port()
    command = [aim, "up", "--repo", str(folder), "--port", str(port), "--host", "127.0.0.1"]
    shown = has_text("large")
    url = f"http://127.0.0.1:{port}/runs"
    with serving(command, port) as server:
        return {
            "runs, first ever": opened(browser, url, shown),
            "runs, first content": _median(lambda: opened(browser, url, shown)),
            "process, GB": size_bytes(server) / 1e9,
        }


GOALS = {
    "first content": 1.0,
    "next question": 0.2,
    "text search": 0.2,
    "unchanged tick": 0.05,
    "process, GB": 1.0,
}


def told(what: str, found: Found, beside: Found) -> None:
    """A table, with the ratio to another's number of the same kind."""
    print(f"{what}")
    for name, value in found.items():
        kind = name.rpartition(", ")[2]
        unit = "GB" if name.endswith("GB") else "s"
        goal = next((one for key, one in GOALS.items() if name.endswith(key)), None)
        line = f"  {name:<34} {value:9.3f} {unit}"
        if goal is not None and not beside:
            line += f"  goal {goal:g} {unit}" + ("" if value <= goal else ", MISSED")
        other = next((v for key, v in beside.items() if key.rpartition(", ")[2] == kind), None)
        if other:
            line += f"  {value / other:6.1f} times ours"
        print(line, flush=True)


def main() -> None:
    """Make, measure and print."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", type=int, default=1000)
    parser.add_argument("--store", type=Path, help="folder to make it in, and to find it in again")
    parser.add_argument("--aim", default=shutil.which("aim") or "", help="command of Aim")
    parser.add_argument("--aim-runs", type=int, default=500)
    parser.add_argument("--no-mlflow", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as browsers:
        folder = given.store or Path(scratch) / "ours"
        if not (folder / "store").exists():
            begun = time.perf_counter()
            trials = make(folder, "large", given.arms)
            print(f"made {trials:,} trials in {time.perf_counter() - begun:.0f} s")
        from sweeps.store import Store

        trials = len(Store(folder / "store").snapshot("large")[0].trials)
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        print(f"{trials:,} trials × {METRICS} metrics, {trials * ITEMS:,} stored examples")
        mine = ours(browser, str(folder / "store"))
        told("mm1", mine, {})
        if given.no_mlflow:
            print("MLflow: left out")
        else:
            told(f"MLflow, {trials:,} runs", mlflows(browser, Path(scratch), trials), mine)
        if given.aim and Path(given.aim).exists():
            place = Path(scratch) / "aim"
            place.mkdir()
            runs = min(trials, given.aim_runs)
            told(f"Aim, {runs:,} runs", aims(browser, given.aim, place, runs), mine)
        else:
            print("Aim: not there (pip install aim into another environment, and --aim says where)")
        browser.close()


if __name__ == "__main__":
    main()
