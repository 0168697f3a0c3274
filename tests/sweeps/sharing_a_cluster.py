"""Run as a program: two studies on one Ray cluster of four cores, the second while the first runs.

    python sharing_a_cluster.py FOLDER

Prints what happened as one line of JSON, last.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from killing import until
from noop_stage import a_plan
from on_a_cluster import HERE, a_cluster, a_node, ray

from sweeps.sharing import BOARD, NAMESPACE
from sweeps.store import Store

TRIALS = {"first": 3000, "second": 12}  # the first would take for long
DRIVER = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from sharing_a_cluster import study
from sweeps.run import run_plan
store, data, name, address = sys.argv[1:]
sys.exit(run_plan(study(name), store, data=data, cluster=address, mlflow_uri="off"))
"""


def study(name: str):
    """As many short trainings as the study has trials, each with its evaluation."""
    seeds = tuple(range(TRIALS[name]))
    return a_plan(name, {f"arm-{name}": {"steps": 10, "seconds": 0.1}}, seeds=seeds)


def spans(store: Store, name: str) -> list[tuple[float, float]]:
    """When each training that is done began and ended."""
    plan, found = study(name), []
    for stage in store.done([plan.main(trial) for trial in plan.trials]):
        one = store.execution(stage)
        found.append((one["started_at"], one["started_at"] + one["seconds"]))
    return found


def most_together(some: list[tuple[float, float]]) -> int:
    """How many were under way at once."""
    return max(sum(began <= at < ended for began, ended in some) for at, _ in some)


def main(folder: Path) -> dict:
    (folder / "data").mkdir()
    stores = {name: Store(folder / name) for name in TRIALS}
    drivers = {}

    def start(name: str, address: str) -> None:
        words = [stores[name].root, str(folder / "data"), name, address]
        with open(folder / f"{name}.txt", "wb") as said:
            drivers[name] = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *words], stdout=said, stderr=said, env=os.environ
            )

    def done(name: str) -> int:
        return len(stores[name].done(study(name).stages))

    with a_cluster() as cluster:
        a_node(cluster, num_cpus=4)
        start("first", cluster.address)
        until(lambda: done("first") >= 8)
        start("second", cluster.address)
        codes = {"second": drivers["second"].wait()}
        drivers["first"].send_signal(signal.SIGINT)  # it is far from its end
        codes["first"] = drivers["first"].wait()
        for name in codes:
            sys.stderr.write((folder / f"{name}.txt").read_text(encoding="utf-8"))

        def board() -> bool:
            try:
                ray.get_actor(BOARD, namespace=NAMESPACE)
            except ValueError:
                return False
            return True

        until(lambda: not board())
    ran = {name: spans(store, name) for name, store in stores.items()}
    second = min(began for began, _ in ran["second"]), max(ended for _, ended in ran["second"])
    return {
        "codes": codes,
        "together": {name: most_together(some) for name, some in ran.items()},
        "beside": sum(second[0] < ended < second[1] for _, ended in ran["first"]),
        "board": "gone",
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
