"""Scaling: a score against size, as a power law or with an offset, and what it predicts.

    power law    y = A·x^-β              log y = a - β log x, by least squares
    offset       y = E + A·x^-β          log y = logaddexp(e, a - β log x), as in Hoffmann et al.
                                         (2022), from many starts

Curvature comes first: a power law that is fitted to a curve that levels off falls short of it the
more, the further it predicts, and its interval does not say so. A fit is to the mean of log y over
seeds at each size: what makes one size lie off the line (its shape, its learning rate) is shared by
its seeds, so sizes and not seeds are what an interval counts. `held_out` says how the fit without
the largest size predicted it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas

from ablations import contrasts
from ablations.errors import UserError, nearest, shown
from analysis.effects import LEVEL, estimated
from analysis.score_table import Form, ScoreTable
from analysis.statistics.per_seed import (
    known_factor,
    numeric_levels,
    of_vector,
    primary_form,
    words_of,
)

POWER_LAW, OFFSET = "power law", "offset"
FEWEST, FEWEST_WITH_OFFSET = 3, 5  # sizes
BENT = 0.05  # p value of the curvature from which on an offset is the fit to look at
_SMALLEST_OFFSET = 1e-6  # of the smallest value: below it there is none to be seen


@dataclass(frozen=True)
class Fit:
    """One model through the points: parameters as logarithms where they are above zero.

    power law: (a, β); offset: (e, a, β).
    """

    model: str
    parameters: np.ndarray
    covariance: np.ndarray  # of the parameters
    residual: float  # SD of log y about the curve
    df: int
    shared: float  # squared standard error of log y that all sizes share: the luck of the seeds

    def log_value(self, size: float) -> float:
        """Log y on the curve."""
        return float(_curve(self.parameters, np.log([size]))[0])

    def gradient(self, size: float) -> np.ndarray:
        """Of log y on the curve, by the parameters."""
        return _jacobian(self.parameters, np.log([size]))[0]

    def error(self, size: float) -> float:
        """Standard error of log y on the curve."""
        gradient = self.gradient(size)
        return math.sqrt(float(gradient @ self.covariance @ gradient) + self.shared)


@dataclass(frozen=True)
class ScalingFit:
    """What a score against size comes to; each part is a table with documented columns."""

    points: pandas.DataFrame
    words: Mapping[str, object]  # task, metric, shots, condition, unit of the score
    ceiling: float | None  # what is fitted is the distance to it

    @cached_property
    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        """Sizes in rising order, and the mean of log y over the seeds of each."""
        grouped = np.log(self.points["y"]).groupby(self.points["size"]).mean()
        return grouped.index.to_numpy(dtype=float), grouped.to_numpy()

    @property
    def curvature(self) -> pandas.DataFrame:
        """Whether a power law is straight here: a parabola in log y over log x.

        Columns:
            curvature         coefficient of (log x)²: above 0 the curve levels off
            ci_low, ci_high, ci_level     t interval over sizes
            p_uncorrected     two-sided; not-a-number below four sizes
            sizes, df
            model             `offset` if p ≤ 0.05 and there are five sizes, else `power law`
            note              what to keep in mind
        """
        x, y = self._means
        row = {"curvature": math.nan, "ci_low": math.nan, "ci_high": math.nan, "ci_level": LEVEL}
        p, df = math.nan, max(0, len(x) - 3)
        if df:
            centred = np.log(x) - np.log(x).mean()
            bend, error = _least_squares(np.stack([np.ones_like(x), centred, centred**2], 1), y)
            half = _t(df) * error[2]
            p = _two_sided(bend[2], error[2], df)
            row |= {"curvature": bend[2], "ci_low": bend[2] - half, "ci_high": bend[2] + half}
        return pandas.DataFrame(
            [
                {
                    **row,
                    "p_uncorrected": p,
                    "sizes": len(x),
                    "df": df,
                    "model": self.model,
                    "note": self._note(p),
                }
            ]
        )

    def _note(self, p: float) -> str:
        if not math.isfinite(p):
            return "too few sizes to see a curvature: nothing is known beyond the largest"
        if p > BENT:
            return "no curvature was seen, which is no evidence that there is none"
        if len(self._means[0]) < FEWEST_WITH_OFFSET:
            return f"curved, and too few sizes for an offset: {FEWEST_WITH_OFFSET} are needed"
        return "curved: a power law does not predict beyond the largest size"

    @cached_property
    def model(self) -> str:
        """The fit to look at: `offset` where the points are curved and enough, else `power law`."""
        x, y = self._means
        if len(x) < FEWEST_WITH_OFFSET:
            return POWER_LAW
        centred = np.log(x) - np.log(x).mean()
        bend, error = _least_squares(np.stack([np.ones_like(x), centred, centred**2], 1), y)
        bent = _two_sided(bend[2], error[2], len(x) - 3) <= BENT and bend[2] > 0
        return OFFSET if bent and OFFSET in self.fits else POWER_LAW

    @cached_property
    def fits(self) -> Mapping[str, Fit]:
        """Model → its fit, for the models that the sizes allow."""
        return fits(*self._means, self._shared)

    @cached_property
    def _shared(self) -> float:
        return shared_luck(self.points)

    @property
    def parameters(self) -> pandas.DataFrame:
        """The fits, a row a parameter.

        Columns:
            model             `power law` or `offset`
            parameter         `A`, `beta`, and `E` of the offset, in the unit of y
            estimate, ci_low, ci_high, ci_level
            df                sizes less parameters; of `beta by seed` seeds less one
            residual          SD of log y of the sizes about the curve
            method            `over sizes`, or `over seeds`: a line per seed, for beta alone
            is_chosen         this is the model to look at
        """
        rows = []
        for fit in self.fits.values():
            names = ("A", "beta") if fit.model == POWER_LAW else ("E", "A", "beta")
            t = _t(fit.df)
            for index, name in enumerate(names):
                value = fit.parameters[index]
                is_log = name != "beta"
                error = math.sqrt(fit.covariance[index, index] + (fit.shared if is_log else 0.0))
                ends = (value, value - t * error, value + t * error)
                estimate, low, high = (math.exp(e) if is_log else e for e in _safe(ends))
                rows.append((fit.model, name, estimate, low, high, fit.df, fit.residual))
        found = pandas.DataFrame(
            rows,
            columns=["model", "parameter", "estimate", "ci_low", "ci_high", "df", "residual"],
        ).assign(method="over sizes")
        slopes = self._slopes()
        if len(slopes) > 1:
            own = of_vector(-slopes)
            line = {
                "model": POWER_LAW,
                "parameter": "beta",
                "estimate": own.mean,
                "ci_low": own.ci_low,
                "ci_high": own.ci_high,
                "df": own.n - 1,
                "residual": math.nan,
                "method": "over seeds",
            }
            found = pandas.concat([found, pandas.DataFrame([line])], ignore_index=True)
        return found.assign(ci_level=LEVEL, is_chosen=found["model"] == self.model)

    def _slopes(self) -> np.ndarray:
        """The slope of log y over log x of each seed that has all sizes."""
        x, whole = _by_seed(self.points)
        centred = x - x.mean()
        return whole @ centred / (centred**2).sum()

    def predict(self, sizes: Sequence[float]) -> pandas.DataFrame:
        """What the fits say of sizes.

        Columns:
            model, size
            y, ci_low, ci_high        the curve and the interval of the curve, in the unit of y
            pi_low, pi_high           interval for the mean over as many seeds at that size, with
                                      what a size of its own is off the curve
            score                     `y` as the metric's own number, in `unit`
            beyond                    size over the largest that was fitted; above 1 extrapolated
            is_chosen                 this is the model to look at
            task, metric, shots, condition, unit
        """
        return self._predicted(self.fits, sizes, float(self._means[0].max()))

    def _predicted(
        self, made: Mapping[str, Fit], sizes: Sequence[float], largest: float
    ) -> pandas.DataFrame:
        rows = []
        for fit in made.values():
            t = _t(fit.df)
            for size in sizes:
                if not (size > 0 and math.isfinite(size)):
                    raise UserError(f"size {size} is no number above zero")
                log_y, error = fit.log_value(size), fit.error(size)
                spread = math.hypot(math.sqrt(error**2 - fit.shared), fit.residual)
                y, *ends = map(
                    math.exp,
                    _safe(
                        (
                            log_y,
                            log_y - t * error,
                            log_y + t * error,
                            log_y - t * spread,
                            log_y + t * spread,
                        )
                    ),
                )
                rows.append(
                    {
                        "model": fit.model,
                        "size": size,
                        "y": y,
                        **dict(zip(("ci_low", "ci_high", "pi_low", "pi_high"), ends, strict=True)),
                        "score": y if self.ceiling is None else self.ceiling - y,
                        "beyond": size / largest,
                        "is_chosen": fit.model == self.model,
                        **self.words,
                    }
                )
        return pandas.DataFrame(rows)

    @property
    def held_out(self) -> pandas.DataFrame:
        """The largest size, as the fits to all others predict it; empty below four sizes.

        Columns: those of `predict`, and
            observed          what was measured there, as y: mean of log y over seeds
            within            whether it lies in the prediction interval
        """
        x, y = self._means
        if len(x) <= FEWEST:
            return pandas.DataFrame()
        rest = self.points[self.points["size"] < x[-1]]
        less = ScalingFit(rest, self.words, self.ceiling)
        found = less.predict([float(x[-1])])
        observed = math.exp(y[-1])
        return found.assign(
            observed=observed,
            within=found["pi_low"].le(observed) & found["pi_high"].ge(observed),
        )


def scaling_fit(
    table: ScoreTable,
    sizes: str | Mapping[str, float],
    form: Form | None = None,
    ceiling: float | None = None,
) -> ScalingFit:
    """Fit a score against size.

    `sizes` is a factor whose levels are numbers, or arm → size (parameters, tokens, FLOPs). With
    `ceiling` what is fitted is its distance to the score: a power law falls to zero, an accuracy
    rises to 100.

    `points` has the columns
        size, seed
        value             the score, in `unit`
        y                 what is fitted: the score, or `ceiling` less the score

    Raises:
        UserError: fewer than three sizes, a name that is not known, a value that has no logarithm.
    """
    form = form or primary_form(table)
    if isinstance(sizes, str):
        places = numeric_levels(table, known_factor(table, sizes))
        if places is None:
            raise UserError(
                f"the levels of {sizes!r} are no numbers: say the size of each arm (arm → size)"
            )
        means = contrasts.level_means(table.design, sizes, tuple(places))
        asked = [(places[level], weights) for level, weights in means.items()]
    else:
        for arm in sizes:
            if arm not in table.arms:
                raise UserError(f"no arm {shown(arm)}{nearest(arm, table.arms)}")
        asked = [(float(size), {arm: 1.0}) for arm, size in sizes.items()]
    rows = [
        (size, seed, value)
        for size, weights in asked
        for seed, value in estimated(table, weights, form).by_seed.items()
    ]
    points = pandas.DataFrame(rows, columns=["size", "seed", "value"])
    return fit_points(points, dict(words_of(table, form)), ceiling)


def fit_points(
    points: pandas.DataFrame,
    words: Mapping[str, object] | None = None,
    ceiling: float | None = None,
) -> ScalingFit:
    """Fit points that are given: columns size, seed, value."""
    y = points["value"] if ceiling is None else ceiling - points["value"]
    for column, values in (("size", points["size"]), ("value", y)):
        wrong = ~(np.isfinite(values.astype(float)) & (values > 0))
        if wrong.any():
            row = points[wrong].iloc[0]
            hint = "" if ceiling is None else f" below the ceiling of {ceiling:g}"
            raise UserError(
                f"a {column} that has no logarithm{hint}: {row['value']:g} at size "
                f"{row['size']:g}, seed {row['seed']}"
            )
    count = points["size"].nunique()
    if count < FEWEST:
        raise UserError(f"{count} sizes with scores: a scaling fit needs {FEWEST}, better 6")
    if points.duplicated(["size", "seed"]).any():
        raise UserError("a seed is there twice at one size: give each size one arm")
    points = points.assign(y=y).sort_values(["size", "seed"], ignore_index=True)
    return ScalingFit(points, words or {}, ceiling)


def shared_luck(points: pandas.DataFrame) -> float:
    """Squared standard error of log y that a seed's luck at all sizes at once adds.

    The variance component of seeds in the table of sizes × seeds, over the number of seeds; 0 where
    seeds do not go through all sizes.
    """
    _, wide = _by_seed(points)
    n, k = wide.shape
    if n < 2 or k < 2:
        return 0.0
    by_seed = wide.mean(axis=1)
    rest = wide - by_seed[:, None] - wide.mean(axis=0) + wide.mean()
    among = k * float(by_seed.var(ddof=1))
    within = float((rest**2).sum()) / ((n - 1) * (k - 1))
    return max(0.0, among - within) / k / n


def _by_seed(points: pandas.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Log sizes, and log y `[seed, size]` of the seeds that have all sizes."""
    whole = points.pivot(index="seed", columns="size", values="y").dropna()
    return np.log(whole.columns.to_numpy(dtype=float)), np.log(whole.to_numpy(dtype=float))


