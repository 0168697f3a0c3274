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
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ablations.plan import Plan
from mm1_jax.errors import UserError
from sweeps import leases
from sweeps.mlflow_mirror import FINISH_SECONDS, MirrorProcess, is_current, tracking_uri
from sweeps.progress import Progress
from sweeps.scheduler import MAX_ATTEMPTS, Scheduler
from sweeps.store import Store

if TYPE_CHECKING:
    from sweeps.worker import Outcome

INTERRUPTED = 130
ELSEWHERE_SECONDS = 2.0  # how often stages are looked at that another run is doing
PACKAGES = ("mm1_jax", "ablations", "sweeps", "analysis", "mm1")


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
    folder = f"studies/{quote(plan.study, safe='')}/lease"
    lease = leases.acquire(store.objects, folder)
    if lease is None:
        raise UserError(_already_running(plan.study, leases.holder(store.objects, folder)))
    mirror = None
    try:
        store.register(plan)
        done = store.done(plan.stages)
        missing = len(plan.stages) - len(done)
        names = [f"worker {number}" for number in range(min(_count(workers), missing) or 1)]
        scheduler = Scheduler(plan, done, names)
        progress = Progress(plan, store, scheduler, quiet=quiet)
        if uri is not None and not is_current(store, plan, uri):
            mirror = MirrorProcess(store, plan, uri)
        with Interrupt() as interrupt:
            if missing:
                with progress, _ray(cluster, len(names)):
                    interrupt.listen()  # Ray has put its own handlers in place
                    _drive(scheduler, Pool(names, store, data), store, progress, interrupt)
            code = _conclude(plan, scheduler, progress, interrupt)
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


def _conclude(plan: Plan, scheduler: Scheduler, progress: Progress, interrupt: Interrupt) -> int:
    counts = progress.trials()
    if counts["done"] == len(plan.trials):
        progress.say(f"{plan.study}: all {len(plan.trials)} trials are there, each exactly once")
        return 0
    missing = [
        f"{trial.arm} seed {trial.seed}"
        for trial in plan.trials
        if any(
            scheduler.state[one] != "done"
            for one in (trial.train, *(one.stage for one in trial.evaluations))
        )
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
    with pool:
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
            pool.stop()
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
def _ray(cluster: str | None, workers: int) -> Generator[None]:
    """A Ray to run on: one that this process already has, the cluster, or an embedded one.

    Called from the main thread: the kernel ends Ray's processes with the thread that started them,
    which is what makes `kill -9` of the driver leave nothing behind.
    """
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    logs: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster is None:
        # Ray's token authentication stays on: on loopback it keeps other users of the machine
        # out. The token lives and dies with this process instead of in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=100 * 2**20,  # results go through the store
            _node_ip_address="127.0.0.1",
            **logs,
        )
    else:
        in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # then the job has shipped the code
        try:
            ray.init(
                address=cluster,
                runtime_env={} if in_job else {"py_modules": code_folders()},
                **logs,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot use the Ray cluster at {cluster!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _count(workers: int | None) -> int:
    return workers or len(os.sched_getaffinity(0))


def code_folders() -> list[str]:
    """Folders of the packages that a worker needs, to be shipped to a cluster."""
    import importlib.util

    folders = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            folders.append(str(Path(next(iter(spec.submodule_search_locations))).absolute()))
    return folders


def import_paths() -> list[str]:
    """Where this process finds its modules, absolute, so that any folder is good to run in."""
    ours = str(Path(__file__).resolve().parent.parent)
    paths = [ours, *(str(Path(path or ".").absolute()) for path in sys.path)]
    return [path for path in dict.fromkeys(paths) if Path(path).is_dir()]


def git_revision() -> str:
    """The commit of the code, `+` behind it if files were changed since; MM1_GIT_REVISION wins."""
    if told := os.environ.get("MM1_GIT_REVISION"):
        return told
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        commit = _output([*git, "rev-parse", "HEAD"])
        changed = _output([*git, "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _already_running(study: str, holder: dict[str, Any] | None) -> str:
    if holder is None:
        return f"study {study!r} is just being started by another run"
    since = datetime.fromtimestamp(holder["acquired_at"]).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"study {study!r} is already being run by process {holder['pid']} on {holder['host']} "
        f"since {since}; watch it with mm1 status, or stop that one first"
    )
