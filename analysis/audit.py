"""The history of a study, for whoever has to believe its verdicts: what was registered and seen.

Everything comes from records of the store, each with its time. What was never written there, or
was deleted from it, is not here (`docs/trust.md`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.schema import Config
from analysis import words
from analysis.registry import Registered, tasks_of, told_seeds
from analysis.results import StudyResults
from sweeps.fsck import orphans

AMENDED_AFTER = "amended late"  # when there were results already


class Event(Config):
    """Something that happened, at a time (UTC, ISO 8601; "" where no record says when)."""

    at: str
    study: str
    what: str  # registered, amended, first result, last result, looked, failed, left out, …
    told: str


class Audit(Config):
    """What is on record about a study."""

    study: str
    hash: str
    events: tuple[Event, ...]  # in the order of time
    standings: dict[str, str]  # claim → its standing now


def audit(results: StudyResults) -> Audit:
    """The whole history of a study and of everything that could have read its answers."""
    plan = results.plan
    related = results.registry.related(plan)
    named = [one for one in related if one.plan.study == plan.study]
    others = {
        id(other.registered): other.registered
        for history in results.histories.values()
        for other in (*history.others, *history.elsewhere)
    }
    hashes = {(one.plan.study, one.registration.hash, one.at) for one in related}
    related += [
        one
        for one in others.values()
        if (one.plan.study, one.registration.hash, one.at) not in hashes
    ]
    events = [event for one in related for event in _of(one, results)]
    events += _amendments(named, results)
    events += _left_out(named, results)
    events += _set_aside(named, results)
    events += _cancelled(named, results)
    events += _orphans(results)
    events += [
        Event(at="", study=plan.study, what="not on record", told=line)
        for line in (*results.gaps, *results.removed_registrations)
    ]
    return Audit(
        study=plan.study,
        hash=plan.hash,
        events=tuple(sorted(events, key=lambda event: event.at)),
        standings={name: history.standing for name, history in results.histories.items()},
    )


def amendments(results: StudyResults) -> list[Event]:
    """What was changed from one registration of a study's name to the next, in order."""
    plan = results.plan
    named = [one for one in results.registry.related(plan) if one.plan.study == plan.study]
    return list(_amendments(named, results))


def amended_after_results(results: StudyResults) -> list[str]:
    """What of a study was changed when there were results already, a line for each time."""
    return [
        f"registered anew on {words.minute(event.at)} UTC, {event.told}"
        for event in amendments(results)
        if event.what == AMENDED_AFTER
    ]


def _cancelled(named: list[Registered], results: StudyResults) -> Iterator[Event]:
    """Trials that a run was told to leave out, whether they are there by now or not."""
    for one in named:
        records = {id(r): r for r in results.store.cancelled(one.plan).values()}
        for record in records.values():
            trials = ", ".join(f"{arm} seed {seed}" for arm, seed in record.trials)
            told = f"{trials}, by {record.by}"
            yield Event(at=record.at, study=one.plan.study, what="cancelled", told=told)


def _of(one: Registered, results: StudyResults) -> Iterator[Event]:
    plan, store = one.plan, results.store
    known = len(one.registration.known_stages)

    def event(at: str, what: str, told: str) -> Event:
        return Event(at=at, study=plan.study, what=what, told=told)

    claims = "; ".join(f"{name}: {text}" for name, text in plan.claims.items()) or "no claims"
    yield event(
        one.at,
        "registered",
        f"as {one.registration.hash}: {len(plan.arms)} arms, {told_seeds(plan.seeds)}, alpha "
        f"{plan.alpha:g}; {claims}"
        + (f"; {known} of {len(plan.stages)} stages had results" if known else ""),
    )
    times = sorted(time for stage in plan.stages if (time := results.registry.finished(stage)))
    if times:
        yield event(times[0], "first result", f"1 of {len(plan.stages)} stages")
    if len(times) > 1:
        yield event(times[-1], "last result", f"{len(times)} of {len(plan.stages)} stages")
    for look in store.looks(plan):
        yield event(look.at, "looked", f"with {look.done} of {len(plan.stages)} stages ({look.by})")
    for stage in plan.stages.values():
        failures = store.failures(stage.id)
        if failures:
            told = " ".join(str(failures[-1].get("error", "unknown")).split())
            yield event("", "failed", f"{stage.label}: {len(failures)} attempts; the last: {told}")


def _amendments(registered: list[Registered], results: StudyResults) -> Iterator[Event]:
    """What changed from one registration of the name to the next."""
    for before, after in itertools.pairwise(registered):
        seen = sum(
            (time := results.registry.finished(stage)) is not None and time < after.at
            for stage in before.plan.stages
        )
        changes = "; ".join(differences(before.plan, after.plan)) or "its code or data"
        when = f"after {seen} results" if seen else "before any result"
        what = AMENDED_AFTER if seen else "amended"
        yield Event(at=after.at, study=after.plan.study, what=what, told=f"{when}: {changes}")