def fits(x: np.ndarray, log_y: np.ndarray, shared: float = 0.0) -> dict[str, Fit]:
    """The models that so many sizes allow, by least squares of log y."""
    log_x = np.log(x)
    line, _ = _least_squares(np.stack([np.ones_like(log_x), -log_x], 1), log_y)
    made = [_fit(POWER_LAW, line, log_x, log_y, shared)]
    if len(x) >= FEWEST_WITH_OFFSET:
        bent = _with_offset(log_x, log_y, line)
        if bent is not None:
            made.append(_fit(OFFSET, bent, log_x, log_y, shared))
    return {fit.model: fit for fit in made}


def _fit(
    model: str, parameters: np.ndarray, log_x: np.ndarray, log_y: np.ndarray, shared: float
) -> Fit:
    jacobian = _jacobian(parameters, log_x)
    df = len(log_x) - len(parameters)
    rest = log_y - _curve(parameters, log_x)
    variance = float((rest**2).sum()) / df if df else math.nan
    inverse = np.linalg.pinv(jacobian.T @ jacobian)
    return Fit(model, parameters, variance * inverse, math.sqrt(variance), df, shared)


def _with_offset(log_x: np.ndarray, log_y: np.ndarray, line: np.ndarray) -> np.ndarray | None:
    """(e, a, β) of the best of many starts; None where the points show no offset."""
    from scipy.optimize import least_squares

    lowest, best = log_y.min(), None
    # Centred, so that a and β are not one number to the optimiser.
    middle = log_x.mean()
    for share in (0.2, 0.5, 0.8, 0.95, 0.99):
        e = lowest + math.log(share)
        over = np.log(np.maximum(np.exp(log_y) - math.exp(e), 1e-300))
        a, beta = _least_squares(np.stack([np.ones_like(log_x), middle - log_x], 1), over)[0]
        for steeper in (1.0, 2.0):
            found = least_squares(
                lambda p: _curve(p, log_x - middle) - log_y,
                (e, a, beta * steeper),
                jac=lambda p: _jacobian(p, log_x - middle),
                x_scale="jac",
                ftol=1e-15,
                xtol=1e-15,
                gtol=1e-15,
                max_nfev=2000,
            )
            if np.isfinite(found.x).all() and (best is None or found.cost < best.cost):
                best = found
    if best is None or best.x[0] < lowest + math.log(_SMALLEST_OFFSET) or best.x[2] <= 0:
        return None
    e, a, beta = best.x
    return np.array([e, a + beta * middle, beta])


