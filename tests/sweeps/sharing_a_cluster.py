"""Run as a program: two studies on one Ray cluster of four cores, the second while the first runs.

    python sharing_a_cluster.py FOLDER

Prints what happened as one line of JSON, last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from killing import until
from noop_stage import a_plan
from on_a_cluster import HERE, a_cluster, a_node, ray

from sweeps.sharing import BOARD, NAMESPACE
from sweeps.store import Store

TRIALS = {"first": 60, "second": 12}
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


def most_together(store: Store, name: str) -> int:
    """How many trainings were under way at once."""
    plan = study(name)
    spans = [store.execution(plan.main(trial).id) for trial in plan.trials]
    return max(sum(a["began"] <= b["began"] < a["ended"] for a in spans) for b in spans)


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
        codes = {name: driver.wait() for name, driver in drivers.items()}
        for name in codes:
            sys.stderr.write((folder / f"{name}.txt").read_text(encoding="utf-8"))

        def board() -> bool:
            try:
                ray.get_actor(BOARD, namespace=NAMESPACE)
            except ValueError:
                return False
            return True

        until(lambda: not board())
    ends = {
        f"{name} ended": max(store.execution(one)["ended"] for one in study(name).stages)
        for name, store in stores.items()
    }
    together = {name: most_together(stores[name], name) for name in TRIALS}
    return {"codes": codes, "together": together, "board": "gone", **ends}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
