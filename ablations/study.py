"""The study file: a question, a base config, what is varied, and what is claimed.

    study: demo
    question: What matters most for a small model that answers questions about pictures?
    base: ../recipes/mini.yaml          # relative to this file
    design:
      one_at_a_time:                    # or `factorial`, or `arms`
        encoder.image_size: [32, 16]
    seeds: 3
    primary_metric: easy_vqa.accuracy
    claims:
      bigger-is-better: effect(encoder.image_size, 16 -> 32) > 0

This module is the schema. What a design comes to is told in `ablations.designs`, what a claim
means in `ablations.claim_grammar`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import Field, PlainValidator, PositiveInt, model_validator

from ablations.adaptive_seeds import AdaptiveSeeds, read_adaptive
from ablations.claim_grammar import LARGEST
from ablations.designs import DesignConfig, unusable_name
from ablations.errors import UserError, nearest, shown
from ablations.runners import check_runner
from ablations.schema import Config
from ablations.settings import written_at
from ablations.workload import AnyConfig, Workload
from ablations.workloads import named_workload
from ablations.yaml_files import YamlDocument, load_yaml, validate

MOST_SEEDS = 1_000_000
LONGEST_NAME = (
    128  # of a study: folders, reports and jobs are called by it, most with something added
)
MOST_CLAIMS = 1_000


class Claim(Config):
    """A claim as written; `min_effect` is what its effect must exceed."""

    text: str
    min_effect: float = 0.0


class FreshSeeds(Config):
    """`{from: fresh, count: n}`: n seeds that no other study uses."""

    count: PositiveInt


def read_claim(value: Any) -> Claim:
    """A claim as a file has it. Raises `ValueError`."""
    if isinstance(value, str):
        return Claim(text=value)
    if not isinstance(value, dict) or not isinstance(value.get("claim"), str):
        raise ValueError(
            'expected a claim such as "score(base) > 60", or {claim: …, min_effect: …}'
        )
    if unknown := set(value) - {"claim", "min_effect"}:
        raise ValueError(f"unknown key {shown(sorted(unknown)[0])}; valid: claim, min_effect")
    least = value.get("min_effect", 0.0)
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= LARGEST:
        raise ValueError(f"min_effect: {shown(least)} is not a number of at least 0")
    return Claim(text=value["claim"], min_effect=least)


Seeds = tuple[int, ...] | FreshSeeds | AdaptiveSeeds


def read_seeds(value: Any) -> Seeds:
    """Seeds as a file has them. Raises `ValueError`."""

    def whole(number: Any) -> bool:
        return isinstance(number, int) and not isinstance(number, bool)

    if whole(value) and 0 < value <= MOST_SEEDS:
        return tuple(range(value))
    if isinstance(value, list) and value and all(whole(s) and 0 <= s < 2**31 for s in value):
        if len(set(value)) < len(value):
            raise ValueError(f"{shown(value)} names a seed twice")
        return tuple(value)
    if isinstance(value, dict) and "until" in value:
        return read_adaptive(value)
    if isinstance(value, dict) and set(value) == {"from", "count"} and value["from"] == "fresh":
        if whole(value["count"]) and 0 < value["count"] <= MOST_SEEDS:
            return FreshSeeds(count=value["count"])
        raise ValueError(f"count: {shown(value['count'])} is not a number from 1 to {MOST_SEEDS:,}")
    raise ValueError(
        f"{shown(value)} is not valid: expected how many (1 to {MOST_SEEDS:,}), "
        "which ([0, 1, 2], each below 2**31), {from: fresh, count: 3}, or "
        "{initial: 3, max: 12, until: verdict}"
    )


class StudyFile(Config):
    """The keys of a study file."""

    study: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME, description="its name"
    )
    question: str
    base: str = Field(description="its config, relative to the study file")
    workload: Any = Field(None, description="what is trained, if not a recipe of ours")
    overrides: dict[str, Any] = Field({}, description="path → value, changes of the base")
    design: DesignConfig
    seeds: Annotated[Seeds, PlainValidator(read_seeds)]
    primary_metric: str = Field(
        pattern=r"^[\w/@-]+(\.[\w/@-]+)*$", max_length=200, description="task.metric"
    )
    claims: dict[str, Annotated[Claim, PlainValidator(read_claim)]] = Field(
        {}, description="name → claim, or {claim: …, min_effect: …}"
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="chance of any wrong verdict")
    null_arms: int = Field(
        0,
        ge=0,
        le=1_000,
        description="copies of the base with other first weights: the noise floor",
    )
    runners: dict[str, str] = Field(
        {}, description="kind of stage → import path of your own runner, package.module:function"
    )
    labels: dict[str, str] = Field({}, description="arm or factor=level → text for display")
    exclude: dict[str, str] = Field({}, description="trial, as ARM seed N → why it does not count")

    @model_validator(mode="after")
    def _possible(self) -> StudyFile:
        if len(self.claims) > MOST_CLAIMS:
            raise ValueError(f"claims: {len(self.claims):,}, more than {MOST_CLAIMS:,}")
        for key, names in (("claims", self.claims), ("labels", self.labels.values())):
            for name in names:
                if (wrong := unusable_name(name)) is not None:
                    raise ValueError(f"{key}: {wrong}")
        for name, reason in self.exclude.items():
            if not reason.strip():
                raise ValueError(f"exclude: {shown(name)} has no reason")
        if self.exclude and isinstance(self.seeds, FreshSeeds):
            raise ValueError(
                "exclude: with seeds that are drawn; write those that were drawn, which mm1 plan "
                "--json prints, in the place of {from: fresh}"
            )
        for kind, path in self.runners.items():
            module, _, function = path.partition(":")
            if not all(part.isidentifier() for part in [*module.split("."), function]):
                raise ValueError(f"runners.{kind}: {shown(path)} is not package.module:function")
        if isinstance(self.seeds, AdaptiveSeeds) and not self.claims:
            raise ValueError("seeds: until: verdict needs claims, and there are none")
        if isinstance(self.seeds, AdaptiveSeeds) and self.exclude:
            raise ValueError(
                "exclude: not with seeds until: verdict, whose boundary holds only where no seed "
                "is left out"
            )
        return self

    @property
    def seed_count(self) -> int:
        """How many seeds, at most."""
        if isinstance(self.seeds, AdaptiveSeeds):
            return self.seeds.most
        return self.seeds.count if isinstance(self.seeds, FreshSeeds) else len(self.seeds)

    @property
    def has_fresh_seeds(self) -> bool:
        """Whether its seeds are drawn, so that no other study has them."""
        seeds = self.seeds
        return seeds.is_fresh if isinstance(seeds, AdaptiveSeeds) else isinstance(seeds, FreshSeeds)


@dataclass(frozen=True)
class Study:
    """A study file that was read, with its workload, its base and the places of its keys."""

    file: StudyFile
    workload: Workload
    base: AnyConfig  # with the overrides
    dropped: tuple[str, ...]  # fields of the base that an override's change of kind removed
    document: YamlDocument


def is_file(study: str | Path) -> bool:
    """Whether what a user calls a study is the path of its file, and not the name it ran under."""
    text = str(study)
    return isinstance(study, Path) or text.endswith((".yaml", ".yml")) or "/" in text


def study_name(path: str | Path) -> str:
    """The name of the study in a file, whose base is not read. Raises `UserError`."""
    document = load_yaml(path)
    return validate(document, StudyFile, document.value).study


def load_study(path: str | Path, workload: Workload) -> Study:
    """Read a study and its base config; `workload` is meant where the file names none.

    Raises:
        UserError: whatever is wrong with either file, with file, line, key and nearest choice.
    """
    document = load_yaml(path)
    file = validate(document, StudyFile, document.value)
    if file.workload is not None:
        workload = named_workload(document)
    for kind, runner in file.runners.items():
        try:
            if kind not in workload.kinds:
                raise UserError(f"no stage of this kind{nearest(kind, workload.kinds)}")
            check_runner(runner)
        except UserError as error:
            document.fail(f"runners.{kind}: {error}", ("runners", kind))
    base_path = Path(path).parent / file.base
    try:
        there = base_path.is_file()
    except OSError:  # a name that no file can have
        there = False
    if not there:
        document.fail(f"base: no such file {shown(str(base_path))}", ("base",))
    base = workload.schema.load(base_path)

    def fail(path: str, message: str) -> NoReturn:
        place = written_at(file.overrides, path)
        document.fail(f"overrides: {message}", ("overrides", *place))

    base, dropped = workload.schema.assign(base, file.overrides, fail)
    return Study(file, workload, base, dropped, document)
