"""Claims on a table, as a file: what is claimed, and all that could be chosen to get it.

    claims:
      larger-is-better: score(b) > score(a)
      not-worse: {claim: "score(c) >= score(b) within 1"}
      clearly: {claim: "effect(size, 8 -> 16) > 0", min_effect: 0.5}
    alpha: 0.05
    seeds: 5                      # that were to be run: 0 to 4, or a list
    table: {arm: model, seed: config.seed, primary: val/accuracy, lower: [val/loss]}

`table` takes what the options of `mm1 compare --table` say, by the same names. What stands in the
file is what `mm1 register` registers; what is said beside it could be chosen when the results were
known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainValidator, model_validator

from ablations.claim_grammar import Score, Statement, parse
from ablations.deciding import Claim
from ablations.designs import unusable_name
from ablations.errors import UserError, shown
from ablations.fingerprints import fingerprint
from ablations.schema import Config
from ablations.study import MOST_CLAIMS, read_claim, read_seeds
from ablations.study import Claim as WrittenClaim
from ablations.yaml_files import as_model, load_yaml
from analysis.tables.reading import Reading
from analysis.tables.understood import Understood

USUAL_ALPHA = 0.05


def _planned_seeds(value: Any) -> tuple[int, ...]:
    seeds = read_seeds(value)
    if not isinstance(seeds, tuple):
        raise ValueError(f"{shown(value)} is not valid: expected how many, or which ([0, 1, 2])")
    return seeds


class ClaimsFile(Config):
    """The keys of a claims file."""

    question: str = ""
    claims: dict[str, Annotated[WrittenClaim, PlainValidator(read_claim)]] = Field(
        min_length=1, description="name → claim, or {claim: …, min_effect: …}"
    )
    alpha: float = Field(USUAL_ALPHA, gt=0, lt=0.5, description="chance of any wrong verdict")
    seeds: Annotated[tuple[int, ...], PlainValidator(_planned_seeds)] = Field(
        (), description="that were to be run"
    )
    table: Reading = Field(Reading(), description="how the table is to be read")

    @model_validator(mode="after")
    def _possible(self) -> ClaimsFile:
        if len(self.claims) > MOST_CLAIMS:
            raise ValueError(f"claims: {len(self.claims):,}, more than {MOST_CLAIMS:,}")
        for name in self.claims:
            if (wrong := unusable_name(name)) is not None:
                raise ValueError(f"claims: {wrong}")
        return self

    @property
    def hash(self) -> str:
        """Of all that it says, whatever its order of keys, spaces and comments."""
        return fingerprint(self.content)

    @property
    def content(self) -> dict[str, Any]:
        """What it says in plain values."""
        return {
            "question": self.question,
            "claims": {name: [one.text, one.min_effect] for name, one in self.claims.items()},
            "alpha": self.alpha,
            "seeds": list(self.seeds),
            "table": {name: _plain(value) for name, value in self.table.said.items()},
        }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def load_claims(path: str | Path) -> ClaimsFile:
    """A claims file. Raises `UserError` with file, line, key and the nearest valid choice."""
    document = load_yaml(path)
    found = as_model(document, ClaimsFile)
    for name, claim in found.claims.items():
        try:
            parse(claim.text)
        except UserError as error:
            document.fail(f"claims.{name}: {error}", ("claims", name))
    return found


def inline_claims(texts: Sequence[str], alpha: float) -> ClaimsFile:
    """Claims of the command line, called by what they say."""
    found = {}
    for number, text in enumerate(texts, start=1):
        try:
            parse(text)
        except UserError as error:
            raise UserError(f"--claim {shown(text)}: {error.message}") from None
        found[f"claim {number}" if len(texts) > 1 else "claim"] = text
    return ClaimsFile.model_validate({"claims": found, "alpha": alpha})


def read_claims(file: ClaimsFile, understood: Understood) -> list[Claim]:
    """The claims in the words of a table.

    Raises:
        UserError: one names an arm, factor, level, task or metric that is not there, leaves open
            which metric it means, or reads numbers that may be in two units.
    """
    names = understood.table.names
    found = []
    for name, claim in file.claims.items():
        try:
            if lacking := _lacking(claim.text, understood):
                raise UserError(lacking)
            one = Claim.read(name, claim.text, names, claim.min_effect)
        except UserError as error:
            raise UserError(
                f"claim {shown(name)}: {error.message}{_hint(error, understood)}"
            ) from None
        found.append(one)
    return found


def _lacking(text: str, understood: Understood) -> str:
    """Why it is not plain which number a claim means; "" where it is."""
    table = understood.table
    primary, named = table.primary[0], bool(understood.reading.primary)
    for options in options_of(parse(text)):
        task = options.get("task")
        if len(table.tasks) > 1 and task is None and not named:
            known = ", ".join(table.tasks)
            return f"say which task is meant, task=NAME or --primary TASK; there are {known}"
        own = table.tasks.get(primary if task is None else task)
        is_default = named and task in (None, primary)
        if "metric" not in options and own is not None and len(own.metrics) > 1 and not is_default:
            known = ", ".join(one.name for one in own.metrics)
            return f"say which metric is meant, metric=NAME or --primary NAME; there are {known}"
    return ""


def options_of(statements: Sequence[Statement]) -> list[Mapping[str, str]]:
    """The options of every term of a claim."""
    said = (getattr(one, "options", None) for one in _parts(statements))
    return [own for own in said if isinstance(own, Mapping)]


def terms_of(text: str) -> set[str]:
    """What a claim is about, roughly: the arms and factors that it names."""
    found: set[str] = set()
    for one in _parts(parse(text)):
        if isinstance(one, Score):
            found |= {name if level is None else f"{name}={level}" for name, level in one.arm}
        elif isinstance(factor := getattr(one, "factor", None), str):
            found.add(factor)
    return found


def _parts(statements: Sequence[Statement]) -> Iterator[object]:
    """Everything that a claim consists of: its statements, and what stands in them."""
    waiting: list[object] = list(statements)
    while waiting:
        one = waiting.pop(0)
        yield one
        waiting += [getattr(one, part) for part in ("left", "right", "of") if hasattr(one, part)]


def _hint(error: UserError, understood: Understood) -> str:
    """Words for those whose column is a metric where they named a task."""
    table = understood.table
    metrics = {metric.name for task in table.tasks.values() for metric in task.metrics}
    words = [word for word in metrics if repr(word) in error.message.partition(";")[0]]
    if error.message.startswith("no task") and words:
        return f"; {words[0]!r} is a metric here: metric={words[0]}"
    if error.message.startswith("no arm") and len(table.design.factors) > 1:
        return "; an arm is `base` or FACTOR=LEVEL,… of what differs from it (mm1 table lists them)"
    return ""
