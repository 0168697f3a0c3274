"""The same run as a Ray job on a cluster that is already there; the client may go away."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from ablations.machine import Machine
from ablations.places import local_path
from ablations.plan import Plan
from ablations.shown_text import shown_url
from sweeps import jobs, kuberay, leases, ray_jobs, reach, slurm
from sweeps.mlflow_mirror import tracking_uri
from sweeps.offer import Node
from sweeps.run import already_running
from sweeps.shipping import git_revision, shipment
from sweeps.store import Store
from sweeps.workforce import needs_of

PROBE_SECONDS = 180.0  # a cluster's first job may install or start things


def submit(
    plan: Plan,
    store: str | Path,
    *,
    cluster: str,
    data: str | Path,
    workers: int | None = None,
    mlflow_uri: str | None = None,
    many: bool = False,
    nodes: int = 1,
    sbatch: Sequence[str] = (),
    machine: Machine | None = None,
    on: str | None = None,
    priority: float = 1.0,
) -> str:
    """Register a plan and run it as a job; the job's name.

    `cluster` is the address of a Ray cluster's dashboard (http://HOST:8265), slurm:PARTITION for a
    Ray of its own on `nodes` nodes (`sbatch` are options of sbatch), or kuberay:FILE for one on
    Kubernetes that is as the file says. The job reads the plan
    from its registration in the store, so the study's files need not be on the cluster; `on` is how
    it names `machine`, `priority` weighs its share of the cluster (`sweeps.sharing`).

    Raises:
        UserError: there is no cluster, it has not what a stage needs, it cannot reach store or
            data, the study is running, or an address holds a password: everybody may read a
            job's command and its log.
    """
    found = Store(_absolute(str(store)))
    data = Path(data).absolute()
    uri = tracking_uri(found, mlflow_uri)
    _refuse_secrets("store", found.root, "its file system's variables")
    _refuse_secrets("MLflow", uri or "", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    _refuse_second(found, plan)
    words = [
        "run",
        plan.study,
        "--store",
        found.root,
        "--data",
        str(data),
        "--mlflow",
        uri or "off",
    ]
    if workers is not None:
        words += ["--workers", str(workers)]
    if on is not None:
        words += ["--on", on]
    if priority != 1.0:
        words += ["--priority", str(priority)]
    if many:
        words.append("--yes")
    if slurm.is_slurm(cluster):
        if "://" in found.root:
            raise UserError("on SLURM the store must be a folder that all nodes share, not a URL")
        found.register(plan)
        place = found.local / "slurm"
        job, log = slurm.submit(cluster, plan.study, words, place, nodes=nodes, options=sbatch)
        jobs.remember(found, plan.study, cluster, job, str(log))
        return job
    if kuberay.is_kuberay(cluster):
        job = _to_kubernetes(plan, found, words, cluster, data, machine, workers)
        jobs.remember(found, plan.study, cluster, job)
        return job
    client = ray_jobs.client(cluster)
    with shipment(plan) as code:
        environment = {
            "working_dir": str(code),
            "env_vars": _variables(),
        }
        nodes_there = _check_reach(client, environment, found.root, data)
        needs_of(plan, found.done(plan.stages), machine, workers, nodes_there)
        _refuse_second(found, plan)
        found.register(plan)
        job = ray_jobs.submit(
            client,
            entrypoint=ray_jobs.command(["mm1", *words, "--cluster", "auto"]),
            submission_id=f"mm1-{plan.study}-{secrets.token_hex(4)}",
            runtime_env=environment,
            metadata={"study": plan.study, "hash": plan.hash},
        )
    jobs.remember(found, plan.study, cluster, job)
    return job


def _to_kubernetes(
    plan: Plan,
    store: Store,
    words: Sequence[str],
    cluster: str,
    data: Path,
    machine: Machine | None,
    workers: int | None,
) -> str:
    """Register a plan and give it to KubeRay; the job's name."""
    template = kuberay.Template(cluster)
    if "://" not in store.root:
        template.refuse_unmounted("store", store.root)
    template.refuse_unmounted("data", str(data))
    if nodes := template.nodes():
        needs_of(plan, store.done(plan.stages), machine, workers, nodes)
    kuberay.refuse_silence(template)
    with shipment(plan) as folder:
        code = kuberay.put_code(store.objects, folder)
    job = kuberay.manifest(template, plan.study, words, code, _variables())
    store.register(plan)
    return kuberay.submit(job)


def _variables() -> dict[str, str]:
    return {"MM1_GIT_REVISION": git_revision(), "PYTHONUNBUFFERED": "1"}


def _refuse_second(store: Store, plan: Plan) -> None:
    holder = leases.holder(store.objects, leases.study_lease(plan.study))
    if holder is not None:
        raise UserError(already_running(plan.study, holder))


def _absolute(store: str) -> str:
    return store if "://" in store else str(local_path(store))


def _refuse_secrets(what: str, address: str, variables: str) -> None:
    if shown_url(address) != address:
        raise UserError(
            f"the {what} address {shown_url(address)} holds a secret, and everybody on a cluster "
            f"may read a job's command: give it without, and set {variables} where the cluster's "
            "processes start"
        )


def _check_reach(client: Any, environment: dict[str, Any], store: str, data: Path) -> list[Node]:
    """Run `sweeps.reach` on the cluster and refuse what it does not find; the cluster's nodes."""
    with reach.markers(store, data) as token:
        asking = ray_jobs.command(["sweeps.reach", store, str(data), token])
        job = ray_jobs.submit(client, entrypoint=asking, runtime_env=environment)
        lines = ray_jobs.outcome(client, job, PROBE_SECONDS)
    answer = next((line for line in lines if line.startswith(reach.PREFIX)), None)
    if answer is None:
        raise UserError(f"the cluster cannot run mm1: {lines[-1]}")
    reach.refuse(json.loads(answer.removeprefix(reach.PREFIX)))
    offers = next(line for line in lines if line.startswith(reach.OFFERS))
    return [Node(**node) for node in json.loads(offers.removeprefix(reach.OFFERS))]
