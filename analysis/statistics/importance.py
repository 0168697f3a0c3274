"""How much each factor matters: shares of variance where the design has them, else local sizes.

A full factorial splits the variance of the scores into main effects, interactions, seeds and rest:
analysis of variance with seeds as blocks, ω² in place of the upward-biased η² (Olejnik and Algina
2003), and shares as functional ANOVA has them (Hutter, Hoos and Leyton-Brown 2014): on a balanced
factorial the two are the same sums of squares.

A design that varies one factor at a time only knows what each factor does at the base: what is
found is local to the base, no share of anything, and blind to interactions.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas

from ablations.errors import UserError
from analysis.score_table import Form, ScoreTable
from analysis.statistics.paired_effects import paired_effects
from analysis.statistics.per_seed import primary_form, scores_of, words_of

SHARE, LOCAL = "share of variance", "local to the base"
_UNBALANCED = "arms and seeds are not balanced: type II sums of squares, no shares"
_UNREPLICATED = "one seed: nothing says what is noise"
_SELECTED = "the largest of {} levels: larger than it is, by selection"


def importance(table: ScoreTable, form: Form | None = None) -> pandas.DataFrame:
    """The factors in order of importance, by the method that the design allows.

    Columns:
        term              a factor, or factors joined by ` × `: their interaction
        importance        `share of variance`: 0 to 1, of what the design explains;
                          `local to the base`: in `unit`, see `local_importance`
        kind              which of the two; numbers of different kinds are not comparable
        omega2            ω² of the term; only where it is a share
        largest_effect    largest effect of the factor against the base level, in `unit`
        n                 scores that went in
        note              what to keep in mind
        task, metric, shots, condition, unit
    """
    form = form or primary_form(table)
    local = local_importance(table, form).set_index("factor")
    terms = anova(table, form).dropna(subset="omega2") if is_factorial(table) else None
    if terms is not None and len(terms):
        found = pandas.DataFrame(
            {
                "term": terms["term"],
                "importance": terms["share"],
                "kind": SHARE,
                "omega2": terms["omega2"],
                "largest_effect": [
                    local["largest_effect"].get(term, math.nan) for term in terms["term"]
                ],
                "n": terms["n"],
                "note": terms["note"],
            }
        )
        by = "omega2"
    else:
        found = pandas.DataFrame(
            {
                "term": local.index,
                "importance": local["importance"].to_numpy(),
                "kind": LOCAL,
                "omega2": math.nan,
                "largest_effect": local["largest_effect"].to_numpy(),
                "n": local["n"].to_numpy(),
                "note": local["note"].to_numpy(),
            }
        )
        by = "importance"
    found = found.sort_values(by, ascending=False, kind="stable", ignore_index=True)
    return found.assign(**words_of(table, form))


def local_importance(table: ScoreTable, form: Form | None = None) -> pandas.DataFrame:
    """What each factor does at the base, or in the mean over matched arms.

    Columns:
        factor
        levels            other than the base level
        importance        root of the mean over levels of max(0, effect² - its squared standard
                          error): a size without what noise alone would give, in `unit`
        largest_effect    the effect of largest size, signed, in `unit`
        largest_level     its level
        ci_low, ci_high   its t interval at 95 %, without a correction for having been picked
        n                 scores that went into the factor's effects
        note              what to keep in mind
        task, metric, shots, condition, unit
    """
    form = form or primary_form(table)
    found = paired_effects(table, form)
    rows = []
    for factor, own in found.groupby("factor", sort=False):
        known = own[own["effect"].notna()]
        if known.empty:
            continue
        noise = (known["sd"] / np.sqrt(known["n"])).to_numpy()
        sizes = np.maximum(0.0, known["effect"].to_numpy() ** 2 - noise**2)
        top = known.loc[known["effect"].abs().idxmax()]
        notes = [LOCAL] if not is_factorial(table) else []
        notes += [_UNREPLICATED] if not np.isfinite(noise).any() else []
        notes += [_SELECTED.format(len(known))] if len(known) > 1 else []
        rows.append(
            {
                "factor": factor,
                "levels": len(known),
                "importance": float(np.sqrt(sizes.mean())),
                "largest_effect": top["effect"],
                "largest_level": top["level"],
                "ci_low": top["ci_low"],
                "ci_high": top["ci_high"],
                "n": int((2 * known["arms"] * known["n"]).sum()),
                "note": "; ".join(notes),
                **words_of(table, form),
            }
        )
    columns = (
        *("factor", "levels", "importance", "largest_effect", "largest_level"),
        *("ci_low", "ci_high", "n", "note", "task", "metric", "shots", "condition", "unit"),
    )
    return pandas.DataFrame(rows, columns=list(columns))


def is_factorial(table: ScoreTable) -> bool:
    """Whether every combination of levels is an arm, of two factors or more, or of the one."""
    design = table.design
    factors = [f for f, levels in design.factors.items() if len(levels) > 1]
    cells = {tuple(where[f] for f in factors) for where in design.arms.values()}
    whole = math.prod(len(design.factors[f]) for f in factors)
    return bool(factors) and len(cells) == len(design.arms) == whole and len(factors) > 1


def anova(table: ScoreTable, form: Form | None = None) -> pandas.DataFrame:
    """Analysis of variance of a full factorial, seeds as blocks, with every interaction.

    Type II sums of squares; where all arms have all seeds, types I, II and III are the same. F
    tests assume that all arms scatter alike: with one arm four times as noisy they are wrong twice
    as often as they say. They describe; a claim is decided by its own contrast.

    Columns:
        term              a factor, factors joined by ` × `, `seed` or `residual`
        df                degrees of freedom
        sum_squares, mean_square      in `unit`²
        f, p_uncorrected  of the term's mean square against the residual one
        omega2            (SS - df·MSE) / (SS of all + MSE); below 0 is shown as 0
        partial_omega2    (SS - df·MSE) / (SS + (n - df)·MSE)
        share             max(0, SS - df·MSE) over its sum over all terms; only if balanced
        n                 scores
        note              what to keep in mind
        task, metric, shots, condition, unit

    Raises:
        UserError: the design is no full factorial of two factors or more.
    """
    form = form or primary_form(table)
    if not is_factorial(table):
        raise UserError(
            "this design is no full factorial of two factors or more, so variance has no shares; "
            "`local_importance` says what each factor does at the base"
        )
    scores = scores_of(table, form)
    whole = np.isfinite(scores["value"].to_numpy(dtype=float))
    scores = scores[whole]
    factors = {f: levels for f, levels in table.design.factors.items() if len(levels) > 1}
    levels = {
        f: np.array(
            [factors[f].index(table.design.arms[arm][f]) for arm in scores["arm"]], dtype=int
        )
        for f in factors
    }
    seeds = pandas.factorize(scores["seed"])[0]
    counts = {f: len(names) for f, names in factors.items()}
    found = analysis_of_variance(scores["value"].to_numpy(dtype=float), levels, counts, seeds)
    balanced = len(scores) == len(table.design.arms) * len(set(scores["seed"])) and whole.all()
    note = "" if balanced else _UNBALANCED
    if not found[-1].df:
        note = "; ".join(filter(None, [note, _UNREPLICATED]))
    n, error = len(scores), found[-1]
    mean_square = error.sum_squares / error.df if error.df else math.nan
    total = total_squares(scores["value"].to_numpy(dtype=float))
    tested = [one for one in found if one.name not in ("seed", "residual")]
    gains = {one.name: max(0.0, one.sum_squares - one.df * mean_square) for one in tested}
    everything = math.fsum(gains.values())
    rows = []
    for one in found:
        is_tested = one.name in gains
        gain = one.sum_squares - one.df * mean_square
        f = one.sum_squares / one.df / mean_square if is_tested and mean_square > 0 else math.nan
        rows.append(
            {
                "term": one.name,
                "df": one.df,
                "sum_squares": one.sum_squares,
                "mean_square": one.sum_squares / one.df if one.df else math.nan,
                "f": f,
                "p_uncorrected": _p_of(f, one.df, error.df),
                "omega2": _part(gain, total + mean_square) if is_tested else math.nan,
                "partial_omega2": (
                    _part(gain, one.sum_squares + (n - one.df) * mean_square)
                    if is_tested
                    else math.nan
                ),
                "share": (
                    gains[one.name] / everything
                    if is_tested and balanced and everything > 0
                    else math.nan
                ),
                "n": n,
                "note": note,
                **words_of(table, form),
            }
        )
    return pandas.DataFrame(rows)


@dataclass(frozen=True)
class Term:
    """A line of an analysis of variance."""

    name: str
    df: int
    sum_squares: float


def analysis_of_variance(
    y: np.ndarray, levels: dict[str, np.ndarray], counts: dict[str, int], blocks: np.ndarray
) -> list[Term]:
    """Type II sums of squares of all factors and interactions, then `seed` and `residual`.

    A term's sum of squares is what it adds to the model of all terms that do not contain it; blocks
    are in every model.
    """
    factors = list(levels)
    subsets = [
        frozenset(some)
        for size in range(1, len(factors) + 1)
        for some in itertools.combinations(factors, size)
    ]
    coded = {f: _sum_coding(counts[f])[levels[f]] for f in factors}
    columns = {one: _products([coded[f] for f in factors if f in one]) for one in subsets}
    constant = np.ones((len(y), 1))
    block_columns = _sum_coding(int(blocks.max(initial=0)) + 1)[blocks]

    def residual(terms: list[frozenset[str]], blocked: bool = True) -> tuple[float, int]:
        parts = [constant, *([block_columns] if blocked else []), *(columns[t] for t in terms)]
        return _residual(np.hstack(parts), y)

    found = []
    for one in subsets:
        others = [other for other in subsets if not one <= other]
        without, rank_without = residual(others)
        with_it, rank_with = residual([*others, one])
        name = " × ".join(f for f in factors if f in one)
        found.append(Term(name, rank_with - rank_without, max(0.0, without - with_it)))
    rest, rank = residual(subsets)
    unblocked, rank_unblocked = residual(subsets, blocked=False)
    found.append(Term("seed", rank - rank_unblocked, max(0.0, unblocked - rest)))
    found.append(Term("residual", len(y) - rank, rest))
    return found


def total_squares(y: np.ndarray) -> float:
    """Σ (y - ȳ)²."""
    return float(((y - y.mean()) ** 2).sum()) if y.size else math.nan


def _sum_coding(levels: int) -> np.ndarray:
    """[level, level - 1]: each column a level against the last, summing to zero."""
    return np.vstack([np.eye(levels - 1), -np.ones((1, levels - 1))])


def _products(parts: list[np.ndarray]) -> np.ndarray:
    found = parts[0]
    for part in parts[1:]:
        found = (found[:, :, None] * part[:, None, :]).reshape(len(found), -1)
    return found


def _residual(model: np.ndarray, y: np.ndarray) -> tuple[float, int]:
    """Sum of squared residuals of the least-squares fit, and the rank of the model."""
    solution, _, rank, _ = np.linalg.lstsq(model, y, rcond=None)
    return float(((y - model @ solution) ** 2).sum()), int(rank)


def _part(gain: float, whole: float) -> float:
    """At least 0; not-a-number stays what it is."""
    return math.nan if math.isnan(gain) else max(0.0, gain / whole) if whole > 0 else math.nan


def _p_of(f: float, df: int, error_df: int) -> float:
    if not math.isfinite(f) or not error_df:
        return math.nan
    from scipy.special import fdtrc

    return float(fdtrc(df, error_df, f))
