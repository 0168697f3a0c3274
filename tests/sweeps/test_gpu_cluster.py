"""A cluster whose nodes declare GPUs, on a machine without any: who sees what, and who waits.

It is in a process of its own, because this one may have a Ray already.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # three nodes and ten workers
HERE = str(Path(__file__).parent)
# The head has cores alone, the others 4 and 2 GPUs.
DRIVER = f"""
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {HERE!r})
from sweeps.ray_session import LOOPBACK, SETTINGS, private_folder, waiting_for_node
os.environ |= SETTINGS | LOOPBACK | {{
    "RAY_AUTH_TOKEN": "f" * 64,
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_agent_register_timeout_ms": "300000",  # on a busy machine
}}
import ray
from ray.cluster_utils import Cluster
from ablations.errors import UserError
from ablations.resources import Resources
from noop_stage import a_plan, having
from sweeps.run import run_plan
from sweeps.store import Store

def needing(name, arms):
    plan = a_plan(name, {{arm: config for arm, (config, _) in arms.items()}}, seeds=(1,))
    stages = dict(plan.stages)
    for trial in plan.trials:
        one = stages[trial.stages["multimodal"]]
        need = arms[trial.arm][1]
        stages[one.id] = having(
            one, resources=need, run="seeing_stage:train", compile_class=trial.arm
        )
        test = stages[trial.stages["easy_vqa"]]
        stages[test.id] = having(test, resources=need, run="seeing_stage:train")
    return plan.model_copy(update={{"stages": stages}})

def run(plan, **options):
    store = Store(root / plan.study)
    data = root / (plan.study + " data")
    try:
        code = run_plan(plan, store, data=data, mlflow_uri="off", quiet=True, **options)
    except UserError as error:
        return str(error)
    assert code == 0, plan.study
    found = {{}}
    for trial in plan.trials:
        for role, stage in trial.stages.items():
            said = store.execution(stage)
            found[trial.arm + " " + role] = {{**said["sees"], "ended": said["ended"]}}
    return found

root = Path(sys.argv[1])
with private_folder() as folder, waiting_for_node(Path("/tmp"), time.monotonic() + 300):
    Path("/tmp/ray").mkdir(exist_ok=True)  # where it writes its address, whatever it is told
    cluster = Cluster()
    cluster.add_node(
        wait=False, num_cpus=1, temp_dir=str(folder / "r"), include_dashboard=False
    )
    ray.init(address=cluster.address, log_to_driver=False)
    for cores, gpus in ((8, 4), (4, 2)):
        cluster.add_node(
            wait=False, num_cpus=cores, num_gpus=gpus, object_store_memory=80 * 2**20
        )
        while sum(node["Alive"] for node in ray.nodes()) < (2 if cores == 8 else 3):
            time.sleep(0.2)
    one, half = Resources(gpu=1), Resources(gpu=0.5, cpu=1)
    mixed = {{f"one {{n}}": ({{"together": 6}}, one) for n in range(4)}}
    mixed |= {{f"half {{n}}": ({{"together": 6}}, half) for n in range(2)}}
    mixed |= {{"all 1": ({{}}, Resources(gpu=4)), "all 2": ({{}}, Resources(gpu=4))}}
    mixed |= {{"cores": ({{}}, Resources(gpu=0))}}
    answers = {{
        "mixed": run(needing("mixed", mixed)),
        "many": run(needing("many", {{"base": ({{}}, Resources(gpu=8))}})),
        "workers": run(needing("workers", {{"base": ({{}}, one)}}), workers=7),
    }}
    print(json.dumps(answers))
    sys.stdout.flush()
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path_factory.mktemp("gpus"))],
        capture_output=True,
        encoding="utf-8",
        timeout=900,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([HERE, *sys.path])},
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_each_worker_sees_its_gpus_and_nobody_elses(answers):
    seen = answers["mixed"]
    assert len(seen) == 18
    shares: dict[tuple[str, str], list] = collections.defaultdict(list)
    for name, one in seen.items():
        share = 0.5 if name.startswith("half") else 1.0
        gpus = [gpu for gpu in one["gpus"].split(",") if gpu]
        assert len(gpus) == {"all": 4, "cor": 0}.get(name[:3], 1), name
        for gpu in gpus:
            shares[one["node"], gpu].append((one["began"], one["ended"], share))
    assert len(shares) == 6
    for held in shares.values():
        for began, _, _ in held:  # the most is held when somebody begins
            assert sum(share for start, end, share in held if start <= began < end) <= 1.0


def test_shares_of_a_gpu_and_cores_that_go_with_one(answers):
    halves = [one for name, one in answers["mixed"].items() if name.startswith("half")]
    assert {one["memory_share"] for one in halves} == {"0.450"}
    assert {one["threads"] for one in halves} == {"1"}
    whole = [one for name, one in answers["mixed"].items() if name.startswith("one")]
    assert {one["memory_share"] for one in whole} == {None}
    assert len({(one["node"], one["gpus"], one["process"]) for one in whole}) <= 6


def test_one_that_takes_a_node_whole_waits_until_that_is_empty(answers):
    """And workers are ended to make room for it."""
    first, second = (answers["mixed"][f"all {n} multimodal"] for n in (1, 2))
    assert first["node"] == second["node"]
    assert first["ended"] <= second["began"] or second["ended"] <= first["began"]
    for n in (1, 2):  # what it is asked follows where it was trained
        trained, asked = (answers["mixed"][f"all {n} {r}"] for r in ("multimodal", "easy_vqa"))
        assert trained["process"] == asked["process"]


def test_what_is_impossible_is_refused_with_what_there_is(answers):
    said = answers["many"]
    assert said.startswith("base seed 1: train needs 8 GPUs, 8 cores; the cluster has 1 node with")
    kinds = [part.split(", ")[0] for part in said.partition("has ")[2].split("; ")]
    assert sorted(kinds) == ["1 node with 1 core", "1 node with 2 GPUs", "1 node with 4 GPUs"]
    assert answers["workers"].startswith("7 workers do not fit, 6 do: each holds 1 GPU, 1 core")
