"""How a study was done, in sentences that can be pasted into a paper's methods section.

Every sentence follows from a record or from the numbers themselves; where neither says that
something was done, there is no sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ablations.adaptive_seeds import Budget
from ablations.claim_grammar import Comparison as Compared
from ablations.claim_grammar import parse
from ablations.errors import UserError
from ablations.few import few
from ablations.workload import INTACT
from analysis import exclusions, words
from analysis.audit import amendments
from analysis.compare import Comparison, family, primary
from analysis.results import EXECUTION_CLASS, StudyResults
from analysis.score_table import ScoreTable

NAMED = 10  # names in a sentence; of more, how many


def methods(made: Comparison, table: ScoreTable, results: StudyResults | None) -> list[str]:
    """Paragraphs: design; scores and tests; registration and deviations; computation."""
    found = [_design(made, table, results), _analysis(made, table, results)]
    if results is None:
        found.append(_elsewhere(made, table))
    else:
        found += [_record(made, results), _computation(made, results)]
    return [" ".join(sentences) for sentences in found if sentences]


def listed(names: Iterable[object], most: int = NAMED) -> str:
    """`a, b and c`; of many, the first and how many more."""
    texts = [str(name) for name in names]
    if len(texts) > most:
        return few(texts, most)
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def counted(number: int, noun: str) -> str:
    """`1 arm`, `2 arms`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


# -- what was compared -------------------------------------------------------------------------


def _design(made: Comparison, table: ScoreTable, results: StudyResults | None) -> list[str]:
    arms, factors = table.design.arms, table.design.factors
    base = arms[table.base]
    varied = [sum(levels.get(f) != base.get(f) for f in factors) for levels in arms.values()]
    whole = math.prod(map(len, factors.values()))
    named = (
        f"{name} ({', '.join(map(str, levels[:NAMED]))}"
        + (f", … {len(levels)} levels" if len(levels) > NAMED else "")
        + ")"
        for name, levels in factors.items()
    )
    told = few(named, NAMED, "; ")
    if len(arms) == 1 or not factors:
        how = f"The study has {counted(len(arms), 'arm')}"
    elif list(factors) == ["arm"]:
        how = f"The study compares {counted(len(arms), 'arm')} that were listed one by one: {told}"
    elif len(factors) == 1:
        how = f"The study compares {counted(len(arms), 'arm')} that differ in one factor: {told}"
    elif max(varied) <= 1:
        how = (
            f"The study compares {counted(len(arms), 'arm')} in a one-factor-at-a-time design: "
            f"{told}"
        )
    elif len(arms) == whole:
        how = f"The study compares {counted(len(arms), 'arm')}, a full factorial design: {told}"
    else:
        how = (
            f"The study compares {counted(len(arms), 'arm')} of the {whole:,} combinations of "
            f"{counted(len(factors), 'factor')}: {told}"
        )
    found = [f"{how}."]
    if factors:
        found.append("The level named first is the base's.")
    if table.null_arms:
        found.append(
            f"{counted(len(table.null_arms), 'null arm')} "
            f"{'repeats' if len(table.null_arms) == 1 else 'repeat'} the base with other first "
            "weights and the same data."
        )
    found += _seeds(made, table, results)
    return found


def _seeds(made: Comparison, table: ScoreTable, results: StudyResults | None) -> list[str]:
    seeds = made.seeds
    named = f" ({_ranges(seeds)})"
    if made.replication is not None and results is not None:
        rule = made.replication
        found = [
            f"Seeds were added by results: every arm began with {rule['initial']} and no claim "
            f"has more than {rule['most']} ({rule['method']}; lookahead {rule['lookahead']}"
            + "".join(f", budget {told}" for told in Budget(**rule.get("budget", {})).told)
            + ")."
        ]
    elif results is None and len(seeds) < 2:
        found = ["There is one run of each arm."]
    elif results is None and _unlike_seeds(table):
        found = [f"There are {counted(len(seeds), 'seed')}{named}, of which not every arm has all."]
    else:
        found = [f"Every arm has the same {counted(len(seeds), 'seed')}{named}."]
    if len(seeds) > 1:
        found.append("Arms are compared seed by seed (paired).")
    if results is None:
        return found
    plan = results.plan
    shared = list(dict.fromkeys(what for arm in plan.arms for what in arm.shared))
    drawn = [what for arm in plan.arms for one in arm.answers for what in one.drawn]
    common = listed(dict.fromkeys([*shared, *drawn]))
    if plan.is_own:
        found.append("The seed is handed to the training, which draws from it what it draws.")
    elif shared:
        found.append("A trial's seed goes through all of its stages, but for what is fixed.")
    else:
        found.append(
            "A trial's seed goes through all of its stages: first weights and the order of the "
            "data follow from it."
        )
    found += [f"All seeds have in common: {common}."] if common else []
    found.append(shortened(made.completeness.line))
    return found


