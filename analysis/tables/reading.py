"""How a table from elsewhere is to be read, where somebody says so.

On the command line (`--arm model --seed config.seed`), in a claims file under `table:`, or in
Python. What nobody says is recognised, and told (`analysis.tables.roles`).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ablations.errors import UserError
from ablations.schema import Config

Layout = Literal["metrics", "seeds", "arms", "tasks"]
Repeats = Literal["mean", "first", "last"]


class Reading(Config):
    """Which column is what. Names are those of the table; empty where it is left to be seen.

    across   what the columns of numbers are, where there are several: one a metric, a seed, an
             arm or a task
    names    what the names of runs are made of, such as `{arm}-s{seed}`
    lower    metrics of which less is better; `higher` those of which more is
    base     the arm that the others are compared with
    step     which step of a curve counts; the last of each run by default
    repeats  what counts of a run that is there several times; without it nothing does
    as_is    metrics whose values look like fractions beside per cents, and are neither
    exclude  run, as ARM seed N → why it does not count
    part     the experiment, study or sheet of a source that has several
    """

    arm: str = ""
    factors: tuple[str, ...] = ()
    seed: str = ""
    metric: str = ""
    values: tuple[str, ...] = ()
    task: str = ""
    step_column: str = ""
    item: str = ""
    time: str = ""
    run: str = ""
    ignore: tuple[str, ...] = ()
    across: Layout | None = None
    names: str = ""
    primary: str = ""
    lower: tuple[str, ...] = ()
    higher: tuple[str, ...] = ()
    base: str = ""
    step: int | None = None
    repeats: Repeats | None = None
    as_is: tuple[str, ...] = ()
    decimal: Literal["", ".", ","] = ""
    exclude: dict[str, str] = Field({})
    part: str = ""

    @property
    def said(self) -> dict[str, Any]:
        """What is said, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name)}

    def over(self, other: Reading) -> Reading:
        """What this says, and for the rest what `other` says.

        Raises `UserError` where both call one metric better in opposite ways.
        """
        joined = Reading.model_validate({**other.said, **self.said})
        if both := set(joined.lower) & set(joined.higher):
            raise UserError(f"{sorted(both)[0]!r} is said to be better lower and better higher")
        return joined
