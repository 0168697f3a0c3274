"""What a report carries so that it can be done again: `mm1 reproduce` reads it, whatever the form.

A gzipped JSON text of a study's resolved form, the environments that it ran in, every number of
its trials with all digits, and its verdicts. HTML has it behind a link, Markdown as a definition at
its end, LaTeX in comments, PDF as an attached file:

    packed ─► bytes ─► in_html.. (each form) ─► a report ─► read ─► Carried
"""

from __future__ import annotations

import base64
import binascii
import gzip
import importlib.metadata
import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.schema import Config
from ablations.shown_text import each_text, hiding
from ablations.workload import Task
from analysis.compare import Comparison
from analysis.results import EXECUTION_CLASS, StudyResults
from analysis.score_table import ScoreTable

SCHEMA_VERSION = 1
NAME = "mm1-carried"
FILE = "study.mm1.json.gz"
ADDRESS = "data:application/gzip;base64,"
COMMENT = "%mm1 "  # begins a line of LaTeX
MOST_BYTES = 2**30  # unpacked
_LINE = 120


class Number(NamedTuple):
    """One number of the score table. `value` is a text where JSON has no number for it."""

    arm: str
    seed: int
    task: str
    metric: str
    shots: int
    condition: str
    value: float | Literal["nan", "inf", "-inf"]
    diverged: bool

    @property
    def number(self) -> float:
        """The value."""
        return float(self.value)


class Decided(Config):
    """A claim and what came out of it."""

    text: str
    min_effect: float = 0.0
    verdict: Literal["supported", "refuted", "undecided"]
    interim: bool
    effect: float | None


class Table(Config):
    """What of a score table is no number."""

    factors: dict[str, tuple[str, ...]]
    arms: dict[str, dict[str, str]]
    primary: tuple[str, str, int]
    tasks: dict[str, Task]
    null_arms: tuple[str, ...] = ()
    averaged: tuple[str, ...] = ()
    excluded: tuple[tuple[str, int], ...] = ()
    # arm, task, metric, shots, condition, seed of what was tried → why it has no number
    unscored: tuple[tuple[str, str, str, int, str, int, str], ...] = ()
    is_as_found: bool = False  # nobody said which seeds there should be


