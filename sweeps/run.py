"""The driver: runs what is missing of a plan on a pool of workers, and only decides.

Workers write results to the store themselves, so the driver may be killed at any time; run again,
it takes over the leases of dead processes and goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ablations.errors import UserError
from ablations.machine import Machine
from ablations.plan import Plan
from ablations.resources import Shape
from sweeps import leases, reach
from sweeps.control import Control, Steering, told_trials
from sweeps.forecasts import Forecaster
from sweeps.interrupt import Interrupt
from sweeps.live import Publisher
from sweeps.measured import compile_seconds, measured_seconds
from sweeps.memory import Room
from sweeps.mlflow_mirror import MirrorProcess, is_current, tracking_uri
from sweeps.offer import offered
from sweeps.patience import patient
from sweeps.pool import Pool
from sweeps.preemption import Draining
from sweeps.progress import Progress
from sweeps.ray_session import RayEndedError, logs_place, ray_session
from sweeps.replicating import Adding, as_registered
from sweeps.rerun import failed_part
from sweeps.run_times import RunRecorder
from sweeps.scheduler import Scheduler
from sweeps.sharing import shared
from sweeps.store import Store
from sweeps.watchdog import PATIENCE_SECONDS, Watchdog
from sweeps.workforce import Workforce, needs_of

if TYPE_CHECKING:
    from sweeps.worker import Outcome

INTERRUPTED = 130
TAKEN_UP = -1  # no exit code: the study was added to, and is to be planned and run again
RAY_STARTS = 3  # of an embedded Ray whose own processes end, before the run does
NOTHING: Mapping[str, str] = MappingProxyType({})
ELSEWHERE_SECONDS = 2.0  # how often other runs' stages are looked at, and MLflow's mirror


def run_plan(
    plan: Plan,
    store: Store | str | Path,
    *,
    data: str | Path,
    workers: int | None = None,
    cluster: str | None = None,
    mlflow_uri: str | None = None,
    quiet: bool = False,
    machine: Machine | None = None,
    environment: Callable[[Shape], Mapping[str, str]] = lambda shape: NOTHING,
    write_report: Callable[[], Path] | None = None,
    write_comparison: Callable[[], Path] | None = None,
    steering: Steering | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
    failed_only: bool = False,
    priority: float = 1.0,
) -> int:
    """Run the stages of a plan that the store does not have; the exit code 0, 1, 130 or `TAKEN_UP`.

    Without `cluster`, on an embedded Ray. `workers` is how many there may be at once (default: as
    many as fit); what each holds follows from what stages need, on `machine` where one is named.
    `environment` gives variables of the processes of a worker of some shape. `write_report` is
    called when everything is there, and its file goes to MLflow. So does that of
    `write_comparison`, in JSON, which is called at the end of each run that is not interrupted: its
    verdicts, with what stands beside them, become tags of the study's run. `steering` is what was
    asked of a run that ended with `TAKEN_UP`. A stage of which nothing was heard for
    `patience_seconds`, and much longer than is usual, is ended (`sweeps.watchdog`); 0: never.
    `failed_only` leaves alone what no attempt has failed of (`sweeps.rerun`). `priority` weighs the
    study's share of a cluster against those of others (`sweeps.sharing`).

    Raises:
        UserError: the study is already being run, the disk is full, the cluster cannot be used.
    """
    store = store if isinstance(store, Store) else Store(store)
    plan = as_registered(plan, store)
    data = Path(data).absolute()
    uri = tracking_uri(store, mlflow_uri)
    lease = leases.acquire(store.objects, leases.study_lease(plan.study), watch_silent=True)
    if lease is None:
        holder = leases.holder(store.objects, leases.study_lease(plan.study))
        raise UserError(already_running(plan.study, holder))
    mirror = control = code = None
    publisher = Publisher(store.objects, plan.study, plan.hash, lease.token)
    try:
        store.register(plan)
        part = failed_part(plan, store) if failed_only else plan
        if uri is not None and not is_current(store, plan, uri):
            mirror = MirrorProcess(store, plan, uri)
        progress = Progress(part, store, quiet=quiet)
        control = Control(part, store, publisher, progress, steering or Steering())
        publisher.again("starting")
        store.objects = patient(store.objects, progress.warn)
        with Interrupt() as interrupt:
            run = _Run(
                part, store, data, workers, cluster, machine, environment, progress, interrupt,
                control, publisher, patience_seconds, priority, mirror,
            )  # fmt: skip
            _run_missing(run)
            publisher.write(progress.snapshot())
            if control.taken_up_by:
                return TAKEN_UP
            code = _conclude(run)
            comparison = None
            if uri is not None and write_comparison and code != INTERRUPTED:
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
    except UserError as error:
        publisher.notes[str(error)] = None
        raise
    finally:
        if mirror is not None:
            mirror.end()
        publisher.end(code)
        if control is not None:
            control.end()
        with contextlib.suppress(OSError):  # it then ends by its silence
            lease.release()


def _finish(
    mirror: MirrorProcess, report: Path | None, comparison: Path | None, interrupt: Interrupt
) -> str | None:
    if interrupt.requested:
        return mirror.finish(report, comparison, seconds=15.0)
    return mirror.finish(report, comparison, stop=lambda: interrupt.requested)


@dataclass
class _Run:
    """What a run consists of."""

    plan: Plan
    store: Store
    data: Path
    workers: int | None
    cluster: str | None
    machine: Machine | None
    environment: Callable[[Shape], Mapping[str, str]]
    progress: Progress
    interrupt: Interrupt
    control: Control
    publisher: Publisher
    patience_seconds: float
    priority: float
    mirror: MirrorProcess | None
    adding: Adding | None = None  # where seeds are added


def _run_missing(run: _Run) -> None:
    """Run what the store does not have; without anything to run, without Ray."""
    plan, store, progress = run.plan, run.store, run.progress
    for start in range(1, RAY_STARTS + 1):
        began_at = time.time()
        done = store.done(plan.stages)
        run.adding = Adding(plan, store, done) if plan.replication is not None else None
        withheld = run.adding.withheld if run.adding is not None else set()
        left = len(plan.stages) - len(done | withheld)
        if not left:
            progress.scheduler = Scheduler(plan, done, ["nobody"], withheld=withheld)
            return
        with ray_session(plan, store, run.cluster, run.workers) as session:
            run.interrupt.listen()  # Ray has put its own handlers in place
            if run.cluster is not None:
                with reach.markers(store.root, run.data) as token:
                    reach.refuse(reach.missing_on_cluster(store.root, str(run.data), token))
            needs = needs_of(plan, done, run.machine, run.workers, offered())
            measured = measured_seconds(store, plan, done)
            scheduler = Scheduler(
                plan, done, (), measured=measured, crews=needs.crews.of, withheld=withheld
            )
            progress.scheduler = scheduler
            try:
                with (
                    progress,
                    RunRecorder(store, plan, began_at) as recorder,
                    Pool(
                        store, run.data, run.environment, session, recorder.run, progress.say
                    ) as pool,
                    shared(session, store, plan, run.priority) as sharing,
                ):
                    workforce = Workforce(
                        needs, pool, scheduler, run.workers, recorder.joined, sharing
                    )
                    workforce.adjust(time.monotonic())  # before anything is estimated of them
                    forecaster = Forecaster(
                        store, plan, scheduler, recorder.run, began_at, measured
                    )
                    try:
                        with forecaster:
                            _drive(run, pool, recorder, forecaster, workforce)
                        return
                    finally:
                        if pool.replaced:
                            session.keep_logs(logs_place(store, plan.study))
            except RayEndedError as error:
                kept = session.keep_logs(logs_place(store, plan.study))
                logs = f"; its log files are in {kept}" if kept else ""
                if start == RAY_STARTS or not session.embedded or run.interrupt.requested:
                    raise UserError(
                        f"{error}{logs}; what was finished is kept, run again goes on"
                    ) from error
                progress.warn(f"{error}{logs}; Ray is started anew, what was running begins again")


def _conclude(run: _Run) -> int:
    plan, progress, scheduler = run.plan, run.progress, run.progress.scheduler
    trials = plan.trials if run.adding is None else run.adding.trials
    missing = [
        f"{trial.arm} seed {trial.seed}"
        for trial in trials
        if any(scheduler.state[one] != "done" for one in trial.stages.values())
    ]
    if not missing:
        left = len(plan.trials) - len(trials)
        more = f"; {left} more were not needed" if left else ""
        progress.say(f"{plan.study}: all {len(trials)} trials are there, each exactly once{more}")
        return 0
    progress.warn(
        f"{plan.study}: {len(trials) - len(missing)} of {len(trials)} trials are there; "
        f"missing: {', '.join(missing[:10])}{', …' if len(missing) > 10 else ''}"
    )
    if run.control.cancelled:
        progress.warn(f"cancelled: {told_trials(run.control.cancelled)}")
    if run.control.cancelled_by:
        progress.warn(f"{plan.study} was cancelled by {run.control.cancelled_by}")
    return INTERRUPTED if run.interrupt.requested or run.control.cancelled_by else 1


def _drive(
    run: _Run, pool: Pool, recorder: RunRecorder, forecaster: Forecaster, workforce: Workforce
) -> None:
    """Hand out stages and take in outcomes until nothing is left, or a stop is asked for."""
    store, progress, scheduler = run.store, run.progress, run.progress.scheduler
    control = run.control
    watchdog, room, draining = Watchdog(run.patience_seconds), Room(), Draining()
    looked = time.monotonic()
    while not scheduler.complete:
        pool.session.check()
        control.attend(scheduler, pool)
        if (run.interrupt.requested or control.ends) and not pool.stopping:
            progress.say("stopping: workers save what they have (Ctrl-C again: at once)")
            pool.stop()
        if pool.stopping and not pool.busy:
            return
        if not pool.stopping and not control.paused:
            if room.waiting:
                room.give(pool, scheduler, time.monotonic())
            elif told := workforce.adjust(time.monotonic()):
                progress.say(told)
            for worker in list(pool.idle) if scheduler.any_ready else ():
                if not room.is_free_for_others(worker) or not workforce.keeps(worker):
                    continue
                stage_id = scheduler.next(worker, time.monotonic())
                if stage_id is not None:
                    pool.start(worker, scheduler.stages[stage_id])
        for worker, outcome in pool.wait(timeout=0.5):
            recorder.heard(worker, outcome)
            _take_in(scheduler, room, store, progress, worker, outcome)
            if outcome.state == "done":
                forecaster.finished(outcome.stage, outcome.seconds)
        if control.paused:
            forecaster.disturbed()
        now = time.monotonic()
        if now - looked > ELSEWHERE_SECONDS:
            looked = now
            for line in run.mirror.news() if run.mirror is not None else ():
                progress.warn(f"MLflow: {line}")
            for stage_id in scheduler.in_state("elsewhere"):
                if room.is_promised(stage_id):
                    continue
                if store.is_done(stage_id):
                    scheduler.finished(stage_id)
                elif leases.holder(store.objects, store.lease_folder(stage_id)) is None:
                    scheduler.put_back(stage_id)
        if run.adding is not None:
            run.adding.release(scheduler)
        progress.state = control.state(scheduler, stopping=pool.stopping)
        progress.update()
        watchdog.look(pool, scheduler, progress.listening, now)
        if asked := draining.look(pool, now):
            progress.warn(f"a machine is being drained: {asked} workers are asked to yield")
        if progress.shown is not None and run.publisher.due():
            run.publisher.write(progress.shown)


def _take_in(
    scheduler: Scheduler,
    room: Room,
    store: Store,
    progress: Progress,
    worker: str,
    outcome: Outcome,
) -> None:
    label = scheduler.stages[outcome.stage].label
    room.over(outcome.stage)
    match outcome.state:
        case "done":
            compiled = outcome.seconds and scheduler.compiles(outcome.stage)
            once = compile_seconds(store, outcome.stage) if compiled else None
            scheduler.finished(outcome.stage, outcome.seconds or None, once)
        case "elsewhere":
            scheduler.elsewhere(outcome.stage)
        case "stopped":
            scheduler.put_back(outcome.stage)
            if outcome.leaving:
                progress.warn(f"yielded: {label}: its worker is taken away; it goes on elsewhere")
        case "lost":
            again = scheduler.lost(outcome.stage)
            what = "it goes on elsewhere, which is no failed attempt" if again else "given up"
            progress.warn(f"lost: {label}: {outcome.error} ({what})")
        case "disk full":
            raise UserError(
                f"the disk is full ({outcome.error}); nothing that was finished is lost, "
                "free some room and run again"
            )
        case "failed" if outcome.cause == "memory":
            again = scheduler.failed(outcome.stage, again=room.promise(outcome.stage))
            alone = "with nothing beside it on its machine"
            what = f"is tried once more, {alone}" if again else f"given up, also {alone}"
            progress.failed(outcome.stage, outcome.error, again=again, what=what)
            if again:
                scheduler.elsewhere(outcome.stage)  # until there is room
        case "failed":
            again = scheduler.failed(outcome.stage, again=outcome.again)
            progress.failed(outcome.stage, outcome.error, again=again)
    if outcome.renewed:
        scheduler.forget(worker)


def already_running(study: str, holder: dict[str, Any] | None) -> str:
    """What to tell somebody who runs a study a second time."""
    if holder is None:
        return f"study {study!r} is being started, or run, by another process; see mm1 status"
    since = datetime.fromtimestamp(holder["acquired_at"]).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"study {study!r} is already being run by process {holder['pid']} on {holder['host']} "
        f"since {since}; watch it with mm1 status, or stop that one first"
    )
