"""`mm1 reproduce REPORT`: do the study of a report again, and say whether its numbers come out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations import strict_json
from ablations.errors import UserError
from mm1 import api
from mm1.options import data_option, json_option, store_option, workers_option
from mm1.terminal import say

if TYPE_CHECKING:
    from ablations.plan import Plan
    from analysis.report.carried import Carried
    from analysis.report.reproduction import Outcome
    from analysis.results import StudyResults

TOLERANCE = 0.01
INTERRUPTED = 130
MOST_LINES = 20  # of trials that differ


@click.command()
@click.argument("report", type=click.Path(path_type=Path))
@store_option
@data_option
@workers_option
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    default=None,
    help="Its file, where it names your own command, function or runner. [as it was then]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=TOLERANCE,
    show_default=True,
    help="Share of the larger number by which two may differ.",
)
@click.option("--check", is_flag=True, help="Run nothing: what is there, and what is another.")
@json_option
def reproduce(
    report: Path,
    store: str,
    data: Path | None,
    workers: int | None,
    study: Path | None,
    tolerance: float,
    check: bool,
    as_json: bool,
) -> int:
    """Do the study of a report again: rebuild it, run what is missing, compare every number.

    REPORT is what `mm1 report` wrote, in any format. Exit code 0 when every trial is there again,
    equal or within the tolerance, else 1.

    \b
    Example: mm1 reproduce demo.pdf --store /tmp/again
    """
    from analysis.report import carried

    then = carried.read(report)
    found = Found(then, tolerance, quiet=as_json)
    if then.plan is None:
        _decide_again(found)
    else:
        asked = Asked(report, store, data, workers, study, check)
        _run_again(found, then.plan, asked)
    if as_json:
        click.echo(strict_json.dumps(found.record(), indent=2))
    else:
        for line in found.summary():
            say(line)
    return INTERRUPTED if found.interrupted else int(not found.came_out)


@dataclass(frozen=True)
class Asked:
    """What was said on the command line."""

    report: Path
    store: str
    data: Path | None
    workers: int | None
    study: Path | None
    check: bool


@dataclass
class Found:
    """What came of it."""

    then: Carried
    tolerance: float
    quiet: bool
    notes: list[str] = field(default_factory=list)  # above all what is another than then
    outcomes: list[Outcome] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)  # that are others
    decided: bool = False  # whether verdicts were looked at
    interrupted: bool = False

    def note(self, line: str) -> None:
        """Say it now, once."""
        if line not in self.notes:
            self.notes.append(line)
            if not self.quiet:
                say(line)

    @property
    def came_out(self) -> bool:
        """Whether all of it is there again."""
        if self.then.plan is not None and not self.outcomes:
            return False  # nothing was compared
        lost = any(one.state in ("different", "missing") for one in self.outcomes)
        return not lost and not self.verdicts

    def summary(self) -> list[str]:
        """For people, at the end."""
        from analysis.report.methods import listed
        from analysis.report.reproduction import summary

        found = []
        if self.then.plan is not None:
            nothing = "the report has no number yet: there is nothing to compare"
            found.append(summary(self.outcomes, self.tolerance) if self.outcomes else nothing)
            odd = [one for one in self.outcomes if one.state in ("within", "different")]
            odd = sorted(odd, key=lambda one: -one.share)
            found += [f"  {one.arm} seed {one.seed}: {one.told}" for one in odd[:MOST_LINES]]
            if len(odd) > MOST_LINES:
                found.append(f"  and {len(odd) - MOST_LINES:,} more: --json has all")
            missing = [
                f"{one.arm} seed {one.seed}" for one in self.outcomes if one.state == "missing"
            ]
            if missing and len(missing) < len(self.outcomes):
                found.append(f"  missing: {listed(missing)}")
        if self.verdicts:
            found += [f"another verdict: {line}" for line in self.verdicts]
        elif self.decided and self.then.claims:
            found.append("every verdict is the same")
        return found

    def record(self) -> dict[str, Any]:
        """For programs."""
        return {
            "study": self.then.study,
            "hash": self.then.hash,
            "came_out": self.came_out,
            "tolerance": self.tolerance,
            "notes": self.notes,
            "trials": [vars(one) for one in self.outcomes],
            "verdicts_changed": self.verdicts,
        }


def _decide_again(found: Found) -> None:
    """Decide the claims on the numbers that the report carries: there is nothing to run."""
    from analysis.report.reproduction import changed_verdicts, decided_again, table_of

    then = found.then
    if then.table is None:
        raise UserError("the report carries neither a study nor a table")
    found.note(
        f"{then.study}: {len(then.numbers):,} numbers from elsewhere; how they came about cannot "
        "be repeated from here, so the claims are decided on them again"
    )
    found.verdicts = changed_verdicts(then, decided_again(then, table_of(then)))
    found.decided = True


def _run_again(found: Found, plan: Plan, asked: Asked) -> None:
    """Rebuild the study, run what is missing of it, and compare the numbers."""
    from analysis.report.carried import numbers_of
    from analysis.report.reproduction import (
        changed_stages,
        changed_verdicts,
        here,
        outcomes,
        unlike,
    )

    then, store = found.then, asked.store
    with tempfile.TemporaryDirectory(prefix="mm1-reproduce-") as folder:
        file = asked.study or _written(then, plan, Path(folder))
        made = _planned(file, then, plan)
        found.note(f"{then.study}, {then.hash}: rebuilt from {asked.report}; it means the same")
        environments = [one for kind in then.executions.values() for one in kind]
        others = changed_stages(plan, made)
        for line in (*unlike(environments, [here(then)]), *others):
            found.note(f"unlike the report: {line}")
        missing, planned = _missing(made, _results(made, then, store))
        if missing:
            place = api.store_place(store)
            found.note(f"{missing:,} of {planned:,} stages have no result in {place}")
        if missing and not asked.check:
            if asked.study is None and not plan.is_own:
                file = _written(then, plan, _place(store, plan))  # to stay
            code = api.run(
                file,
                store=store,
                data=asked.data,
                workers=asked.workers,
                mlflow_uri="off",
                many=True,
                quiet=found.quiet,
            )
            found.interrupted = code == INTERRUPTED
    results = _results(made, then, store)
    now = [] if results is None else numbers_of(results.table)
    found.outcomes = outcomes(then.numbers, now, found.tolerance)
    unequal = [one for one in found.outcomes if one.state in ("within", "different")]
    if results is None:
        return
    ran = [
        line
        for kind, facts in then.executions.items()
        for line in unlike(facts, _ran(results, kind))
    ]
    for line in ran:
        found.note(f"unlike the report: {line}")
    if unequal and not (ran or others or plan.is_own):
        found.note(
            "code, data and environment are those of the report, so its numbers should be there to "
            "the bit: mm1 fsck looks for damage"
        )
    if unequal:  # equal numbers have equal verdicts, whatever family they were shown in
        found.verdicts = changed_verdicts(then, results.judged())
    found.decided = not any(one.state == "missing" for one in found.outcomes)


def _missing(made: Plan, results: StudyResults | None) -> tuple[int, int]:
    """How many stages are to be run, and of how many; of seeds that are added, so far."""
    if results is None:
        return len(made.stages), len(made.stages)
    if results.replicated is not None and results.replicated.ended:
        return 0, len(results.plan.stages)
    wanted = results.plan.stages.keys()
    return len(wanted - results.done) or int(results.replicated is not None), len(wanted)


def _ran(results: StudyResults, kind: str) -> list[dict[str, Any]]:
    stages = results.plan.stages
    return [one for stage, one in results.executions.items() if stages[stage].kind == kind]


def _place(store: str, plan: Plan) -> Path:
    """Where the files of a study that was rebuilt are kept, beside the store's records."""
    from sweeps.store import Store

    return Store(store).local / "reproductions" / f"{plan.study}-{plan.hash[:8]}"


