"""Whether two measures put arms in the same order: two stages, two scales, two tasks.

A lesson from a small run or an early stage transfers if it ranks arms as the large run or the last
stage does. Noise alone keeps two rankings apart, so each agreement stands beside its ceiling: what
two seeds of one and the same measure agree on. Which arms were run is taken as given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas

from ablations.contrasts import ScoreKey
from ablations.errors import UserError
from analysis.score_table import Form, ScoreTable
from analysis.statistics.per_seed import (
    contrast,
    known_factor,
    of_vector,
    primary_form,
    sign_of,
    two_sided,
    words_of,
)
from analysis.words import metric_name

COLUMNS = (
    *("first", "second", "arms", "seeds", "kendall", "kendall_p", "spearman"),
    *("by_seed", "by_seed_low", "by_seed_high", "ceiling_first", "ceiling_second"),
    *("best_agrees", "regret", "separated", "reversed"),
)


def rank_agreement(
    first: ScoreTable,
    second: ScoreTable,
    first_form: Form | None = None,
    second_form: Form | None = None,
    arms: Mapping[str, str] | None = None,
) -> pandas.DataFrame:
    """How far two measures order the same arms alike, in one row.

    `first` and `second` may be one table with two forms (stages, tasks) or two tables (scales);
    arms are matched by name, or by `arms`: name in the first → name in the second. Lower-is-better
    metrics are turned round.

    Columns:
        first, second     the two measures, as `task.metric`
        arms, seeds       that both have; seeds of the fewer
        kendall           Kendall's τ-b of the arms' means: 1 the same order, -1 the reverse
        kendall_p         two-sided, exact without ties: as far from 0 if orders were unrelated
        spearman          Spearman's ρ of the means
        by_seed           mean over shared seeds of each seed's τ: what one seed of each tells
        by_seed_low, by_seed_high     its 95 % t interval over seeds; descriptive: τ has bounds
        ceiling_first, ceiling_second mean τ between seeds of one measure; `by_seed` above it is
                          as good as it can be seen to be
        best_agrees       whether the best arm is the same
        regret            score that is lost, in the second's unit, by taking the first's best arm
        separated         pairs of arms whose order both measures tell (p ≤ 0.05, uncorrected)
        reversed          of these, pairs that the two tell the other way round

    Raises:
        UserError: fewer than three arms that both have scores of.
    """
    a_form, b_form = first_form or primary_form(first), second_form or primary_form(second)
    names = arms or {arm: arm for arm in first.design.arms if arm in second.design.arms}
    a = _Measure.of(first, a_form, list(names))
    b = _Measure.of(second, b_form, list(names.values()))
    both = a.there & b.there
    if both.sum() < 3:
        raise UserError(f"{int(both.sum())} arms have both scores; an order needs three")
    a, b = a.only(both), b.only(both)
    from scipy.stats import kendalltau, spearmanr

    means_a, means_b = a.means(), b.means()
    tau = kendalltau(means_a, means_b)
    shared = [seed for seed in a.seeds if seed in b.seeds]
    by_seed = of_vector(
        [
            t
            for seed in shared
            if math.isfinite(t := float(kendalltau(a.seeds[seed], b.seeds[seed]).statistic))
        ]
    )
    separated = a.order() * b.order()
    taken, best = int(np.argmax(means_a)), int(np.argmax(means_b))
    row = {
        "first": metric_name(*a_form[:2]),
        "second": metric_name(*b_form[:2]),
        "arms": int(both.sum()),
        "seeds": min(len(a.seeds), len(b.seeds)),
        "kendall": float(tau.statistic),
        "kendall_p": float(tau.pvalue),
        "spearman": float(spearmanr(means_a, means_b).statistic),
        "by_seed": by_seed.mean,
        "by_seed_low": by_seed.ci_low,
        "by_seed_high": by_seed.ci_high,
        "ceiling_first": a.ceiling(),
        "ceiling_second": b.ceiling(),
        "best_agrees": taken == best,
        "regret": float(means_b[best] - means_b[taken]),
        "separated": int(np.abs(separated).sum()),
        "reversed": int((separated < 0).sum()),
    }
    return pandas.DataFrame([row], columns=list(COLUMNS))


class _Measure:
    """Scores of arms in one form, higher is better: seed → one per arm, NaN where there is none."""

    def __init__(
        self, table: ScoreTable, form: Form, arms: Sequence[str], seeds: Mapping[int, np.ndarray]
    ):
        self.table, self.form, self.arms, self.seeds = table, form, tuple(arms), seeds

    @classmethod
    def of(cls, table: ScoreTable, form: Form, arms: Sequence[str]) -> _Measure:
        sign = sign_of(table, form)
        scores = [table.scores.get(ScoreKey(arm, *form), {}) for arm in arms]
        seeds = {
            seed: sign * np.array([one.get(seed, math.nan) for one in scores])
            for seed in table.seeds
        }
        return cls(table, form, arms, {s: v for s, v in seeds.items() if np.isfinite(v).any()})

    @property
    def there(self) -> np.ndarray:
        """Whether each arm has a score of any seed."""
        found = np.zeros(len(self.arms), dtype=bool)
        for values in self.seeds.values():
            found |= np.isfinite(values)
        return found

    def only(self, keep: np.ndarray) -> _Measure:
        """Some of the arms, and the seeds that have all of them."""
        arms = [arm for arm, kept in zip(self.arms, keep, strict=True) if kept]
        seeds = {s: v[keep] for s, v in self.seeds.items() if np.isfinite(v[keep]).all()}
        if not seeds:
            raise UserError(f"no seed has {metric_name(*self.form[:2])} of all {len(arms)} arms")
        return _Measure(self.table, self.form, arms, seeds)

    def means(self) -> np.ndarray:
        return np.mean(list(self.seeds.values()), axis=0)

    def ceiling(self) -> float:
        """Mean τ between two seeds; not-a-number where there is one."""
        from scipy.stats import kendalltau

        pairs = itertools.combinations(self.seeds.values(), 2)
        found = [float(kendalltau(x, y).statistic) for x, y in pairs]
        return float(np.nanmean(found)) if np.isfinite(found).any() else math.nan

    def order(self) -> np.ndarray:
        """For each pair of arms 1 or -1 where seeds tell which is better, else 0."""
        found = []
        for one, other in itertools.combinations(self.arms, 2):
            summary, _ = contrast(self.table, {one: 1.0, other: -1.0}, self.form)
            told = two_sided(summary) <= 0.05
            found.append(int(np.sign(summary.mean)) if told else 0)
        return int(sign_of(self.table, self.form)) * np.array(found, dtype=int)


def agreement_between_levels(
    table: ScoreTable, factor: str, form: Form | None = None
) -> pandas.DataFrame:
    """Whether the arms of the other factors rank alike at each two levels of `factor` (a scale).

    Columns:
        first, second     the two levels
        arms, seeds, kendall, kendall_p, spearman, by_seed, by_seed_low, by_seed_high,
        ceiling_first, ceiling_second, best_agrees, regret, separated, reversed
                          as in `rank_agreement`
        task, metric, shots, condition, unit

    Raises:
        UserError: no two levels share three settings of the other factors.
    """
    form = form or primary_form(table)
    levels = table.design.factors[known_factor(table, factor)]
    found = []
    for one, other in itertools.combinations(levels, 2):
        matched: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        for arm, where in table.design.arms.items():
            others = tuple((f, level) for f, level in where.items() if f != factor)
            matched.setdefault(others, {})[where[factor]] = arm
        pairs = {c[one]: c[other] for c in matched.values() if one in c and other in c}
        if len(pairs) >= 3:
            row = rank_agreement(table, table, form, form, pairs)
            found.append(row.assign(first=one, second=other, **words_of(table, form)))
    if not found:
        raise UserError(
            f"no two levels of {factor!r} were run with the same three settings of the others"
        )
    return pandas.concat(found, ignore_index=True)
