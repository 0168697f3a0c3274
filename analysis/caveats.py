"""What stands beside a verdict, in every form of output: why a careful reader would hesitate.

One list of sentences per claim. Text, Markdown, LaTeX, JSON, the report, the dashboard and MLflow
all print it, so no form can drop a caveat that another one has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from ablations.claims import keys_of
from ablations.contrasts import ScoreKey
from ablations.deciding import claim_metrics, conditions
from ablations.metrics import LOWER, chance_of, goal_of
from ablations.verdicts import SENSITIVE_FROM, Verdict
from analysis import words
from analysis.effects import LEVEL, paired, summarize
from analysis.registry import History
from analysis.results import StudyResults, is_answerer

OWN_FAMILY = "own family"
USUAL_ALPHA = 0.05
OTHERS_NAMED = 5  # of the other registrations, by name
# Conditions and answerers that a model which has learnt something beats.
CONTROLS = ("shuffled", "no_image")
ANSWERERS = ("blind_", "majority_", "untrained_", "ngram_")


class Caveat(NamedTuple):
    """A reason to hesitate: in a word or two, for tables, and in a sentence."""

    word: str
    told: str


def caveats(results: StudyResults, verdict: Verdict) -> tuple[Caveat, ...]:
    """All that a reader must know beside a claim's verdict, the gravest first."""
    interim = results.is_interim(verdict)
    behind = results.behind(verdict.name)
    mixed = results.mixed_executions(behind)
    return (
        *_standing(results, verdict.name),
        *(Caveat("diverged", warning) for warning in verdict.warnings),
        *(() if interim else _firmness(verdict)),
        *(Caveat("mixed devices", warning) for warning in mixed),
        *(Caveat("other images", warning) for warning in results.unlike_images(behind)),
        *(() if interim else _learnt_nothing(results, verdict.name)),
        *_family(results, verdict),
        *_directions(results, verdict.name),
    )


def _standing(results: StudyResults, claim: str) -> Iterator[Caveat]:
    history = results.histories[claim]
    if history.standing == "exploratory":
        yield Caveat("exploratory", "its results were known before it was registered in this form")
    elif history.standing == "partly known":
        yield Caveat("partly known", "some of its results were there before it was registered")
    if history.others:
        yield Caveat("repeated", _tries(results, history))
    if history.elsewhere:
        named = "; ".join(one.told for one in history.elsewhere[:OTHERS_NAMED])
        more = len(history.elsewhere) - OTHERS_NAMED
        yield Caveat(
            "seen on other configs",
            f"this contrast was seen before on configs that differ, by much or by nothing: {named}"
            + (f"; and {more} more" if more > 0 else ""),
        )
    if results.gaps:
        yield Caveat("gaps in the record", "; ".join(results.gaps))
    if results.plan.alpha > USUAL_ALPHA:
        chance = words.percent(results.plan.alpha)
        yield Caveat(f"alpha {chance}", f"a wrong verdict is allowed in {chance} of studies")


def _tries(results: StudyResults, history: History) -> str:
    seen = sum(other.why == "results" for other in history.others)
    tries = len(history.others) + 1
    alpha = results.plan.alpha
    nth = f"the {words.ordinal(seen + 1)} set of results, " if seen else ""
    named = [results.tried(other) for other in history.others[:OTHERS_NAMED]]
    more = len(history.others) - len(named)
    return (
        f"{nth}one of {tries} registrations on these arms and tasks; the chance "
        f"of a false verdict among them is up to {words.percent(min(1.0, tries * alpha))}. "
        f"The others: {'; '.join(named)}" + (f"; and {more} more" if more else "")
    )


def _family(results: StudyResults, verdict: Verdict) -> Iterator[Caveat]:
    """Where the claims that are corrected for together are not those that are shown together."""
    history = results.histories[verdict.name]
    if set(history.family) != set(results.plan.claims) or history.counts.registration != (
        results.registration
    ):
        count = len(history.family)
        over = f"the {count} claims that were registered together"
        over = over if count > 1 else "this claim alone, as it was registered"
        when = history.counts.at[:16].replace("T", " ")
        told = f"Holm's correction over {over} on {when} UTC"
        if verdict.alpha != results.plan.alpha:
            told += (
                f", to a chance of {words.percent(verdict.alpha)} for any wrong verdict, not "
                f"{words.percent(results.plan.alpha)}"
            )
        yield Caveat(OWN_FAMILY, told)


def _directions(results: StudyResults, claim: str) -> Iterator[Caveat]:
    """Metrics of which less is better: an effect above zero is no improvement there."""
    for task, metric in claim_metrics(results.plan)[claim]:
        if goal_of(metric) == "minimise":
            yield Caveat(LOWER, f"{task}.{metric}")


def _firmness(verdict: Verdict) -> Iterator[Caveat]:
    if verdict.sensitive:
        what = "verdict" if verdict.n >= SENSITIVE_FROM else "sign"
        yield Caveat("sensitive", f"without one of its seeds the {what} would be another")
    if count := len(verdict.extreme_seeds):
        named = ", ".join(map(str, verdict.extreme_seeds))
        yield Caveat(
            "extreme seeds",
            f"{count} of {verdict.n} (seed {named}); where runs fail now and then, t tests err "
            "more often than they say",
        )


def _learnt_nothing(results: StudyResults, claim: str) -> Iterator[Caveat]:
    """Arms of a claim that do not beat what can be had without seeing, or without training."""
    keys = keys_of([conditions(results.plan)[claim]])
    asked = {
        (key.arm, key.task, key.shots): key
        for key in keys
        if key.condition == "intact" and not is_answerer(key.metric)
    }
    for key in asked.values():
        controls = list(_controls(results, key))
        if any(control in keys for control in controls):
            continue  # the claim is itself about the control
        for control in controls[:1]:
            sign = -1 if goal_of(key.metric) == "minimise" else 1
            lead = summarize(paired(results.score(*key), results.score(*control)))
            ahead = [sign * value > 0 for value in lead.by_seed.values()]
            beats = all(ahead) if math.isnan(lead.low) else sign * lead.low > 0 < sign * lead.high
            if lead.n and not beats:
                places = words.decimals([lead.high - lead.low], [lead.mean])
                places = words.telling_decimals(places, lead.mean, lead.low, lead.high)
                yield Caveat(
                    "control not beaten",
                    f"{key.arm} does not beat its control on {key.task} "
                    f"({_control_name(control)}: lead {words.signed(lead.mean, places)}, "
                    f"{words.percent(LEVEL)} interval "
                    f"{words.interval(lead.low, lead.high, places)}, unadjusted): it may have "
                    "learnt nothing that this claim is about",
                )


def _controls(results: StudyResults, key: ScoreKey) -> list[ScoreKey]:
    """The controls of a score that were measured, the one with the best mean first."""
    sign = 1 if goal_of(key.metric) == "minimise" else -1
    found = [key._replace(condition=condition) for condition in CONTROLS]
    found += [key._replace(metric=f"{answerer}{key.metric}") for answerer in ANSWERERS]
    found.append(key._replace(metric=chance_of(key.metric)))
    means = {one: summarize(results.score(*one)).mean for one in found if results.score(*one)}
    return sorted(means, key=lambda one: sign * means[one])


def _control_name(control: ScoreKey) -> str:
    return control.metric if control.condition == "intact" else f"{control.condition} images"
