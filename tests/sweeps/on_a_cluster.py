"""Run as a program: a Ray cluster of several nodes on this machine, and a gang on it.

    python on_a_cluster.py SCENARIO FOLDER [DATA]

Prints what happened as one line of JSON, last. A program, because a process has one Ray.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from sweeps.ray_session import LOOPBACK, SETTINGS, private_folder, waiting_for_node

os.environ.update(SETTINGS | LOOPBACK)
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

import ray
from noop_stage import a_plan, having
from ray.cluster_utils import Cluster
from test_gang import a_gang_stage, wait_for

from ablations.identity import code_fingerprint
from ablations.plan import Plan
from ablations.resources import Resources, Shape, Slice
from ablations.stages import Stage
from ablations.workload import Code
from sweeps.gang import GangWorker, placement_of
from sweeps.pool import LostError
from sweeps.run import run_plan
from sweeps.store import Store
from sweeps.worker import Outcome

START_SECONDS = 1200.0  # of all nodes, on a busy machine
HERE = Path(__file__).parent


@contextlib.contextmanager
def a_cluster() -> Generator[Cluster]:
    """A cluster with a head that has no cores."""
    until = time.monotonic() + START_SECONDS
    with private_folder() as folder, waiting_for_node(folder, until):
        head = {"num_cpus": 0, "temp_dir": str(folder / "r"), "include_dashboard": False}
        Path("/tmp/ray").mkdir(exist_ok=True)  # where it writes its address, whatever it is told
        cluster = Cluster(shutdown_at_exit=False)  # which only a main thread may ask for
        try:
            cluster.add_node(wait=False, **head)
            ray.init(address=cluster.address, log_to_driver=False)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def a_node(cluster: Cluster, **what: Any) -> Any:
    """One more node, waited for longer than Ray itself would on a busy machine."""
    node = cluster.add_node(wait=False, object_store_memory=80 * 2**20, **what)
    wait_for(
        lambda: any(one["NodeID"] == node.node_id and one["Alive"] for one in ray.nodes()), 300
    )
    return node


DATA = sys.argv[3] if len(sys.argv) > 3 else str(HERE)


def a_gang(
    shape: Shape, store: Store, say: Callable[[str], None], data: str = DATA, **variables: str
) -> GangWorker:
    """A gang of that shape, with the test stages on its path."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    return GangWorker(
        lambda: placement_of(shape),
        (store.root, data, "revision"),
        {"PYTHONPATH": paths, **variables},
        say,
    )


def run(gang: GangWorker, stage: Stage) -> Future[Outcome]:
    """Begin a stage once the gang is there."""
    gang.ready().result(300)
    return gang.run(stage)


def a_slice(cluster: Cluster, name: str, pod: str, topology: str, hosts: int = 2) -> list[Any]:
    """The nodes of a TPU slice, as Ray's own tests declare them; the first is its head."""
    nodes = []
    for number in range(hosts):
        head = {f"TPU-{pod}-head": 1} if number == 0 else {}
        nodes.append(
            a_node(
                cluster,
                num_cpus=1,
                resources={"TPU": 4, **head},
                labels={
                    "ray.io/tpu-slice-name": name,
                    "ray.io/tpu-worker-id": str(number),
                    "ray.io/tpu-pod-type": pod,
                    "ray.io/tpu-topology": topology,
                },
                env_vars={
                    "TPU_NAME": name,
                    "TPU_WORKER_ID": str(number),
                    "TPU_ACCELERATOR_TYPE": pod,
                    "TPU_TOPOLOGY": topology,
                },
            )
        )
    return nodes