def _curve(parameters: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    *offset, a, beta = parameters
    falling = a - beta * log_x
    return np.logaddexp(offset[0], falling) if offset else falling


def _jacobian(parameters: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    *offset, a, beta = parameters
    if not offset:
        return np.stack([np.ones_like(log_x), -log_x], 1)
    share = np.exp(a - beta * log_x - _curve(parameters, log_x))  # of y that is not the offset
    return np.stack([1 - share, share, -share * log_x], 1)


def _least_squares(model: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and their standard errors."""
    found = np.linalg.lstsq(model, y, rcond=None)[0]
    df = len(y) - model.shape[1]
    rest = y - model @ found
    variance = float((rest**2).sum()) / df if df else math.nan
    if variance <= (1e-12 * np.abs(y).max()) ** 2:
        variance = 0.0  # rounding alone
    return found, np.sqrt(variance * np.diag(np.linalg.inv(model.T @ model)))


def _t(df: int) -> float:
    """The t quantile of a two-sided interval at `LEVEL`."""
    if df < 1:
        return math.nan
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + LEVEL / 2))


def _two_sided(estimate: float, error: float, df: int) -> float:
    if not error > 0:
        return math.nan
    from scipy.special import stdtr

    return 2.0 * float(stdtr(df, -abs(estimate / error)))


def _safe(logs: Sequence[float]) -> list[float]:
    """Logarithms whose exponential is a float: an interval that is no bound at all ends in inf."""
    return [min(value, 709.0) if math.isfinite(value) else value for value in logs]
