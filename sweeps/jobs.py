"""The job that a study was last submitted as, kept in its store: whoever has the store finds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from ablations.errors import UserError
from ablations.schema import Config
from sweeps import kuberay, ray_jobs, slurm
from sweeps.records import study_folder
from sweeps.store import Store


class Job(Config):
    """Where a study runs by itself."""

    cluster: str  # address of a Ray cluster's dashboard, slurm:PARTITION or kuberay:FILE
    id: str
    submitted_at: str
    log: str = ""  # of a SLURM job: the file on its machines


def is_job_alone(cluster: str | None) -> bool:
    """Whether a `--cluster` takes a study as a job and in no other way."""
    return slurm.is_slurm(cluster) or kuberay.is_kuberay(cluster)


def remember(store: Store, study: str, cluster: str, job: str, log: str = "") -> None:
    """Keep what a study was submitted as."""
    record = Job(
        cluster=cluster, id=job, submitted_at=datetime.now(UTC).isoformat("T", "seconds"), log=log
    )
    store.objects.write(_place(study), record.model_dump_json().encode(), durable=True)


def last_job(store: Store, study: str) -> Job | None:
    """What a study was last submitted as; None where it never was."""
    try:
        return Job.model_validate(json.loads(store.objects.read(_place(study))))
    except FileNotFoundError:
        return None


def job_of(store: Store, study: str) -> Job:
    """What a study was last submitted as. Raises `UserError` where it never was."""
    found = last_job(store, study)
    if found is None:
        store.snapshot(study)  # tells where there is no such study
        raise UserError(f"study {study!r} was never submitted; `mm1 status` says how far it is")
    return found


def state(job: Job) -> str:
    """Of a job, in the words of its cluster."""
    if slurm.is_slurm(job.cluster):
        return slurm.state(job.id)
    if kuberay.is_kuberay(job.cluster):
        return kuberay.state(job.id)
    return ray_jobs.state(ray_jobs.client(job.cluster), job.id)


def succeeded(job: Job) -> bool:
    """Whether a job that has ended did so with exit code 0."""
    return state(job) in ("SUCCEEDED", "COMPLETED")


def follow(job: Job) -> Iterator[str]:
    """What a job has printed, and prints until it ends, in pieces."""
    if slurm.is_slurm(job.cluster):
        yield from slurm.follow(job.id, job.log)
    elif kuberay.is_kuberay(job.cluster):
        yield from kuberay.follow(job.id)
    else:
        yield from ray_jobs.follow(ray_jobs.client(job.cluster), job.id)


def stop(job: Job) -> bool:
    """Ask a job to end: SIGTERM, and SIGKILL some seconds later; whether it was still there."""
    if slurm.is_slurm(job.cluster):
        return slurm.stop(job.id)
    if kuberay.is_kuberay(job.cluster):
        return kuberay.stop(job.id)
    found = ray_jobs.client(job.cluster)
    if ray_jobs.state(found, job.id) not in ("PENDING", "RUNNING"):
        return False
    return bool(found.stop_job(job.id))


def _place(study: str) -> str:
    return f"{study_folder(study)}/job.json"