def slices(folder: Path) -> dict[str, Any]:
    """A gang on one of two slices; a host of it goes, then one of the other, and comes back."""
    said: list[str] = []
    store = Store(folder / "store")
    with a_cluster() as cluster:
        nodes = {name: a_slice(cluster, name, "v4-16", "2x2x2") for name in ("slice-a", "slice-b")}
        gang = a_gang(Shape(tpu=Slice.of("v4-16")), store, said.append)
        stage = a_gang_stage(waits=True)
        running = run(gang, stage)
        scratch = store.scratch(stage.id)
        facts = [where(store, stage, number) for number in (0, 1)]
        first = facts[0]["TPU_NAME"]
        (scratch / "trouble").touch()  # the next attempts do not wait
        cluster.remove_node(nodes[first][1])
        lost = error_of(running.result)
        gang.kill()
        gang = a_gang(Shape(tpu=Slice.of("v4-16")), store, said.append)
        again = run(gang, stage).result(300)
        found = {
            "slices": [one["TPU_NAME"] for one in facts],
            "workers": [one["TPU_WORKER_ID"] for one in facts],
            "chips": [one["TPU_VISIBLE_CHIPS"] for one in facts],
            "lost": lost,
            "again": again.state,
            "moved": json.loads(
                (store.stage_folder(stage.id) / "where.json").read_text(encoding="utf-8")
            ),
        }
        (other,) = {"slice-a", "slice-b"} - {first}
        waiting = a_gang_stage(seed=2)
        gang.kill()
        cluster.remove_node(nodes[other][1])
        gang = a_gang(Shape(tpu=Slice.of("v4-16")), store, said.append)
        wait_for(lambda: alive() == 3, 120)  # the head and a host of each slice
        said.clear()
        ready = gang.ready()
        wait_for(lambda: said, 120)
        a_slice(cluster, "slice-c", "v4-16", "2x2x2")
        ready.result(300)
        found |= {"said": list(said), "after": gang.run(waiting).result(300).state}
        gang.kill()
    return found


def hosts(folder: Path) -> dict[str, Any]:
    """A gang of two hosts; one node goes, a third takes its place."""
    store = Store(folder / "store")
    said: list[str] = []
    with a_cluster() as cluster:
        nodes = [a_node(cluster, num_cpus=2) for _ in range(2)]
        gang = a_gang(Shape(cpu=2, hosts=2), store, said.append)
        stage = a_gang_stage(waits=True)
        running = run(gang, stage)
        scratch = store.scratch(stage.id)
        facts = [where(store, stage, number) for number in (0, 1)]
        (scratch / "trouble").touch()
        cluster.remove_node(nodes[1])
        lost = error_of(running.result)
        wait_for(lambda: alive() == 2, 120)
        said.clear()
        gang.kill()
        gang = a_gang(Shape(cpu=2, hosts=2), store, said.append)
        ready = gang.ready()
        wait_for(lambda: said, 120)
        a_node(cluster, num_cpus=2)
        ready.result(300)
        found = {
            "nodes": len({one["node"] for one in facts}),
            "lost": lost,
            "said": said,
            "again": gang.run(stage).result(300).state,
        }
        gang.kill()
    return found


def study(folder: Path) -> dict[str, Any]:
    """A whole study by its driver, whose trainings need two hosts and whose tests need one.

    A member of one gang is killed; the same study without that says what was to come of it.
    """
    arms = {"calm": {"steps": 5}, "killed": {"steps": 5, "kills": 1}}
    found: dict[str, Any] = {}
    with a_cluster() as cluster:
        for _ in range(2):
            a_node(cluster, num_cpus=2)
        plan = in_gangs(a_plan("in-gangs", arms))
        store = Store(folder / "store")
        found["code"] = run_plan(
            plan, store, data=folder / "data", mlflow_uri="off", quiet=True, patience_seconds=0
        )
    for trial in plan.trials:
        training, test = (trial.stages[role] for role in ("multimodal", "easy_vqa"))
        rows = store.rows([training])
        found[f"{trial.arm} {trial.seed}"] = {
            "loss": float(rows["value"].iloc[-1]),
            "score": float(store.rows([test])["value"].iloc[-1]),
            "failures": [one["error"] for one in store.failures(training)],
            "first": int((store.stage_folder(training) / "first_step").read_text("utf-8")),
        }
    return found


