"""The driver: runs what is missing of a plan on a pool of workers, and only decides.

Workers write results to the store themselves, so the driver may be killed at any time; run again,
it takes over the leases of dead processes and goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ablations.plan import Plan
from mm1_jax.errors import UserError
from sweeps import leases, reach
from sweeps.mlflow_mirror import FINISH_SECONDS, MirrorProcess, is_current, tracking_uri
from sweeps.progress import Progress
from sweeps.scheduler import MAX_ATTEMPTS, Scheduler
from sweeps.shipping import git_revision, import_paths, shipment
from sweeps.store import Store

if TYPE_CHECKING:
    from sweeps.worker import Outcome

INTERRUPTED = 130
ELSEWHERE_SECONDS = 2.0  # how often stages are looked at that another run is doing


def run_plan(
    plan: Plan,
    store: Store | str | Path,
    *,
    data: str | Path,
    workers: int | None = None,
    cluster: str | None = None,
    mlflow_uri: str | None = None,
    quiet: bool = False,
    write_report: Callable[[], Path] | None = None,
) -> int:
    """Run the stages of a plan that the store does not have; the exit code 0, 1 or 130.

    Without `cluster`, on an embedded Ray with `workers` one-core workers (default: all cores).
    `write_report` is called when everything is there, and its file goes to MLflow.

    Raises:
        UserError: the study is already being run, the disk is full, the cluster cannot be used.
    """
    store = store if isinstance(store, Store) else Store(store)
    data = Path(data).absolute()
    uri = tracking_uri(store, mlflow_uri)
    lease = leases.acquire(store.objects, study_lease(plan.study))
    if lease is None:
        holder = leases.holder(store.objects, study_lease(plan.study))
        raise UserError(already_running(plan.study, holder))
    mirror = None
    try:
        store.register(plan)
        if uri is not None and not is_current(store, plan, uri):
            mirror = MirrorProcess(store, plan, uri)
        progress = Progress(plan, store, quiet=quiet)
        with Interrupt() as interrupt:
            _run_missing(plan, store, data, workers, cluster, progress, interrupt)
            code = _conclude(plan, progress, interrupt)
            if mirror is not None:
                report = write_report() if write_report and code == 0 else None
                progress.say("MLflow: writing what is left")
                trouble = mirror.finish(report, 15.0 if interrupt.requested else FINISH_SECONDS)
                if trouble is not None:
                    progress.warn(f"MLflow: {trouble}")
        return code
    finally:
        if mirror is not None:
            mirror.end()
        lease.release()


def _run_missing(
    plan: Plan,
    store: Store,
    data: Path,
    workers: int | None,
    cluster: str | None,
    progress: Progress,
    interrupt: Interrupt,
) -> None:
    """Run what the store does not have; without anything to run, without Ray."""
    done = store.done(plan.stages)
    if len(done) == len(plan.stages):
        progress.scheduler = Scheduler(plan, done, ["nobody"])
        return
    with _ray(plan, cluster, workers) as cores:
        interrupt.listen()  # Ray has put its own handlers in place
        if cluster is not None:
            with reach.markers(store.root, data) as token:
                reach.refuse(reach.missing_on_cluster(store.root, str(data), token))
        count = min(_count(workers, cores), len(plan.stages) - len(done))
        names = [f"worker {number}" for number in range(1, count + 1)]
        progress.scheduler = Scheduler(plan, done, names)
        with progress, Pool(names, store, data) as pool:
            _drive(progress.scheduler, pool, store, progress, interrupt)


def _conclude(plan: Plan, progress: Progress, interrupt: Interrupt) -> int:
    scheduler = progress.scheduler
    counts = progress.trials()
    if counts["done"] == len(plan.trials):
        progress.say(f"{plan.study}: all {len(plan.trials)} trials are there, each exactly once")
        return 0
    missing = [
        f"{trial.arm} seed {trial.seed}"
        for trial in plan.trials
        if any(scheduler.state[one] != "done" for one in trial.stages)
    ]
    progress.warn(
        f"{plan.study}: {counts['done']} of {len(plan.trials)} trials are there; "
        f"missing: {', '.join(missing[:10])}{', …' if len(missing) > 10 else ''}"
    )
    return INTERRUPTED if interrupt.requested else 1


def _drive(
    scheduler: Scheduler, pool: Pool, store: Store, progress: Progress, interrupt: Interrupt
) -> None:
    """Hand out stages and take in outcomes until nothing is left, or a stop is asked for."""
    looked = time.monotonic()
    while not scheduler.complete:
        if interrupt.requested and not pool.stopping:
            progress.say("stopping: workers save what they have (Ctrl-C again: at once)")
            pool.stop()
        if pool.stopping and not pool.busy:
            return
        if not pool.stopping:
            for worker in pool.idle():
                stage_id = scheduler.next(worker, pool.elapsed())
                if stage_id is not None:
                    pool.start(worker, scheduler.stages[stage_id])
        for worker, outcome in pool.wait(timeout=0.5):
            _take_in(scheduler, pool, progress, worker, outcome)
        if time.monotonic() - looked > ELSEWHERE_SECONDS:
            looked = time.monotonic()
            for stage_id in scheduler.in_state("elsewhere"):
                if store.is_done(stage_id):
                    scheduler.finished(stage_id)
                elif leases.holder(store.objects, store.lease_folder(stage_id)) is None:
                    scheduler.put_back(stage_id)
        progress.update(pool.elapsed())


def _take_in(
    scheduler: Scheduler, pool: Pool, progress: Progress, worker: str, outcome: Outcome
) -> None:
    match outcome.state:
        case "done":
            scheduler.finished(outcome.stage, outcome.seconds or None)
        case "elsewhere":
            scheduler.elsewhere(outcome.stage)
        case "stopped":
            scheduler.put_back(outcome.stage)
        case "disk full":
            raise UserError(
                f"the disk is full ({outcome.error}); nothing that was finished is lost, "
                "free some room and run again"
            )
        case "failed":
            again = scheduler.failed(outcome.stage, again=outcome.again)
            label = scheduler.stages[outcome.stage].label
            tried = f"attempt {scheduler.attempts[outcome.stage]} of {MAX_ATTEMPTS}"
            what = f"{tried}, is tried again" if again else f"{tried}, given up"
            progress.warn(f"failed: {label}: {outcome.error} ({what})")
    if outcome.state == "failed" and pool.replace_if_dead(worker):
        scheduler.forget(worker)


class Pool:
    """Long-lived Ray actors by name, at most one stage on each."""

    def __init__(self, names: list[str], store: Store, data: Path):
        self._names, self._store, self._data = names, store, data
        self._git_revision = git_revision()
        self._actors: dict[str, Any] = {}
        self._futures: dict[Any, tuple[str, str]] = {}  # future → worker, stage
        self._started: dict[str, float] = {}  # busy worker → since when
        self._dead: set[str] = set()
        self.stopping = False

    def __enter__(self) -> Pool:
        for name in self._names:
            self._actors[name] = self._actor()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self._actors.values():
            ray.kill(actor)

    def _actor(self) -> Any:
        import ray

        from sweeps.worker import Worker, environment

        variables = {
            **environment(self._store.local / "cache"),
            "PYTHONPATH": os.pathsep.join(import_paths()),
        }
        options: dict[str, Any] = {
            "num_cpus": 1,
            "concurrency_groups": {"control": 1},  # so that `stop` is heard while a stage runs
            "runtime_env": {"env_vars": variables},
        }
        return ray.remote(**options)(Worker).remote(
            self._store.root, str(self._data), self._git_revision
        )

    @property
    def busy(self) -> bool:
        """Whether any stage is under way."""
        return bool(self._futures)

    def idle(self) -> list[str]:
        """Workers without a stage, in order."""
        return [name for name in self._names if name not in self._started]

    def elapsed(self) -> dict[str, float]:
        """Seconds since each busy worker started its stage."""
        now = time.monotonic()
        return {name: now - since for name, since in self._started.items()}

    def start(self, worker: str, stage: Any) -> None:
        """Give an idle worker a stage."""
        future = self._actors[worker].run.remote(stage)
        self._futures[future] = worker, stage.id
        self._started[worker] = time.monotonic()

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """What was finished within `timeout` seconds; returns with the first."""
        import ray
        from ray.exceptions import RayActorError

        from sweeps.worker import Outcome

        if not self._futures:
            time.sleep(min(timeout, 0.1))
            return []
        ready, _ = ray.wait(list(self._futures), timeout=timeout)
        outcomes = []
        for future in ready:
            worker, stage_id = self._futures.pop(future)
            del self._started[worker]
            try:
                outcome = ray.get(future)
            except RayActorError as error:
                self._dead.add(worker)
                text = f"the worker process died: {' '.join(str(error).split())}"
                outcome = Outcome(stage_id, "failed", error=text)
                record = {"error": text, "traceback": "", "failed_at": time.time()}
                self._store.record_failure(stage_id, f"died-{secrets.token_hex(4)}", record)
            outcomes.append((worker, outcome))
        return outcomes

    def replace_if_dead(self, worker: str) -> bool:
        """Start a new process for a worker whose process died; whether it did."""
        if worker not in self._dead:
            return False
        self._dead.remove(worker)
        self._actors[worker] = self._actor()
        return True

    def stop(self) -> None:
        """Ask every worker to save what it has."""
        self.stopping = True
        for actor in self._actors.values():
            actor.stop.remote()


class Interrupt:
    """Ctrl-C or SIGTERM asks for a stop; a second one ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
            }
            self.listen()
        return self

    def listen(self) -> None:
        """Put the handlers in place (again)."""
        for number in self._previous:
            signal.signal(number, self._handle)

    def _handle(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ray(plan: Plan, cluster: str | None, workers: int | None) -> Generator[int]:
    """A Ray to run on, that this process already has, the cluster's, or an embedded one.

    Yields its cores. Called from the main thread: the kernel ends Ray's processes with the thread
    that started them, which is why `kill -9` of the driver leaves nothing behind.
    """
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")
    import ray

    if ray.is_initialized():
        yield int(ray.cluster_resources()["CPU"])
        return
    logs: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster is None:
        # Ray's token authentication stays on: on loopback it keeps other users of the machine
        # out. The token lives and dies with this process instead of in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init(
            address="local",
            num_cpus=workers or len(os.sched_getaffinity(0)),
            include_dashboard=False,
            object_store_memory=100 * 2**20,  # results go through the store
            _node_ip_address="127.0.0.1",
            **logs,
        )
    else:
        _probe(cluster)
        in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # then the job has shipped the code
        try:
            if in_job:
                ray.init(address=cluster, **logs)
            else:
                with shipment(plan) as code:
                    ray.init(address=cluster, runtime_env={"working_dir": str(code)}, **logs)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot use the Ray cluster at {cluster!r}: {error}") from error
    try:
        yield int(ray.cluster_resources().get("CPU", 0))
    finally:
        ray.shutdown()


def _probe(cluster: str) -> None:
    """Refuse HOST:PORT where nothing listens: Ray itself would try for minutes."""
    host, _, port = cluster.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"cannot use the Ray cluster at {cluster!r}: {error}") from error


def _count(workers: int | None, cores: int) -> int:
    """How many one-core workers; more than there are cores would wait for ever."""
    if (workers or 1) > cores:
        raise UserError(f"{workers or 1} workers need as many cores; Ray has {cores}")
    return workers or cores


def study_lease(study: str) -> str:
    """Where the lease of a study's run is (`sweeps.leases`)."""
    return f"studies/{quote(study, safe='')}/lease"


def already_running(study: str, holder: dict[str, Any] | None) -> str:
    """What to tell somebody who runs a study a second time."""
    if holder is None:
        return f"study {study!r} is just being started by another run"
    since = datetime.fromtimestamp(holder["acquired_at"]).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"study {study!r} is already being run by process {holder['pid']} on {holder['host']} "
        f"since {since}; watch it with mm1 status, or stop that one first"
    )
