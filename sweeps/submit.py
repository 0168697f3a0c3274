"""The same run as a Ray job on a cluster that is already there; the client may go away."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from ablations.places import local_path
from ablations.plan import Plan
from ablations.shown_text import shown_url
from sweeps import leases, reach
from sweeps.mlflow_mirror import tracking_uri
from sweeps.run import already_running, study_lease
from sweeps.shipping import git_revision, shipment
from sweeps.store import Store

START_SECONDS = 60.0
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
) -> str:
    """Register a plan and run it as a job; the job's name.

    `cluster` is the address of the cluster's dashboard (http://HOST:8265). The job reads the plan
    from its registration in the store, so the study's files need not be on the cluster.

    Raises:
        UserError: there is no cluster, it cannot reach store or data, the study is running, or an
            address holds a password: everybody may read a job's command and its log.
    """
    found = Store(_absolute(str(store)))
    data = Path(data).absolute()
    uri = tracking_uri(found, mlflow_uri)
    _refuse_secrets("store", found.root, "its file system's variables")
    _refuse_secrets("MLflow", uri or "", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    client = _client(cluster)
    with shipment(plan) as code:
        environment = {
            "working_dir": str(code),
            "env_vars": {"MM1_GIT_REVISION": git_revision(), "PYTHONUNBUFFERED": "1"},
        }
        _check_reach(client, environment, found.root, data)
        holder = leases.holder(found.objects, study_lease(plan.study))
        if holder is not None:
            raise UserError(already_running(plan.study, holder))
        found.register(plan)
        options = {"--store": found.root, "--data": str(data), "--cluster": "auto"}
        options["--mlflow"] = uri or "off"
        if workers is not None:
            options["--workers"] = str(workers)
        words = ["mm1", "run", plan.study]
        words += [word for option in options.items() for word in option]
        if many:
            words.append("--yes")
        return _submit(
            client,
            entrypoint=_command(words),
            submission_id=f"mm1-{plan.study}-{secrets.token_hex(4)}",
            runtime_env=environment,
            metadata={"study": plan.study, "hash": plan.hash},
        )


def _absolute(store: str) -> str:
    return store if "://" in store else str(local_path(store))


def _refuse_secrets(what: str, address: str, variables: str) -> None:
    if shown_url(address) != address:
        raise UserError(
            f"the {what} address {shown_url(address)} holds a secret, and everybody on a cluster "
            f"may read a job's command: give it without, and set {variables} where the cluster's "
            "processes start"
        )


def _client(cluster: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(cluster)
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise UserError(
            f"cannot reach a Ray cluster at {shown_url(cluster)}: {line}; "
            "give the address of its dashboard, like http://127.0.0.1:8265"
        ) from error
    logging.getLogger("ray").setLevel(logging.WARNING)  # no line per package that is sent
    return client


def _submit(client: Any, **job: Any) -> str:
    """Submit a job; a cluster that has just been started needs a moment to take one."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return client.submit_job(**job)
        except RuntimeError as error:
            if "try again" not in str(error) or time.monotonic() > deadline:
                line = str(error).strip().partition("\n")[0]
                raise UserError(f"the cluster does not take the job: {line}") from error
            time.sleep(1.0)
        except OSError as error:  # the server went away
            raise UserError(f"the cluster does not take the job: {error}") from error


def _command(words: list[str]) -> str:
    """`python -m …`, with this environment's python where the cluster has it at the same path."""
    python = f"$(command -v {shlex.quote(sys.executable)} || echo python)"
    return f"{python} -m {shlex.join(words)}"


def _check_reach(client: Any, environment: dict[str, Any], store: str, data: Path) -> None:
    """Run `sweeps.reach` on the cluster and refuse what it does not find."""
    with reach.markers(store, data) as token:
        words = ["sweeps.reach", store, str(data), token]
        job = _submit(client, entrypoint=_command(words), runtime_env=environment)
        deadline = time.monotonic() + PROBE_SECONDS
        try:
            while not client.get_job_status(job).is_terminal():
                if time.monotonic() > deadline:
                    client.stop_job(job)
                    raise UserError(f"the cluster did not answer within {PROBE_SECONDS:.0f} s")
                time.sleep(0.5)
            lines = client.get_job_logs(job).splitlines()
        except (OSError, RuntimeError) as error:  # requests' errors are OSError
            line = str(error).strip().partition("\n")[0]
            raise UserError(f"the cluster does not answer any more: {line}") from error
    answer = next((line for line in lines if line.startswith(reach.PREFIX)), None)
    if answer is None:
        last = lines[-1] if lines else client.get_job_info(job).message
        raise UserError(f"the cluster cannot run mm1: {last}")
    reach.refuse(json.loads(answer.removeprefix(reach.PREFIX)))