def _unlike_seeds(table: ScoreTable) -> bool:
    """Whether an arm lacks a seed in one of the metrics."""
    return any(set(own) != set(table.seeds) for own in table.scores.values())


def _ranges(seeds: Sequence[int]) -> str:
    """`0 to 4`, `1, 5, 9`."""
    if len(seeds) > 3 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return listed(seeds)


def shortened(line: str, most: int = 500) -> str:
    """A sentence that lists things, cut where it lists very many, and saying so."""
    if len(line) <= most:
        return line
    return f"{line[:most].rsplit(' ', 1)[0]} … (cut here; mm1 status names all)."


# -- how it was analysed -----------------------------------------------------------------------


def _analysis(made: Comparison, table: ScoreTable, results: StudyResults | None) -> list[str]:
    record = table.record(*table.primary[:2])
    unit = f", in {record.unit}" if record.unit else ""
    better = {"maximise": "higher is better", "minimise": "", None: "no direction declared"}
    way = better[record.goal]
    way = f", {way}" if way else ""
    found = [f"The primary metric is {primary(made)}{unit}{way}{_items(results)}."]
    names = list(dict.fromkeys(one.control for one in made.controls if math.isfinite(one.mean)))
    if names:
        found.append(f"Controls: {listed(names)}.")
    if made.claims:
        found += _claims(made)
    if made.effects and max(one.n for one in made.effects) > 1:
        found.append(
            "Effects of factor levels are means over seeds of paired differences to the base "
            f"level, with {words.percent(made.effects[0].ci_level)} t intervals that are "
            "unadjusted and descriptive."
        )
    elif made.effects:
        found.append(
            "Effects of factor levels are differences to the base level; with one seed there is "
            "no interval."
        )
    if made.noise_floor is not None:
        size = words.number(made.noise_floor, words.decimals([made.noise_floor]))
        found.append(
            f"The noise floor, the SD of the paired difference of null arms and base, is {size} "
            f"({primary(made)})."
        )
    return found


def _items(results: StudyResults | None) -> str:
    """On how many items the primary metric is, where all arms and seeds have the same number."""
    if results is None:
        return ""
    rows = results.evaluations
    task, metric, shots = results.primary
    mine = rows[(rows["task"] == task) & (rows["metric"] == metric) & (rows["shots"] == shots)]
    mine = mine[mine["condition"] == INTACT]
    counts = {int(one) for one in mine["n_items"].dropna().unique() if one > 0}
    return f", over {counted(counts.pop(), 'item')}" if len(counts) == 1 else ""


def _claims(made: Comparison) -> list[str]:
    count = len(made.claims)
    written = few((f"{one.name}: {one.text}" for one in made.claims), NAMED, "; ")
    found = [f"The study makes {counted(count, 'claim')}: {written}.", family(made)]
    if max(claim.n for claim in made.claims) < 2 and len(made.seeds) < 2:
        return [found[0], "With one seed there is nothing to test: no claim has a verdict."]
    if any(_is_equivalence(claim.text) for claim in made.claims):
        found.append(
            "Claims that two things are equal within a margin are decided by two one-sided tests "
            "against the margin's ends."
        )
    outcomes = {
        word: [claim.name for claim in made.claims if (claim.interim, claim.verdict) == key]
        for word, key in {
            "supported": (False, "supported"),
            "refuted": (False, "refuted"),
            "undecided": (False, "undecided"),
        }.items()
    }
    open_ = [claim.name for claim in made.claims if claim.interim]
    if open_:
        outcomes["without a verdict while seeds are missing"] = open_
    told = [
        f"{len(names)} {'is' if len(names) == 1 else 'are'} {word}"
        for word, names in outcomes.items()
        if names
    ]
    found.append(f"Of the claims {listed(told)}." if count > 1 else f"The claim {told[0][2:]}.")
    return found


