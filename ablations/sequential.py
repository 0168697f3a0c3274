"""Looking at a claim after every seed without being wrong more often: boundaries and p values.

Example. One number per seed, the claim that its mean is above 0, at most 12 seeds:

    L        1.8 0.7 1.8 | 0.7 | 1.8 | 1.2
    look at n =        3 |   4 |   5 |   6
    p of the t test  .03 | .015| .004| .001      each alone would do; four tries would not
    p_seq            .18 | .10 | .033| .009      holds however often one has looked

The t test's p value at n seeds is turned into z_n = Φ⁻¹(1 - p), weighted as z_n·(n/most)^0.25 (Wang
and Tsiatis 1987), and compared with a constant C(alpha). Tables for normal statistics do not fit t
statistics of three seeds, so C was found by simulating paths of t statistics
(`benchmarks/adaptive.py boundaries` does it again): over all looks from 3 seeds to the most, the
chance of ever crossing is alpha where the mean is 0. `p_seq` is the smallest alpha whose boundary
has been crossed. It never rises with more seeds and goes into Holm's correction like any p value.

Leaving looks out (a first look later than at 3 seeds) only makes an error rarer. So does any rule
that says which seed of what is run next, or that stops, as long as the seeds of an arm are taken in
their order and none is left out.

Arrays have the axes `[…, seeds]` or `[…, looks]`. Only numpy and `scipy.special`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.adaptive_seeds import FIRST_LOOK

Array = NDArray[np.float64]

SHAPE = 0.25  # of the boundary: 0 falls as O'Brien and Fleming's does, 0.5 is Pocock's
# The chance, in one direction, of ever crossing C …
LEVELS = (0.25, 0.1, 0.05, 0.025, 0.0125, 0.01, 0.005, 0.0025, 0.001)
# … by the most seeds. 4,000,000 paths each; the error is about ± 0.005.
BOUNDARIES: dict[int, tuple[float, ...]] = {
    3: (0.674, 1.282, 1.647, 1.963, 2.242, 2.327, 2.576, 2.808, 3.096),
    4: (0.853, 1.446, 1.801, 2.105, 2.376, 2.457, 2.695, 2.917, 3.183),
    5: (0.950, 1.528, 1.872, 2.168, 2.432, 2.512, 2.746, 2.961, 3.228),
    6: (1.011, 1.577, 1.912, 2.203, 2.461, 2.539, 2.770, 2.987, 3.254),
    8: (1.086, 1.631, 1.957, 2.240, 2.494, 2.571, 2.800, 3.013, 3.276),
    10: (1.130, 1.661, 1.979, 2.260, 2.512, 2.589, 2.817, 3.026, 3.284),
    12: (1.160, 1.680, 1.995, 2.273, 2.522, 2.599, 2.824, 3.036, 3.290),
}
CHECKED = 1e-4  # below, the size of p values was not looked at

# A claim is given up, for as long as nothing changes, where a verdict by the most seeds is less
# likely than this, from so many seeds on.
FUTILE, FUTILE_FROM = 0.10, 4


def constants(most: int) -> Array:
    """C at each of `LEVELS` for at most so many seeds; between two rows the next larger one's.

    C grows with the most seeds, so a larger row's never makes an error more frequent.
    """
    row = next(seeds for seeds in sorted(BOUNDARIES) if seeds >= most)
    return np.array(BOUNDARIES[row])


def weight(n: Any, most: int) -> Any:
    """What the z value at n seeds is multiplied by."""
    return (np.asarray(n, dtype=float) / most) ** SHAPE


def sequential_p(z: Any, looks: Any, most: int) -> Array:
    """The sequential p value `[…, looks]` after each look, from the z values at the looks.

    1 where not even the widest boundary was crossed; below the last column of the table by its last
    slope, which errs to the safe side.
    """
    highest = np.maximum.accumulate(np.asarray(z, dtype=float) * weight(looks, most), axis=-1)
    c, levels = constants(most), np.log(LEVELS)
    slope = (levels[-1] - levels[-2]) / (c[-1] - c[-2])
    beyond = levels[-1] + slope * (highest - c[-1])
    inside = np.interp(highest, c, levels)
    p = np.exp(np.where(highest > c[-1], beyond, inside))
    return np.where(highest < c[0], 1.0, np.maximum(p, np.finfo(float).tiny))


def constant(level: Any, most: int) -> Array:
    """C at any level: the inverse of `sequential_p`; above 0.25 that of 0.25."""
    c, levels = constants(most), np.log(LEVELS)
    wanted = np.minimum(np.log(level), levels[0])
    slope = (c[-1] - c[-2]) / (levels[-1] - levels[-2])
    beyond = c[-1] + slope * (wanted - levels[-1])
    return np.where(wanted < levels[-1], beyond, np.interp(-wanted, -levels, c))


def nominal_p(level: Any, n: Any, most: int) -> Array:
    """The p value of the t test at n seeds that crosses the boundary of a level."""
    from scipy.special import ndtr  # 0.3 s, and only deciding needs it

    return ndtr(-constant(level, most) / weight(n, most))


def boundary_t(level: Any, n: Any, most: int) -> Array:
    """The t value at n seeds that crosses the boundary of a level (one direction)."""
    from scipy.special import stdtrit

    return -stdtrit(np.asarray(n) - 1, nominal_p(level, n, most))


def z_of(p: Any) -> Array:
    """The z value of a p value of one direction."""
    from scipy.special import ndtri

    return -ndtri(np.asarray(p, dtype=float))


def chance_above(mean: Any, sd: Any, n: int, later: Any, threshold: Any) -> Array:
    """The predictive probability that the mean of `later` seeds is above a threshold.

    By the mean and SD of the first n, without any other opinion: Student's t with n - 1 degrees of
    freedom. `later` may be an array, with the same shape as `threshold`.
    """
    from scipy.special import stdtr

    later = np.asarray(later, dtype=float)
    width = np.asarray(sd) * np.sqrt((later - n) / (later * n))
    return stdtr(n - 1, (mean - threshold) / width)


def repeated_interval(values: Any, level: float, most: int) -> tuple[float, float, float]:
    """Mean of one number per seed, and its interval that holds at every look together.

    `level` is one direction's: the interval covers with 1 - 2·level, whenever one stops. It leaves
    out a boundary exactly where the t value crosses.
    """
    array = np.asarray(values, dtype=float)
    n = array.size
    if n < FIRST_LOOK:
        return (float(array.mean()) if n else np.nan), np.nan, np.nan
    half = float(boundary_t(level, n, most)) * array.std(ddof=1) / np.sqrt(n)
    return float(array.mean()), float(array.mean() - half), float(array.mean() + half)
