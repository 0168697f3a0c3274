"""`mm1 submit`, `attach` and `stop`: a study that runs by itself, and how to find it again."""

from __future__ import annotations

from pathlib import Path

import click

from ablations.shown_text import visible
from mm1 import api
from mm1.options import (
    data_option,
    machine_option,
    mlflow_option,
    priority_option,
    store_option,
    workers_option,
    yes_option,
)

cluster_help = "Address of a Ray cluster's dashboard, slurm:PARTITION, or kuberay:FILE."
nodes_option = click.option(
    "--nodes", type=click.IntRange(1), default=1, show_default=True, help="On SLURM: how many."
)
sbatch_option = click.option(
    "--sbatch",
    multiple=True,
    metavar="OPTION",
    help="On SLURM: an option of sbatch, such as --sbatch=--time=12:00:00; several times.",
)


@click.command()
@click.argument("study")
@click.option("--cluster", required=True, help=cluster_help)
@nodes_option
@sbatch_option
@store_option
@data_option
@workers_option
@priority_option
@machine_option
@mlflow_option
@yes_option
def submit(
    study: str,
    cluster: str,
    nodes: int,
    sbatch: tuple[str, ...],
    store: str,
    data: Path | None,
    workers: int | None,
    priority: float,
    machine: str | None,
    mlflow_uri: str | None,
    yes: bool,
) -> int:
    """Run a study as a job of a cluster, and return at once.

    On a Ray cluster that is there, on SLURM, whose nodes get a Ray of their own, or on Kubernetes:
    FILE is a RayJob or RayCluster of KubeRay, which says images, volumes and workers. Store and
    data must be reachable from the cluster under the same path or URL.

    \b
    Example: mm1 submit ablations/studies/demo.yaml --cluster http://127.0.0.1:8265 \\
                 --store /shared/mm1
    Example: mm1 submit ablations/studies/demo.yaml --cluster slurm:gpu --nodes 4 \\
                 --sbatch=--time=12:00:00 --store /shared/mm1
    Example: mm1 submit ablations/studies/demo.yaml --cluster kuberay:cluster.yaml \\
                 --store /shared/mm1
    """
    job = api.submit(
        study,
        cluster=cluster,
        store=store,
        data=data,
        workers=workers,
        mlflow_uri=mlflow_uri,
        many=yes,
        nodes=nodes,
        sbatch=sbatch,
        on=machine,
        priority=priority,
    )
    name = api.study_of(study)
    click.echo(
        f"submitted as {job}; mm1 attach {name} --store {store} shows what it prints, "
        f"mm1 status --store {store} how far it is, mm1 stop {name} --store {store} ends it"
    )
    return 0


@click.command()
@click.argument("study")
@store_option
def attach(study: str, store: str) -> int:
    """Show what a submitted study printed, and prints until it ends. Ctrl-C leaves it running.

    From any machine that has the store. Exit code 0 if the job succeeded, 1 if it did not.

    \b
    Example: mm1 attach demo --store /shared/mm1
    """
    from sweeps import jobs
    from sweeps.store import Store

    job = jobs.job_of(Store(store), api.study_of(study))
    for piece in jobs.follow(job):
        click.echo(visible(piece), nl=False)
    state = jobs.state(job)
    click.echo(f"job {job.id} on {job.cluster}: {state}")
    return int(not jobs.succeeded(job))


@click.command()
@click.argument("study")
@store_option
def stop(study: str, store: str) -> int:
    """Ask a submitted study to save what it has and end; `mm1 submit` goes on with it.

    \b
    Example: mm1 stop demo --store /shared/mm1
    """
    from sweeps import jobs
    from sweeps.store import Store

    job = jobs.job_of(Store(store), api.study_of(study))
    if jobs.stop(job):
        click.echo(f"job {job.id} on {job.cluster} was asked to end; mm1 attach {study} watches it")
    else:
        click.echo(f"job {job.id} on {job.cluster} has ended already: {jobs.state(job)}")
    return 0