def _is_equivalence(text: str) -> bool:
    try:
        parts = parse(text)
    except UserError:
        return False
    return any(isinstance(one, Compared) and one.within is not None for one in parts)


def _elsewhere(made: Comparison, table: ScoreTable) -> list[str]:
    """What can be said of numbers that nobody here saw being made."""
    found = ["The scores were made elsewhere, and how they came about is not on record here."]
    if made.registered_at:
        at = words.minute(made.registered_at)
        found.append(f"The claims were registered as {made.hash} on {at} UTC.")
    if made.claims:
        standings = dict.fromkeys(claim.standing for claim in made.claims)
        found.append(f"Standing of the claims: {listed(standings)}.")
    if table.excluded:
        named = listed(f"{arm} seed {seed}" for arm, seed in sorted(table.excluded))
        found.append(f"Left out: {named}; the reasons are among the warnings.")
    return found


# -- what is on record -------------------------------------------------------------------------


def _record(made: Comparison, results: StudyResults) -> list[str]:
    registration, plan = results.registration, results.whole
    when = f"on {words.minute(registration.registered_at)} UTC"
    known, begun = len(registration.known_stages), len(registration.begun_stages)
    if known or begun:
        before = [f"{known} of its {len(plan.stages)} stages had results"] if known else []
        before += [f"{begun} were under way"] if begun else []
        state = f", when {' and '.join(before)}"
    else:
        state = ", before any of its stages had a result in this store"
    found = [f"The study was registered as {registration.hash} {when}{state}."]
    if made.claims:
        standings: dict[str, list[str]] = {}
        for claim in made.claims:
            standings.setdefault(claim.standing, []).append(claim.name)
        told = "; ".join(f"{standing}: {listed(names)}" for standing, names in standings.items())
        found.append(f"Standing of the claims: {told}.")
    changed = amendments(results)
    if changed:
        times = (f"on {words.minute(one.at)} UTC, {one.told}" for one in changed)
        found.append(f"It was registered anew {few(times, NAMED, '; ')}.")
    else:
        found.append("No other registration of its name is on record in this store.")
    left_out = exclusions.told(results)
    told = "; ".join(one.told for one in left_out)
    found.append(f"Left out: {told}." if told else "No trial was excluded.")
    found += _deviations(results)
    return found


def _deviations(results: StudyResults) -> list[str]:
    found = []
    if lost := results.diverged:
        named = listed(f"{arm} seed {seed}" for arm, seed in lost)
        found.append(
            f"{counted(len(lost), 'trial')} diverged ({named}); where a metric declares a worst "
            "value the trial has that, and where it does not the claims on it are undecided."
        )
    told = [*results.tried_again(), *results.mixed_executions(), *results.unlike_images()]
    told += results.damage_lines
    told += [*results.gaps, *results.removed_registrations]
    if told:
        found.append(f"Also on record: {'; '.join(told)}.")
    if not found and results.trials_there:
        found.append(
            "Of what is there no trial diverged, no stage had failed before it gave its result, "
            "and none that are compared ran on unlike devices or libraries."
        )
    return found


def _computation(made: Comparison, results: StudyResults) -> list[str]:
    ran = results.executions
    if not ran:
        return []
    facts = {}
    for key in EXECUTION_CLASS:
        values = dict.fromkeys(plain(one[key]) for one in ran.values() if key in one)
        if values:
            facts[key] = " or ".join(sorted(values))
    told = [f"{key.replace('_', ' ')} {value}" for key, value in facts.items()]
    on = f", on: {'; '.join(told)}" if told else ""
    took = f"{counted(len(ran), 'stage')} took {words.duration(made.seconds)} of work in all"
    found = [f"{took}, imports and compilation included{on}."]
    if made.flops is not None:
        found.append(f"Planned for the whole study: {words.count(made.flops)}FLOP.")
    return found


def plain(value: object) -> str:
    """A fact of an execution record as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return str(value)