def differences(before: Plan, after: Plan) -> Iterator[str]:
    """What two registrations of a study say differently."""
    if before.question != after.question:
        yield f"the question was {before.question!r}"
    labels = [{arm.name: arm.label for arm in plan.arms} for plan in (before, after)]
    for name in labels[0].keys() & labels[1].keys():
        if labels[0][name] != labels[1][name]:
            yield f"{name} was labelled {labels[0][name]!r}"
    for what, old, new in (
        ("seeds", before.seeds, after.seeds),
        ("arms", tuple(labels[0]), tuple(labels[1])),
        ("claims", tuple(before.claims), tuple(after.claims)),
    ):
        if gone := [one for one in old if one not in new]:
            yield f"{what} left out: {', '.join(map(str, gone))}"
        if added := [one for one in new if one not in old]:
            yield f"{what} added: {', '.join(map(str, added))}"
    for name in before.claims.keys() & after.claims.keys():
        said = [
            (" ".join(plan.claims[name].split()), plan.min_effects.get(name, 0.0))
            for plan in (before, after)
        ]
        if said[0] != said[1]:
            least = f" by {said[0][1]:g}" if said[0][1] else ""
            yield f"claim {name} was {said[0][0]!r}{least}"
    left_out = [{one.trial: one.reason for one in plan.excluded} for plan in (before, after)]
    for name, reason in left_out[1].items():
        if name not in left_out[0]:
            yield f"excluded {name}: {reason}"
        elif reason != left_out[0][name]:
            yield f"{name} was excluded because {left_out[0][name]!r}"
    for name in left_out[0].keys() - left_out[1].keys():
        yield f"no longer excluded: {name}"
    if before.alpha != after.alpha:
        yield f"alpha was {before.alpha:g}"
    if before.primary_metric != after.primary_metric:
        yield f"the primary metric was {'.'.join(before.primary_metric)}"
    configs = [{arm.name: arm.config for arm in plan.arms} for plan in (before, after)]
    for name in configs[0].keys() & configs[1].keys():
        if configs[0][name] != configs[1][name]:
            yield f"the config of {name} changed"


def _left_out(registered: list[Registered], results: StudyResults) -> Iterator[Event]:
    """Trials that were run under an earlier registration of the name and are not shown any more."""
    shown = set(map(results.plan.main, results.plan.trials))
    found: dict[str, tuple[str, str]] = {}
    for one in registered:
        for trial in one.plan.trials:
            stage = one.plan.main(trial)
            time = results.registry.finished(stage)
            if time and stage not in shown:
                found.setdefault(stage, (time, f"{trial.arm} seed {trial.seed}"))
    for time, named in found.values():
        yield Event(
            at=time, study=results.plan.study, what="left out", told=f"the result of {named}"
        )


def _set_aside(registered: list[Registered], results: StudyResults) -> Iterator[Event]:
    """Results that were damaged, or were made to be, so that a run does them again."""
    labels = {id_: stage.label for one in registered for id_, stage in one.plan.stages.items()}
    for stage, count in results.store.results_set_aside(labels).items():
        times = "once" if count == 1 else f"{count} times"
        yield Event(
            at="", study=results.plan.study, what="set aside", told=f"{labels[stage]}: {times}"
        )


def _orphans(results: StudyResults) -> Iterator[Event]:
    """Results in the store whose registration is gone, or that never had one."""
    tasks = tasks_of(results.plan)
    names = [one.place.rpartition("/")[2] for one in orphans(results.store) if one.kind == "note"]
    found = [name for name in names if results.store.is_done(name)]
    asked = [name for name in found if _task(name, results) in tasks]
    if asked:
        told = (
            f"{len(found)} results have no registration here; {len(asked)} of them are scores on "
            f"tasks of this study ({', '.join(name[:8] for name in asked[:3])}"
            f"{', …' if len(asked) > 3 else ''})"
        )
        yield Event(at="", study=results.plan.study, what="nobody's", told=told)


def _task(stage: str, results: StudyResults) -> str | None:
    try:
        return results.store.stage(stage).config.get("task")
    except UserError:
        return None


def told(made: Audit) -> list[str]:
    """The history as lines of text."""
    lines = [f"{made.study} as {made.hash}"]
    for event in made.events:
        when = event.at[:19].replace("T", " ") or "(no time)"
        name = "" if event.study == made.study else f"{event.study}: "
        lines.append(f"{when:<19}  {event.what:<12}  {name}{event.told}")
    lines += [f"claim {claim}: {standing}" for claim, standing in made.standings.items()]
    return lines