def in_gangs(plan: Plan) -> Plan:
    """The plan with trainings that two processes run together."""
    stages = dict(plan.stages)
    for trial in plan.trials:
        one = stages[trial.stages["multimodal"]]
        stages[one.id] = having(
            one,
            run="gang_stage:train",
            code=Code(module="gang_stage", function="train"),
            code_fingerprint=code_fingerprint("gang_stage", "train"),
            resources=Resources(hosts=2),
        )
    return plan.model_copy(update={"stages": stages})


def alive() -> int:
    """How many nodes there are."""
    return sum(node["Alive"] for node in ray.nodes())


TINY = {
    "encoder": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2},
    "connector": {"kind": "average_pooling", "tokens": 4},
    "language_model": {
        **{"kind": "dense", "width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "mlp_width": 24}
    },
    "training": {
        **{"batch_size": 8, "steps": 24, "log_every": 1, "checkpoint_every": 6},
        "mesh": {"data": 4, "fsdp": 2},
    },
    "optimizer": {"warmup_steps": 2},
}


def training(folder: Path) -> dict[str, Any]:
    """A recipe's training on a mesh of 8: of one host, of two hosts, and with a process killed."""
    from ablations.plan import plan_of_one
    from mm1_jax.config.recipe import Recipe
    from mm1_jax.scale.compilation_cache import cache_variables
    from mm1_jax.workload import RECIPE

    recipe = Recipe.model_validate(TINY)
    plan = plan_of_one("tiny", RECIPE, recipe, 1, "tiny")
    stage = plan.stages[plan.main(plan.trials[0])]
    said: list[str] = []

    def gang(name: str, hosts: int) -> tuple[GangWorker, Store]:
        flags = f"--xla_force_host_platform_device_count={8 // hosts}"
        one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        shape, store = Shape(hosts=hosts), Store(folder / name)
        variables = {"XLA_FLAGS": f"{flags} {one_thread}", "JAX_PLATFORMS": "cpu"}
        variables |= cache_variables(folder / "cache")
        return a_gang(shape, store, said.append, DATA, **variables), store

    def rows(store: Store) -> dict[str, float]:
        table = store.rows([stage.id]).sort_values(["metric", "step"])
        return {f"{r.metric} {r.step}": r.value for r in table.itertuples()}

    found: dict[str, Any] = {}
    with a_cluster() as cluster:
        for _ in range(2):
            a_node(cluster, num_cpus=1)
        for name, hosts in (("one", 1), ("two", 2)):
            worker, store = gang(name, hosts)
            outcome = run(worker, stage).result(1000)
            execution = store.execution(stage.id) if outcome.state == "done" else {}
            found[name] = {
                **{key: execution.get(key) for key in ("device_count", "processes", "seconds")},
                "state": outcome.state,
                "error": outcome.error,
                "rows": rows(store),
            }
            worker.kill()
        worker, store = gang("killed", 2)
        running = run(worker, stage)
        progress = store.scratch(stage.id) / "reports.jsonl"
        wait_for(lambda: progress.exists() and progress.read_bytes().count(b"\n") > 8, 600)
        os.kill(worker.places[1].pid, signal.SIGKILL)
        found["lost"] = error_of(running.result)
        before = progress.read_bytes().count(b"\n")
        worker.kill()
        worker, store = gang("killed", 2)
        outcome = run(worker, stage).result(1000)
        found["killed"] = {"state": outcome.state, "reported": before, "rows": rows(store)}
        found["killed"]["failures"] = [one["error"] for one in store.failures(stage.id)]
        worker.kill()
    return found


def where(store: Store, stage: Stage, number: int) -> dict[str, str]:
    """What a process of the gang says of its place, once it waits."""
    file = store.scratch(stage.id) / f"waits-{number}"
    wait_for(file.exists, 300)
    return json.loads(file.read_text(encoding="utf-8"))


def error_of(result: Callable[[float], Outcome]) -> str:
    try:
        return result(300).error
    except LostError as error:
        return error.line


if __name__ == "__main__":
    scenario, folder = sys.argv[1:3]
    began = time.monotonic()
    found = globals()[scenario](Path(folder))
    print(json.dumps({**found, "seconds": time.monotonic() - began}), flush=True)
