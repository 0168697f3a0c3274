"""Run as a program: a study on a Ray cluster on this machine whose nodes come and go.

    python coming_and_going.py FOLDER

A node joins, another is drained and then removed, one is lost without notice, and one comes in its
place. Prints what happened as one line of JSON, last.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from killing import until
from on_a_cluster import a_cluster
from test_faults import faulty_plan

from sweeps.ray_session import waiting_for_node
from sweeps.run import run_plan
from sweeps.store import Store


def drain(node_id: str) -> None:
    """Give notice to a node, as an autoscaler does that is to take it away."""
    import ray
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    taken, why = client.drain_node(
        node_id, reason, "the test takes it away", int((time.time() + 600) * 1000)
    )
    assert taken, why


def main(folder: Path) -> dict:
    store, seen = Store(folder / "store"), folder / "all is seen"
    # However slow the machine is, no stage ends before all of it has happened.
    endless = {"steps": 10**6, "until": str(seen)}
    arms = dict.fromkeys(("one", "two", "three", "four"), endless)
    plan = faulty_plan("coming-and-going", arms)
    found: dict = {}

    def busy() -> list[str]:
        begun = [stage for stage in plan.stages if store.progress(stage)]
        return [stage for stage in begun if not store.is_done(stage)]

    # Whose raylets stand in another folder than this one; any of them is a raylet that lives.
    with waiting_for_node(Path("/tmp"), time.monotonic() + 1200), a_cluster() as cluster:
        first = cluster.add_node(num_cpus=1)
        trouble: list[str] = []

        def scenario() -> None:
            try:
                until(lambda: len(busy()) == 1)
                second = cluster.add_node(num_cpus=1)
                until(lambda: len(busy()) == 2)  # a worker on the new node
                found["joined"] = True
                drain(first.node_id)
                until(yielded)
                cluster.remove_node(first)
                cluster.remove_node(second, allow_graceful=False)  # without notice
                found["left"] = len(store.done(plan.stages))
            except BaseException as error:
                trouble.append(repr(error))
            finally:
                cluster.add_node(num_cpus=2)
                seen.touch()  # so that the study ends

        said: list[str] = []

        def yielded() -> bool:
            return any("yielded" in line for line in said)

        thread = threading.Thread(target=scenario)
        thread.start()
        found["code"] = _run(plan, store, said)
        thread.join()
        found["trouble"] = trouble
    found["said"] = [line for line in said if line.strip()]
    found["failures"] = sum(len(store.failures(stage)) for stage in plan.stages)
    found["resumed"] = [
        int((store.stage_folder(stage) / "first_step").read_text(encoding="utf-8"))
        for stage in plan.stages
        if store.is_done(stage)
    ]
    return found


class _Said:
    """A standard error that is read line by line."""

    def __init__(self, lines: list[str]):
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines.extend(text.splitlines())
        sys.__stdout__.write(text)
        return len(text)

    def flush(self) -> None:
        sys.__stdout__.flush()


def _run(plan, store: Store, said: list[str]) -> int:
    sys.stderr, before = _Said(said), sys.stderr
    try:
        return run_plan(plan, store, data="data", mlflow_uri="off", quiet=True)
    finally:
        sys.stderr = before


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