def _written(then: Carried, plan: Plan, folder: Path) -> Path:
    """The study as files: its text as it was, on a base that is written down whole.

    What is the user's own is no part of a report: such a study's file is taken where it was.
    Raises `UserError` where it is not there, or what is carried is no study of ours.
    """
    from ablations.study import StudyFile
    from ablations.workloads import KEY
    from ablations.yaml_files import dump_yaml, load_yaml, validate

    if plan.is_own:
        path = Path(plan.path)
        if not path.is_file():
            raise UserError(
                f"the study names a {plan.workload} of its own, and its file is not at {path}: say "
                "where it is with --study"
            )
        return path
    if then.hidden:
        raise UserError(
            "the report hides passwords or keys of addresses, so the study cannot be rebuilt from "
            "it alone: give its file with --study"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(plan.source, encoding="utf-8")
    document = load_yaml(path)
    file = validate(document, StudyFile, document.value)
    content = dict(document.value)
    if KEY in content or file.runners:  # nobody else's file says what is run here
        raise UserError(
            "the study runs code of its own, which a report does not carry: give its file with "
            "--study"
        )
    content["base"] = "base.yaml"
    content.pop("overrides", None)  # they are in the base that is written down
    if isinstance(content["seeds"], dict) and "until" not in content["seeds"]:
        content["seeds"] = list(plan.seeds)  # that were drawn
    path.write_text(dump_yaml(content), encoding="utf-8")
    base = dump_yaml(plan.arms[0].config)
    path.with_name("base.yaml").write_text(base, encoding="utf-8")
    return path


def _planned(file: Path, then: Carried, plan: Plan) -> Plan:
    """The plan of the study's file; it must mean what the report's did. Raises `UserError`."""
    from ablations.plan import make_plan
    from analysis.audit import differences
    from mm1.studies import load_study

    made = make_plan(load_study(file), many=True, fresh_set=plan.fresh_set)
    if made.study != plan.study or made.hash != plan.hash:
        told = "; ".join(differences(plan, made)) or "what decides it is read otherwise by now"
        raise UserError(
            f"{file} is another study than the report's ({made.hash}, not {plan.hash}): in the "
            f"report {told}"
        )
    return made


def _results(made: Plan, then: Carried, store: str) -> StudyResults | None:
    """What the store holds of the study; None where there is no store."""
    from analysis.results import read_results
    from sweeps.store import Registration, Store

    if not api.is_there(store):
        return None
    registration = Registration(
        study=made.study,
        hash=made.hash,
        registered_at=then.registered_at,
        known_stages=(),
        previous=(),
    )
    return read_results(made, registration, Store(store))
