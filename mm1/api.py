"""What the command line does, as functions."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ablations.errors import UserError
from ablations.places import local_path

if TYPE_CHECKING:
    from ablations.machine import Machine
    from ablations.plan import Plan
    from ablations.resources import Shape
    from ablations.stages import Stage
    from ablations.study import Study
    from analysis.new_stages import New
    from analysis.results import StudyResults
    from mm1.smoke import Tried

DEFAULT_STORE = ".mm1"


def default_store() -> str:
    """`MM1_STORE`, else `.mm1` in the working directory."""
    return os.environ.get("MM1_STORE") or DEFAULT_STORE


def store_place(store: str | None = None) -> str:
    """Where a store is: its whole path, or its URL, and whether anything is there yet."""
    root = store or default_store()
    if "://" in root:
        return root
    path = local_path(root)
    return str(path) if path.exists() else f"{path}, not there yet"


def data_folder(store: str, data: Path | None = None) -> Path:
    """Where prepared data is: `data`, else a folder in the store.

    Raises `UserError` for a store that is a URL: images are read from a folder.
    """
    if data is not None:
        return data
    if "://" in store:
        raise UserError(f"the store {store} is a URL: say with --data where the prepared data is")
    return Path(store) / "data"


def compilation_cache(store: str) -> Path | str:
    """Where compiled programs are kept: a folder of this machine that a store's workers use too.

    Or where JAX's own variable says, which may be a URL.
    """
    from mm1_jax.scale.compilation_cache import FOLDER
    from sweeps.objects import make_private, open_objects

    if own := os.environ.get(FOLDER):
        return own
    folder = open_objects(store).local
    make_private(folder)
    return folder / "cache"


def plan(study: str | Path, *, store: str | None = None, many: bool = False) -> Plan:
    """Read, check and expand a study file; of the name of a study that has run, its plan.

    `many` allows more than 10,000 trials. Raises `UserError` for whatever is wrong with the file.
    """
    from ablations.study import is_file
    from mm1.studies import load_study

    if is_file(study):
        return _planned(load_study(study), store or default_store(), many)
    from sweeps.store import Store

    return Store(store or default_store()).snapshot(str(study))[0]


def _planned(study: Study, store: str, many: bool) -> Plan:
    """The plan of a study file; its fresh seeds depend on what the store has on record."""
    from ablations.plan import make_plan

    made = make_plan(study, many=many)
    if not study.file.has_fresh_seeds or not is_there(store):
        return made
    from analysis.registry import open_registry
    from sweeps.store import Store

    registry = open_registry(Store(store), made)
    known = registry.related(made)
    hashes = {one.registration.hash for one in known}
    for number in range(len(known) + 1):
        made = make_plan(study, many=many, fresh_set=number)
        if made.hash in hashes:
            break  # the study as it was registered, to be gone on with
    return made


def is_there(store: str) -> bool:
    """Whether there may be something in a store; a folder that is not there holds nothing."""
    if "://" in store:
        return True
    path = local_path(store)
    # An `OSError` now and not after a training, where what a store has in it would not fit below.
    (path / "stages" / "00" / ("0" * 64) / "done.json").exists()
    return path.exists()


def results(
    study: str | Path, *, store: str | None = None, by: str = "mm1.results"
) -> StudyResults:
    """What the store holds of a study: its name, or the path of its file.

    That somebody looked is put on record (`mm1 audit`), by the name `by`.
    """
    from analysis.results import load_results
    from mm1.origin import ORIGIN

    found = load_results(study, store or default_store(), origin=ORIGIN)
    found.looked(by)
    return found


def register(
    study: str | Path, *, store: str | None = None, out: Path | None = None, many: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Register a study before it is run; the file that says so, and what it says.

    The file is the outside time stamp: who commits or publishes it before the run can show later
    what was claimed, and on which seeds. It is written beside the study's file by default.
    """
    from ablations import strict_json
    from sweeps.store import Store

    made = plan(study, store=store, many=many)
    registration = Store(store or default_store()).register(made)
    record = {
        **_fixed(made),
        "registered_at": registration.registered_at,
        "known_stages": len(registration.known_stages),
    }
    path = out or Path(made.path).with_name(f"{made.study}.registration.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(strict_json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path, record


def _fixed(made: Plan) -> dict[str, Any]:
    """What a registration fixes, in plain values that a file can show."""
    from ablations.fingerprints import fingerprint

    return {
        "study": made.study,
        "hash": made.hash,
        "question": made.question,
        "primary_metric": ".".join(made.primary_metric),
        "alpha": made.alpha,
        "seeds": list(made.seeds),
        "claims": made.claims,
        "min_effects": made.min_effects,
        "arms": {arm.name: fingerprint([arm.label, arm.config]) for arm in made.arms},
    }


def run(
    study: str | Path,
    *,
    store: str | None = None,
    data: Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    on: str | None = None,
    mlflow_uri: str | None = None,
    many: bool = False,
    quiet: bool = False,
    notify: Sequence[str] = (),
    patience_minutes: float | None = None,
    failed_only: bool = False,
    priority: float = 1.0,
) -> int:
    """Run what is missing of a study; 0 when every trial is there, 1 when some failed.

    Without `cluster` an embedded Ray is started. `on` is the name of a machine, or the path of its
    file, whose devices the stages hold (`ablations.machine`). `notify` are addresses or commands
    that are told when the study ends, stalls or reaches a verdict (`mm1.notify`).
    A stage of which nothing is heard for `patience_minutes`, and much longer than is usual, is
    ended; 0: never. `failed_only` runs the trials of which an attempt failed, and no others.
    `priority` weighs the study's share of a cluster against those of other studies there.
    """
    from ablations.machine import load_machine
    from mm1.local import prepare_data
    from mm1.notify import Notifying, targets
    from mm1.placing import placed
    from mm1_jax.evaluation.official.checks import check_questions
    from mm1_jax.workload import data_of
    from sweeps.control import Steering
    from sweeps.jobs import is_job_alone
    from sweeps.run import TAKEN_UP, run_plan
    from sweeps.store import Store
    from sweeps.watchdog import PATIENCE_SECONDS

    if is_job_alone(cluster):
        raise UserError(
            f"a study on {cluster} is a job: mm1 submit {study} --cluster {cluster}, and then "
            "mm1 attach shows what it prints"
        )
    root = store or default_store()
    made = plan(study, store=root, many=many)
    machine = None if on is None else load_machine(on)
    data_root = data_folder(root, data)
    with Notifying(made.study, root, targets(notify)) as notifying:
        steering = Steering()
        patience = PATIENCE_SECONDS if patience_minutes is None else 60 * patience_minutes
        while True:
            if machine is not None:
                made = placed(made, machine, lambda line: print(f"mm1: {line}", file=sys.stderr))
            before = Store(root).look(made.stages)
            for line in before.damaged.values():
                print(f"mm1: warning: {line}", file=sys.stderr)
            missing = [stage for stage in made.stages.values() if stage.id not in before.sound]
            check_questions(stage.config for stage in missing if _asks_officially(stage))
            check_images([made.stages[stage_id] for stage_id in before.sound], root)
            prepare_data(filter(None, (data_of(stage.work) for stage in missing)), data_root)
            code = run_plan(
                made,
                root,
                data=data_root,
                workers=workers,
                cluster=cluster,
                mlflow_uri=mlflow_uri,
                quiet=quiet,
                machine=machine,
                environment=_environment(root),
                write_report=lambda: report(study, store=root),
                write_comparison=lambda: _written_comparison(study, root),
                steering=steering,
                patience_seconds=patience,
                failed_only=failed_only,
                priority=priority,
            )
            if code != TAKEN_UP:
                break
            made = Store(root).snapshot(made.study)[0]  # as it was added to (`mm1 add`)
        notifying.ended(code)
    # A result whose files are damaged counts as there while others run, and as not there after.
    return code or int(bool(before.damaged and Store(root).look(before.damaged).damaged))


def smoke(
    study: str | Path,
    *,
    store: str | None = None,
    data: Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    many: bool = False,
    quiet: bool = False,
) -> list[Tried]:
    """Run every compile class of a study once, for two steps; no result of it stays.

    Raises `UserError` where what is trained is the user's own, and as `run` does.
    """
    from mm1.local import prepare_data
    from mm1.smoke import short_plan
    from mm1.smoke import smoke as tried
    from mm1_jax.workload import data_of
    from sweeps.run import run_plan

    root = store or default_store()
    made = plan(study, store=root, many=many)
    data_root = data_folder(root, data)
    stages = short_plan(made)[1]
    prepare_data(filter(None, (data_of(stage.work) for stage in stages)), data_root)
    environment = _environment(root)

    def run(short: Plan, place: str) -> int:
        return run_plan(
            short,
            place,
            data=data_root,
            workers=workers,
            cluster=cluster,
            mlflow_uri="off",
            quiet=quiet,
            environment=environment,
        )

    return tried(made, root, run)


def _environment(store: str) -> Callable[[Shape], Mapping[str, str]]:
    """What workers of a shape have in their environment, with a store's compiled programs."""
    from mm1_jax.scale.execution import environment

    cache, flags = compilation_cache(store), os.environ.get("XLA_FLAGS", "")
    return lambda shape: environment(shape, cache, flags)


def _asks_officially(stage: Stage) -> bool:
    """Whether a stage is an evaluation of ours that asks an official task."""
    from mm1_jax.stage_kinds import is_ours

    return is_ours(stage.kind, stage.run) and bool(stage.config.get("official"))


def check_images(stages: Iterable[Stage], store: str) -> None:
    """Look whether finished evaluations of official tasks saw the image files that are there now.

    Raises `UserError` that names a file whose size is another one: the answers of the store are
    about other images. Files that are not there, or not of our runners, are left alone.
    """
    from mm1_jax.evaluation.official.checks import check_images
    from sweeps.store import Store

    seen: set[tuple[object, str]] = set()
    for stage in sorted(filter(_asks_officially, stages), key=lambda stage: stage.id):
        images = Store(store).execution(stage.id).get("images")
        looked = (images, stage.config["official"]["folder"])
        if images is not None and looked not in seen:
            seen.add(looked)
            check_images(stage.config, Store(store).stage_folder(stage.id))


def submit(
    study: str | Path,
    *,
    cluster: str,
    store: str | None = None,
    data: Path | None = None,
    workers: int | None = None,
    mlflow_uri: str | None = None,
    many: bool = False,
    nodes: int = 1,
    sbatch: Sequence[str] = (),
    on: str | None = None,
    priority: float = 1.0,
) -> str:
    """Run a study as a job of a Ray cluster, of SLURM or of Kubernetes; return its name at once.

    `on` and `priority` are as in `run`; a machine's file of one's own must be there on the cluster,
    under the same path.
    Raises `UserError` where the cluster, or the store from the cluster, cannot be reached.
    """
    from ablations.machine import known, load_machine
    from mm1.placing import placed
    from sweeps.submit import submit as submit_job

    root = store or default_store()
    made = plan(study, store=root, many=many)
    machine = None if on is None else load_machine(on)
    if machine is not None and on is not None:
        made = placed(made, machine, lambda line: None)  # the job tells it
        on = on if on in known() else str(Path(on).absolute())
    return submit_job(
        made,
        root,
        cluster=cluster,
        data=data_folder(root, data),
        workers=workers,
        mlflow_uri=mlflow_uri,
        many=many,
        nodes=nodes,
        sbatch=sbatch,
        machine=machine,
        on=on,
        priority=priority,
    )


def study_of(study: str | Path) -> str:
    """The name of a study: of the one in a file, or the name itself."""
    from ablations.study import is_file, study_name

    return study_name(study) if is_file(study) else str(study)


def finished_stages(made: Plan, store: str | None = None) -> set[str]:
    """Stages of a plan that the store already holds; a store that is not there holds none."""
    root = store or default_store()
    if not is_there(root):
        return set()
    from sweeps.store import Store

    return Store(root).done(made.stages)


def new_stages(made: Plan, finished: set[str], store: str | None = None) -> list[New]:
    """Why stages of a plan are new, where the store has others that were in their place."""
    root = store or default_store()
    if not is_there(root):
        return []
    from analysis.new_stages import new_stages
    from sweeps.store import Store

    return new_stages(Store(root), made, finished)


def measured_seconds(
    made: Plan, finished: set[str], store: str | None = None, machine: Machine | None = None
) -> dict[str, float]:
    """Seconds of work of some finished stages of a plan, as far as they ran on this machine.

    With an accelerator's `machine`, on such devices.
    """
    if not finished:
        return {}
    from sweeps.measured import measured_seconds
    from sweeps.store import Store

    return measured_seconds(Store(store or default_store()), made, finished, machine)


def start_seconds(made: Plan, store: str | None = None) -> float:
    """Until the first stage of a run is at work, as the study's last run took; else assumed."""
    root = store or default_store()
    if not is_there(root):
        from sweeps.scheduler import START_SECONDS

        return START_SECONDS
    from sweeps.forecasts import start_seconds
    from sweeps.store import Store

    return start_seconds(Store(root), made)


def compare(
    study: str | Path,
    *,
    store: str | None = None,
    form: str = "text",
    color: bool = False,
    registration: Path | None = None,
) -> str:
    """Effects and verdicts as `text`, `markdown`, `latex` or `json`.

    `registration` is a file that `mm1 register` wrote; a notice says whether it is of this study.
    """
    from analysis.compare import render

    found = results(study, store=store, by="mm1 compare")
    if registration is not None:
        found = dataclasses.replace(found, published=_published(found, registration))
    return render(found, form, color=color)


def _published(found: StudyResults, path: Path) -> str:
    """Whether a registration that was written to a file is that of some results."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        claimed = str(record["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--registration {path}: not a file that `mm1 register` wrote") from None
    plan = found.plan
    wrong = f"registration {path.name} does NOT match: it says"
    if claimed != plan.hash:
        return f"{wrong} {claimed}, what is shown was registered as {plan.hash}"
    # A hash that is right beside a claim that is not: somebody edited a record, or the file.
    others = [key for key, value in _fixed(plan).items() if record.get(key) != value]
    if others:
        return f"{wrong} another {', another '.join(others)} for the same hash"
    stored = found.registration.registered_at
    if record.get("registered_at") != stored:
        stored += f", where the file says {record.get('registered_at')}"
        return f"registration {path.name} matches: {claimed}; it was registered here at {stored}"
    return f"registration {path.name} matches: {claimed}"


def _written_comparison(study: str | Path, store: str) -> Path:
    """What `mm1 compare --json` prints, as a file beside the study's report."""
    from analysis.compare import render

    found = results(study, store=store, by="mm1 run")
    path = found.store.local / "reports" / f"{quote(found.plan.study, safe='')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(found, "json") + "\n", encoding="utf-8")
    return path


def report(
    study: str | Path,
    *,
    store: str | None = None,
    out: str | Path | None = None,
    form: str = "html",
) -> Path:
    """Write the study's report, one file that needs no network, and return its path.

    `form` is `html`, `md`, `pdf` or `latex`, which has its figures in a folder beside it. Without
    `out` it is in the folder `reports` of the store (LaTeX in one of its own there); of a remote
    store, of its cache on this machine.
    """
    from analysis.report.writing import check_form, usual_place, write_report

    check_form(form)
    found = results(study, store=store)
    name = quote(found.plan.study, safe="")  # whoever wrote the store named it
    path = Path(out) if out else usual_place(found.store.local / "reports", name, form)
    return write_report(found, file_to_write(path), form)


def file_to_write(path: Path) -> Path:
    """The path of a file that is to be written. Raises `UserError` where it is a folder."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; give the path of a file")
    return path
