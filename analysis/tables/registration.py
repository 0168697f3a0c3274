"""How far claims on a table were fixed before its results, and what that rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablations.deciding import Claim
from analysis.caveats import Caveat
from analysis.registry import Standing

if TYPE_CHECKING:
    from analysis.tables.comparison import TableResults


@dataclass(frozen=True)
class Registered:
    """A claims file that is on record in a store."""

    hash: str
    at: str  # UTC, ISO 8601


@dataclass(frozen=True)
class Resting:
    """A standing, and the words that say why."""

    standing: Standing
    caveats: tuple[Caveat, ...]


def standing_of(results: TableResults, claim: Claim) -> Resting:
    """How a claim stands."""
    why = "its claims file is not on record as registered"
    if results.is_inline:
        why = "it was stated beside the results"
    return Resting("exploratory", (Caveat("exploratory", why),))
