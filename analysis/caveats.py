"""What stands beside a verdict, in every form of output: why a careful reader would hesitate.

One list of sentences per claim. Text, Markdown, LaTeX, JSON, the report, the dashboard and MLflow
all print it, so no form can drop a caveat that another one has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ablations.claim_grammar import Comparison, parse
from ablations.contrasts import ScoreKey
from ablations.few import few
from ablations.verdicts import SENSITIVE_FROM, Verdict
from ablations.workload import INTACT, LOWER
from analysis import exclusions, words
from analysis.controls import controls
from analysis.effects import LEVEL, paired, summarize
from analysis.registry import History
from analysis.results import StudyResults
from analysis.score_table import ScoreTable

OWN_FAMILY = "own family"
USUAL_ALPHA = 0.05
OTHERS_NAMED = 5  # of the other registrations, by name


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
        *about_alpha(verdict),
        *_excluded(results, verdict.name),
        *(Caveat("diverged", warning) for warning in verdict.warnings),
        *(() if interim else about_firmness(verdict)),
        *(Caveat("mixed devices", warning) for warning in mixed),
        *(Caveat("other images", warning) for warning in results.unlike_images(behind)),
        *(
            ()
            if interim
            else about_learning(
                results.table, results.plan.claims[verdict.name], results.claim_keys[verdict.name]
            )
        ),
        *_family(results, verdict),
        *about_directions(results.table, results.claim_keys[verdict.name]),
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
        named = few((one.told for one in history.elsewhere), OTHERS_NAMED, "; ")
        yield Caveat(
            "seen on other configs",
            f"this contrast was seen before on configs that differ, by much or by nothing: {named}",
        )
    if history.since:
        named = few(history.since, OTHERS_NAMED, "; ", results.tried)
        yield Caveat(
            "asked again since",
            f"the same arms and tasks have other results since: {named}",
        )
    if results.gaps:
        yield Caveat("gaps in the record", "; ".join(results.gaps))


def about_alpha(verdict: Verdict) -> Iterator[Caveat]:
    """Where more wrong verdicts are allowed than usual."""
    if verdict.alpha > USUAL_ALPHA:
        chance = words.percent(verdict.alpha)
        yield Caveat(f"alpha {chance}", f"a wrong verdict is allowed in {chance} of studies")


def _excluded(results: StudyResults, claim: str) -> Iterator[Caveat]:
    arms = {key.arm for key in results.claim_keys[claim]}
    for one in exclusions.told(results, arms):
        yield Caveat(*one)


def _tries(results: StudyResults, history: History) -> str:
    seen = sum(other.why == "results" for other in history.others)
    tries = len(history.others) + 1
    alpha = results.plan.alpha
    nth = f"the {words.ordinal(seen + 1)} set of results, " if seen else ""
    named = few(history.others, OTHERS_NAMED, "; ", results.tried)
    return (
        f"{nth}one of {tries} registrations on these arms and tasks; the chance "
        f"of a false verdict among them is up to {words.percent(min(1.0, tries * alpha))}. "
        f"The others: {named}"
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
        when = words.minute(history.counts.at)
        told = f"Holm's correction over {over} on {when} UTC"
        if verdict.alpha != results.plan.alpha:
            told += (
                f", to a chance of {words.percent(verdict.alpha)} for any wrong verdict, not "
                f"{words.percent(results.plan.alpha)}"
            )
        yield Caveat(OWN_FAMILY, told)


def about_directions(table: ScoreTable, keys: Iterable[ScoreKey]) -> Iterator[Caveat]:
    """Metrics of which less is better: an effect above zero is no improvement there."""
    for task, metric in sorted({(key.task, key.metric) for key in keys}):
        if table.record(task, metric).goal == "minimise":
            yield Caveat(LOWER, words.metric_name(task, metric))


def about_firmness(verdict: Verdict) -> Iterator[Caveat]:
    """Where one seed decides, or some are far from the others."""
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


def about_learning(table: ScoreTable, text: str, keys: Iterable[ScoreKey]) -> Iterator[Caveat]:
    """Arms of a claim that do not beat what can be had without seeing, or without training."""
    compared = parse(text)
    alike = any(isinstance(one, Comparison) and one.within is not None for one in compared)
    for key in keys:
        if key.condition != INTACT or not table.is_score(key.task, key.metric):
            continue
        goal = table.record(key.task, key.metric).goal
        sign = -1 if goal == "minimise" else 1
        found = [one for one in controls(table, key) if one.beaten and goal]
        means = {one: sign * summarize(table.score(*one.key)).mean for one in found}
        if alike and not means and table.score(*key):
            why = "nothing that has not learnt was scored on"
            why = why if goal else "nobody has said which way is better of"
            yield Caveat(
                "no control",
                f"{why} {words.metric_name(key.task, key.metric)}: whether {key.arm} has learnt "
                "anything is not known, and models that guess are alike too",
            )
        for control in sorted(means, key=lambda one: -means[one])[:1]:
            lead = summarize(paired(table.score(*key), table.score(*control.key)))
            ahead = [sign * value > 0 for value in lead.by_seed.values()]
            ends = sign * lead.ci_low, sign * lead.ci_high
            beats = all(ahead) if math.isnan(lead.ci_low) else min(ends) > 0
            if lead.n and not beats:
                what = control.name if control.is_own else control.key.metric
                places = words.decimals([lead.ci_high - lead.ci_low], [lead.mean])
                places = words.telling_decimals(places, lead.mean, lead.ci_low, lead.ci_high)
                yield Caveat(
                    "control not beaten",
                    f"{key.arm} does not beat its control on {key.task} "
                    f"({what}: lead {words.signed(lead.mean, places)}, "
                    f"{words.percent(LEVEL)} interval "
                    f"{words.interval(lead.ci_low, lead.ci_high, places)}, unadjusted): it may "
                    "have learnt nothing that this claim is about",
                )