class Carried(Config):
    """All of it. `plan` is there for a study of a store, `table` for numbers from elsewhere.

    executions   kind of stage → the environments that its stages ran in
    hidden       texts held passwords or keys, which are hidden: the plan is not quite what ran
    """

    model_config = ConfigDict(allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION
    study: str
    hash: str
    mm1: str  # version
    alpha: float
    seeds: tuple[int, ...]
    registered_at: str = ""
    plan: Plan | None = None
    table: Table | None = None
    executions: dict[str, tuple[dict[str, Any], ...]] = Field({})
    revisions: tuple[str, ...] = ()
    hidden: bool = False
    numbers: tuple[Number, ...]
    claims: dict[str, Decided]


def packed(
    made: Comparison,
    table: ScoreTable,
    results: StudyResults | None,
    min_effects: Mapping[str, float],
) -> bytes:
    """What a report of these numbers carries; the same bytes whenever and wherever it is made."""
    content = _of(made, table, results, min_effects)
    plain = each_text(content, hiding())
    if (written := _json(plain)) != _json(content):
        written = _json({**plain, "hidden": True})
    return gzip.compress(written.encode(), mtime=0)


def _json(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _of(
    made: Comparison,
    table: ScoreTable,
    results: StudyResults | None,
    min_effects: Mapping[str, float],
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "study": made.study,
        "hash": made.hash,
        "mm1": _version(),
        "alpha": made.alpha,
        "seeds": list(made.seeds),
        "registered_at": made.registered_at,
        "numbers": [list(one) for one in numbers_of(table)],
        "claims": {
            one.name: {
                "text": one.text,
                "min_effect": min_effects.get(one.name, 0.0),
                "verdict": one.verdict,
                "interim": one.interim,
                "effect": one.effect if one.effect is None or math.isfinite(one.effect) else None,
            }
            for one in made.claims
        },
    }
    if results is None:
        content["table"] = {
            "factors": {name: list(levels) for name, levels in table.design.factors.items()},
            "arms": {name: dict(levels) for name, levels in table.design.arms.items()},
            "primary": list(table.primary),
            "tasks": {name: task.model_dump(mode="json") for name, task in table.tasks.items()},
            "null_arms": list(table.null_arms),
            "averaged": list(table.averaged),
            "excluded": [list(one) for one in sorted(table.excluded)],
            "unscored": [
                [*key, seed, why]
                for key, seeds in sorted(table.unscored.items())
                for seed, why in sorted(seeds.items())
            ],
            "is_as_found": table.is_as_found,
        }
        return content
    executions: dict[str, dict[str, Any]] = {}
    for stage, record in results.executions.items():
        facts = {key: record[key] for key in EXECUTION_CLASS if key in record}
        kind = results.plan.stages[stage].kind
        executions.setdefault(kind, {}).setdefault(json.dumps(facts, sort_keys=True), facts)
    revisions = {one.get("git_revision") for one in results.executions.values()}
    content["plan"] = results.whole.model_dump(mode="json")
    content["executions"] = {
        kind: [found[key] for key in sorted(found)] for kind, found in executions.items()
    }
    content["revisions"] = sorted(one for one in revisions if one)
    return content


def _version() -> str:
    try:
        return importlib.metadata.version("mm1")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def numbers_of(table: ScoreTable) -> list[Number]:
    """Every number of a score table, in an order that the store has no part in."""
    order = {arm: number for number, arm in enumerate(table.arms)}
    names = ("arm", "seed", "task", "metric", "shots", "condition", "value")
    found = []
    for arm, seed, task, metric, shots, condition, value in zip(
        *(table.numbers[name].tolist() for name in names), strict=True
    ):
        lost = (arm, task, shots, condition, seed) in table.diverged
        written: Any = value if math.isfinite(value) else str(float(value))
        found.append(Number(arm, seed, task, metric, shots, condition, written, lost))
    return sorted(found, key=lambda one: (order.get(one.arm, len(order)), one.arm, *one[1:6]))


# -- in a file -----------------------------------------------------------------------------------


def as_address(content: bytes) -> str:
    """For a link or a definition: an address that holds it."""
    return ADDRESS + base64.b64encode(content).decode()


def as_comments(content: bytes) -> str:
    """For LaTeX: lines of comments."""
    text = base64.b64encode(content).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return "\n".join(COMMENT + line for line in lines)


def read(path: Path) -> Carried:
    """What a report carries. Raises `UserError` where the file is none, or is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the path of a report") from None
    found = _in_pdf(content) if content.startswith(b"%PDF") else _in_text(content)
    if found is None:
        raise UserError(
            f"{path} carries no study: it is no report of mm1, or one of before this could be done"
        )
    try:
        tree = json.loads(_unpacked(found))
        version = tree.get("schema_version") if isinstance(tree, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(f"{path} was written by a newer version of mm1; upgrade")
        return Carried.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:100]
        raise UserError(f"{path} is damaged: {where}: {first['msg'][:200]}") from None
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise UserError(f"{path} is damaged: what it carries cannot be read ({error})") from None


def _unpacked(content: bytes) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    found = reader.decompress(content, MOST_BYTES)
    if reader.unconsumed_tail or not reader.eof:
        raise ValueError("it is cut, or too large")
    return found


def _in_text(content: bytes) -> bytes | None:
    """The last one: what is carried stands at the end, whatever somebody's text says before."""
    begin = ADDRESS.encode()
    places = sorted(
        (one.start(), one[1])
        for pattern in (
            rb'<a id="%s"[^>]*href="%s([A-Za-z0-9+/=]*)"' % (NAME.encode(), re.escape(begin)),
            rb"^\[%s\]: %s([A-Za-z0-9+/=]*)" % (NAME.encode(), re.escape(begin)),
        )
        for one in re.finditer(pattern, content, re.MULTILINE)
    )
    found = [one for _, one in places]
    if not found:
        lines = content.decode("utf-8", "replace").splitlines()
        joined = "".join(
            line.removeprefix(COMMENT) for line in lines if line.startswith(COMMENT)
        ).encode("ascii", "replace")
        found = [joined] if joined else []
    try:
        return base64.b64decode(found[-1], validate=True) if found else None
    except binascii.Error:
        return b""


def _in_pdf(content: bytes) -> bytes | None:
    """The attached file: a stream whose dictionary says so, compressed or not."""
    for one in re.finditer(
        rb"<<(?P<facts>[^\r\n]*?/Type/EmbeddedFile[^\r\n]*)>>\s*stream\r?\n", content
    ):
        length = re.search(rb"/Length (\d+)", one["facts"])
        if length is None:
            continue
        stream = content[one.end() : one.end() + int(length[1])]
        if b"/FlateDecode" in one["facts"]:
            try:
                stream = zlib.decompressobj().decompress(stream, MOST_BYTES)
            except zlib.error:
                return b""
        if stream.startswith(b"\x1f\x8b"):
            return stream
    return None
