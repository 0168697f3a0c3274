"""The driver: runs what is missing of a plan on a pool of workers, and only decides.

Workers write results to the store themselves, so the driver may be killed at any time; run again,
it takes over the leases of dead processes and goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ablations.errors import UserError
from ablations.plan import Plan
from sweeps import leases, reach
from sweeps.measured import measured_seconds
from sweeps.mlflow_mirror import MirrorProcess, is_current, tracking_uri
from sweeps.patience import patient
from sweeps.progress import Progress
from sweeps.ray_session import RayEndedError, RaySession, logs_place, ray_session
from sweeps.scheduler import MAX_ATTEMPTS, Scheduler
from sweeps.shipping import git_revision, import_paths
from sweeps.store import Store

if TYPE_CHECKING:
    from sweeps.worker import Outcome

INTERRUPTED = 130
RAY_STARTS = 3  # of an embedded Ray whose own processes end, before the run does
NOTHING: Mapping[str, str] = MappingProxyType({})
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
    environment: Mapping[str, str] = NOTHING,
    write_report: Callable[[], Path] | None = None,
    write_comparison: Callable[[], Path] | None = None,
) -> int:
    """Run the stages of a plan that the store does not have; the exit code 0, 1 or 130.

    Without `cluster`, on an embedded Ray with `workers` one-core workers (default: all cores).
    `environment` are variables of the processes that run stages. `write_report` is called when
    everything is there, and its file goes to MLflow. So does that of `write_comparison`, in JSON,
    which is called at the end of each run that is not interrupted: its verdicts, with what stands
    beside them, become tags of the study's run.

    Raises:
        UserError: the study is already being run, the disk is full, the cluster cannot be used.
    """
    store = store if isinstance(store, Store) else Store(store)
    data = Path(data).absolute()
    uri = tracking_uri(store, mlflow_uri)
    lease = leases.acquire(store.objects, study_lease(plan.study), watch_silent=True)
    if lease is None:
        holder = leases.holder(store.objects, study_lease(plan.study))
        raise UserError(already_running(plan.study, holder))
    mirror = None
    try:
        store.register(plan)
        if uri is not None and not is_current(store, plan, uri):
            mirror = MirrorProcess(store, plan, uri)
        progress = Progress(plan, store, quiet=quiet)
        store.objects = patient(store.objects, progress.warn)
        with Interrupt() as interrupt:
            _run_missing(plan, store, data, workers, cluster, environment, progress, interrupt)
            code = _conclude(plan, progress, interrupt)
            comparison = None
            if uri is not None and write_comparison and not interrupt.requested:
                comparison = write_comparison()
                if mirror is None and not is_current(store, plan, uri, comparison):
                    mirror = MirrorProcess(store, plan, uri)
            if mirror is not None:
                report = write_report() if write_report and code == 0 else None
                progress.say("MLflow: writing what is left (Ctrl-C leaves it to the next run)")
                trouble = _finish(mirror, report, comparison, interrupt)
                if trouble is not None:
                    progress.warn(f"MLflow: {trouble}")
        return code
    finally:
        if mirror is not None:
            mirror.end()
        with contextlib.suppress(OSError):  # it then ends by its silence
            lease.release()


def _finish(
    mirror: MirrorProcess, report: Path | None, comparison: Path | None, interrupt: Interrupt
) -> str | None:
    if interrupt.requested:
        return mirror.finish(report, comparison, seconds=15.0)
    return mirror.finish(report, comparison, stop=lambda: interrupt.requested)


def _run_missing(
    plan: Plan,
    store: Store,
    data: Path,
    workers: int | None,
    cluster: str | None,
    environment: Mapping[str, str],
    progress: Progress,
    interrupt: Interrupt,
) -> None:
    """Run what the store does not have; without anything to run, without Ray."""
    for start in range(1, RAY_STARTS + 1):
        done = store.done(plan.stages)
        if len(done) == len(plan.stages):
            progress.scheduler = Scheduler(plan, done, ["nobody"])
            return
        with ray_session(plan, store, cluster, workers) as session:
            interrupt.listen()  # Ray has put its own handlers in place
            if cluster is not None:
                with reach.markers(store.root, data) as token:
                    reach.refuse(reach.missing_on_cluster(store.root, str(data), token))
            count = min(_count(workers, session.cores), len(plan.stages) - len(done))
            names = [f"worker {number}" for number in range(1, count + 1)]
            measured = measured_seconds(store, plan, done)
            progress.scheduler = Scheduler(plan, done, names, measured=measured)
            try:
                with progress, Pool(names, store, data, environment, session) as pool:
                    try:
                        _drive(progress.scheduler, pool, store, progress, interrupt)
                        return
                    finally:
                        if pool.replaced:
                            session.keep_logs(logs_place(store, plan.study))
            except RayEndedError as error:
                kept = session.keep_logs(logs_place(store, plan.study))
                logs = f"; its log files are in {kept}" if kept else ""
                if start == RAY_STARTS or not session.embedded or interrupt.requested:
                    raise UserError(
                        f"{error}{logs}; what was finished is kept, run again goes on"
                    ) from error
                progress.warn(f"{error}{logs}; Ray is started anew, what was running begins again")


def _conclude(plan: Plan, progress: Progress, interrupt: Interrupt) -> int:
    scheduler = progress.scheduler
    counts = progress.trials()
    if counts["done"] == len(plan.trials):
        progress.say(f"{plan.study}: all {len(plan.trials)} trials are there, each exactly once")
        return 0
    missing = [
        f"{trial.arm} seed {trial.seed}"
        for trial in plan.trials
        if any(scheduler.state[one] != "done" for one in trial.stages.values())
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
        pool.session.check()
        if interrupt.requested and not pool.stopping:
            progress.say("stopping: workers save what they have (Ctrl-C again: at once)")
            pool.stop()
        if pool.stopping and not pool.busy:
            return
        if not pool.stopping and scheduler.any_ready:
            for worker in list(pool.idle):
                stage_id = scheduler.next(worker, time.monotonic())
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
        progress.update()


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
            look = progress.logs_command(outcome.stage)
            progress.warn(f"failed: {label}: {outcome.error} ({what}); traceback: {look}")
    if outcome.state == "failed" and pool.replace_if_dead(worker):
        scheduler.forget(worker)


class Pool:
    """Long-lived Ray actors by name, at most one stage on each."""

    def __init__(
        self,
        names: list[str],
        store: Store,
        data: Path,
        environment: Mapping[str, str],
        session: RaySession,
    ):
        self._names, self._store, self._data = names, store, data
        self._environment = environment
        self.session = session
        self._git_revision = git_revision()
        self._actors: dict[str, Any] = {}
        self._running: dict[str, str] = {}  # busy worker → stage
        # Of busy workers, with what came of the stage; Ray's own threads put it there.
        self._arrived: SimpleQueue[tuple[str, Future[Outcome]]] = SimpleQueue()
        self._dead: set[str] = set()
        self.idle = dict.fromkeys(names)  # workers without a stage
        self.replaced = 0  # workers whose process died
        self.stopping = False

    def __enter__(self) -> Pool:
        for name in self._names:
            self._actors[name] = self._actor()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self._actors.values():
            with contextlib.suppress(Exception):  # where Ray itself is gone
                ray.kill(actor)

    def _actor(self) -> Any:
        import ray

        from sweeps.worker import ONE_THREAD, Worker

        variables = {
            **ONE_THREAD,
            **self._environment,
            "PYTHONPATH": os.pathsep.join(import_paths(self._store.local / "packages")),
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
        return bool(self._running)

    def start(self, worker: str, stage: Any) -> None:
        """Give an idle worker a stage."""
        try:
            future: Future[Outcome] = self._actors[worker].run.remote(stage).future()
        except Exception:
            self.session.check()
            raise
        del self.idle[worker]
        self._running[worker] = stage.id
        future.add_done_callback(lambda future: self._arrived.put((worker, future)))

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """What was finished within `timeout` seconds; returns with the first.

        Whatever Ray says of a stage is an outcome: a process that was killed or ended itself, by
        the memory monitor too, a result that cannot be sent, an actor that cannot be started.
        """
        outcomes = []
        with contextlib.suppress(Empty):
            while True:
                worker, future = self._arrived.get(timeout=0.0 if outcomes else timeout)
                try:
                    outcome = future.result()
                except Exception as error:
                    self.session.check()  # a Ray that is gone is not the stage's failure
                    outcome = self._lost(worker, error)
                del self._running[worker]
                self.idle[worker] = None
                outcomes.append((worker, outcome))
        return outcomes

    def _lost(self, worker: str, error: Exception) -> Outcome:
        """The outcome of a stage whose worker did not answer, recorded in the worker's place."""
        import ray

        from sweeps.worker import Outcome, failure_record
        from sweeps.worker_output import printed

        stage_id = self._running[worker]
        self._dead.add(worker)
        self.replaced += 1
        with contextlib.suppress(Exception):
            ray.kill(self._actors[worker])  # it may live, in an unknown state
        text = lost_worker(error)
        process = re.search(r"\bpid[:=] ?(\d+)", str(error))
        output = self.session.worker_output(int(process[1])) if process else ""
        record = failure_record(text, f"{error}\n\n{output}")
        if said := printed(self._store.scratch(stage_id)):
            record["printed"] = said
        with contextlib.suppress(OSError, UserError):
            self._store.record_failure(stage_id, f"died-{secrets.token_hex(4)}", record)
        return Outcome(stage_id, "failed", error=record["error"])

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
            actor.stop.options(concurrency_group="control").remote()


def lost_worker(error: Exception) -> str:
    """What to tell of a worker that did not answer, in one line; Ray says it in twenty."""
    from ray import exceptions

    text = " ".join(str(error).split())
    if isinstance(error, exceptions.OutOfMemoryError):
        return f"the worker was killed because the machine ran out of memory: {text}"
    if isinstance(error, exceptions.ActorDiedError) and "creation task" not in text:
        return "the worker process died: killed, out of memory, a crash in native code, or os._exit"
    return f"the worker did not answer: {type(error).__name__}: {text}"


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
        return f"study {study!r} is being started, or run, by another process; see mm1 status"
    since = datetime.fromtimestamp(holder["acquired_at"]).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"study {study!r} is already being run by process {holder['pid']} on {holder['host']} "
        f"since {since}; watch it with mm1 status, or stop that one first"
    )
