"""How far claims on a table were fixed before its results, and what that rests on.

`mm1 register claims.yaml` puts a claims file on record in a store. A claim of it is *registered*
where nothing about its answer could be picked when that was done:

- the file says which seeds were to be run, and nothing that changes a number is said beside it;
- the record is older than every run that the claim reads, by the runs' own times;
- no other claims on the same arms are on record from before the results were complete.

Of all else it is exploratory. Both times are somebody's word: that of the store's record and that
of the table. A record that was written later than it says, of which another one says another time,
or that cannot be read, counts as none; and what a standing rests on is told beside every verdict,
for nobody can prove from inside that neither was edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ablations.deciding import Claim
from ablations.errors import UserError
from ablations.few import few
from analysis import words
from analysis.caveats import Caveat
from analysis.registry import SKEW, Standing
from analysis.tables.claims_file import ClaimsFile, terms_of
from analysis.tables.understood import Run
from sweeps.records import ClaimsRecord
from sweeps.store import Store

if TYPE_CHECKING:
    from analysis.tables.comparison import TableResults

# A time without a zone may be of any place on earth: it is taken as early as it can be.
FURTHEST_ZONE = timedelta(hours=14)
OTHERS_NAMED = 3


@dataclass(frozen=True)
class Registered:
    """What a store has on record of a claims file.

    wrong   why the record does not count; "" where it does
    gaps    what the store cannot tell any more
    others  other claims that are on record there
    """

    hash: str
    at: str  # UTC, ISO 8601
    store: str
    wrong: str
    gaps: tuple[str, ...]
    others: tuple[ClaimsRecord, ...]


@dataclass(frozen=True)
class Resting:
    """A standing, and the words that say why."""

    standing: Standing
    caveats: tuple[Caveat, ...]


def register(file: ClaimsFile, store: Store) -> ClaimsRecord:
    """Put a claims file on record. Raises `UserError` where it leaves open what could be picked."""
    if not file.seeds:
        raise UserError(
            "the claims file does not say which seeds are to be run, so they could be picked when "
            "the results are known; add `seeds: 5` or `seeds: [0, 1, 2]`"
        )
    return store.register_claims(file.hash, file.content)


def registered(file: ClaimsFile, store: Store) -> Registered | None:
    """What a store has on record of a claims file; None where it has nothing."""
    found, unreadable = store.claims()
    own = next((one for one in found if one.hash == file.hash), None)
    if own is None:
        return None
    others = [one for one in found if one is not own]
    return Registered(
        hash=own.hash,
        at=own.registered_at,
        store=str(store.root),
        wrong=_wrong(own, others, store),
        gaps=(*unreadable, *_gone(found)),
        others=tuple(others),
    )


def _wrong(own: ClaimsRecord, others: Sequence[ClaimsRecord], store: Store) -> str:
    at = _time(own.registered_at)
    if at is None:
        return "its record says no time"
    for one in others:
        if one.before.get(own.hash, own.registered_at) != own.registered_at:
            return f"its record says {own.registered_at}, a later one {one.before[own.hash]}"
    written = store.claims_written(own.hash)
    if written is not None and datetime.fromtimestamp(written, UTC) > at + SKEW:
        when = datetime.fromtimestamp(written, UTC).isoformat(timespec="minutes")
        return f"its record says {own.registered_at} and was written at {when}: copied, or edited"
    return ""


def _gone(found: Sequence[ClaimsRecord]) -> list[str]:
    there = {one.hash for one in found}
    gone = {hash_ for one in found for hash_ in one.before} - there
    if not gone:
        return []
    return [f"{len(gone)} claims files that were on record are gone"]


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def standing_of(results: TableResults, claim: Claim) -> Resting:
    """How a claim stands, and what that rests on."""
    why = _not_registered(results)
    record = results.registered
    if why or record is None:
        return Resting("exploratory", (Caveat("exploratory", why),))
    at = _time(record.at)
    assert at is not None  # else the record does not count
    arms = {key.arm for key in results.keys(claim)}
    table, times = results.understood.table, results.understood.times
    tried = {
        Run(key.arm, seed)
        for cells in (table.scores, table.unscored)
        for key, own in cells.items()
        if key.arm in arms
        for seed in own
    }
    if unknown := sorted(str(run) for run in tried if run not in times):
        why = (
            f"nothing says when {unknown[0]} was run, so nobody knows whether the claim is older; "
            "`table: {time: COLUMN}` in the claims file names a column that does"
        )
        return Resting("exploratory", (Caveat("exploratory", why),))
    began = {run: _as_early_as_can_be(*times[run]) for run in tried}
    known = {run for run, when in began.items() if when <= at + SKEW}
    rests = _rests_on(results, record, min(began.values()) if began else None)
    gaps = [Caveat("gaps in the record", "; ".join(record.gaps))] if record.gaps else []
    if known == tried:
        told = f"its runs had begun when it was registered, on {_shown(at)}"
        return Resting("exploratory", (Caveat("exploratory", told), *gaps))
    if known:
        first = ", ".join(sorted(map(str, known))[:4])
        told = f"{len(known)} of {len(tried)} runs had begun before it was registered: {first}"
        return Resting("partly known", (Caveat("partly known", told), rests, *gaps))
    others = _others(results, record, claim, max(began.values()))
    standing: Standing = "repeated" if others else "registered"
    return Resting(standing, (*others, rests, *gaps))


def _not_registered(results: TableResults) -> str:
    """Why a claims file cannot count as registered; "" where it can."""
    if results.is_inline or results.file is None:
        return "it was stated beside the results"
    if results.registered is None:
        return "its claims file is not on record: mm1 register CLAIMS before the runs"
    if results.registered.wrong:
        return results.registered.wrong
    if not results.file.seeds:
        return "its claims file does not say which seeds were to be run"
    if said := sorted(results.said.said):
        return (
            f"beside the registered file it was said how the table is read ({', '.join(said)}), "
            "which could be picked when the results were known"
        )
    return ""


def _as_early_as_can_be(when: datetime, has_zone: bool) -> datetime:
    if has_zone:
        return when.astimezone(UTC)
    return when.replace(tzinfo=UTC) - FURTHEST_ZONE


def _rests_on(results: TableResults, record: Registered, first: datetime | None) -> Caveat:
    column = results.understood.roles.one("time")
    runs = f"the first run by {column!r} of the table, {_shown(first)}" if first else "its runs"
    return Caveat(
        "on two records",
        f"registered as {record.hash} at {record.at} by the store {record.store}, before {runs}. "
        "Whoever owns the store and the table can edit both: only a hash that was published before "
        "the runs proves it to others",
    )


def _others(
    results: TableResults, record: Registered, claim: Claim, last: datetime
) -> list[Caveat]:
    """Other claims about the same arms that were fixed before the results were complete."""
    own = terms_of(claim.text)
    found = []
    for one in record.others:
        at = _time(one.registered_at)
        if at is not None and at <= last and own & _terms(one.content):
            found.append(one)
    if not found:
        return []
    named = (
        f"{words.minute(one.registered_at)} UTC: "
        + ", ".join(f"{name}: {text}" for name, (text, _) in one.content["claims"].items())
        for one in found
    )
    tries = len(found) + 1
    chance = min(1.0, tries * results.alpha)
    return [
        Caveat(
            "repeated",
            f"one of {tries} claims files on the same arms; the chance of a false verdict among "
            f"them is up to {100 * chance:.4g} %. The others: {few(named, OTHERS_NAMED, '; ')}",
        )
    ]


def _terms(content: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for text, _ in content.get("claims", {}).values():
        try:
            found |= terms_of(text)
        except UserError:  # of a later language
            continue
    return found


def _shown(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(sep=" ", timespec="minutes")[:16] + " UTC"
