"""A few seconds of a command, to find out what is wrong between it and its study.

Nothing is kept. A step runs with one seed and config, then with another seed, with another arm's
config, and again with the first: what comes out equal, or not, says whether it hears them.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ablations.command import placeholders
from ablations.command.process import how_it_ended
from ablations.command.results import Numbers, lost_at_its_end
from ablations.command.runner import (
    CommandStage,
    Ending,
    Folders,
    Printed,
    Reports,
    Watched,
    carry_out,
    check_data,
    measured,
    rejected,
    results_of,
    standing_here,
    started_with,
)
from ablations.errors import UserError, nearest
from ablations.own_workload import metric_parts
from ablations.stage import ResultRow

GRACE_SECONDS = 5.0  # when a try is cut off
_CLOCK = re.compile(r"time|second|elapsed|per_s|throughput|speed|date", re.IGNORECASE)


@dataclass(frozen=True)
class Tried:
    """What came of running a step for a few seconds."""

    stage: CommandStage
    seed: int
    output: Path
    seconds: float
    ending: Ending | None  # None where it could not be started
    numbers: Numbers
    wrong: str = ""  # the one thing that would fail a study
    changed: Sequence[str] = ()  # files of the working folder
    printed: str = ""
    rows: Sequence[ResultRow] = field(default=())

    @property
    def ended(self) -> bool:
        """Whether it came to its end, and well."""
        return self.ending is not None and not self.ending.asked and not self.wrong


def try_step(
    stage: CommandStage, seed: int, inputs: Mapping[str, Path], folder: Path, seconds: float
) -> Tried:
    """Run a step in an empty folder for up to some seconds."""
    stage = standing_here(stage, folder / "checkout")
    stage = stage.model_copy(update={"grace": min(stage.grace, GRACE_SECONDS)})
    output = folder / "output"
    output.mkdir(parents=True)
    folders = Folders(stage, folder / "scratch", output)
    before = Watched(stage, (folder,))
    said = bytearray()
    printed = Printed(folder / "printed.txt", said.extend)
    results = results_of(stage, folders)
    reports = Reports(lambda step, numbers: None)
    began, ending, wrong = time.monotonic(), None, ""
    rows: list[ResultRow] = []
    try:
        check_data(stage)
        ending = carry_out(
            stage,
            *started_with(stage, seed, inputs, folders),
            printed,
            results,
            reports,
            lambda elapsed: "time" if elapsed > seconds else "",
        )
        if not ending.asked:
            if ending.code:
                words = f": {printed.last_words}" if printed.last_words else ""
                hint = rejected(stage.config, printed.stderr)
                wrong = f"it ended with {how_it_ended(ending.code)}{words}{hint}"
            else:
                rows = measured(stage, folders, results, reports)
                folders.keep(output)
    except UserError as error:
        wrong = error.message
    return Tried(
        stage=stage,
        seed=seed,
        output=output,
        seconds=time.monotonic() - began,
        ending=ending,
        numbers=results.numbers,
        wrong=wrong,
        changed=before.changed(),
        printed=said[-4_000:].decode("utf-8", "replace"),
        rows=rows,
    )


@dataclass(frozen=True)
class Finding:
    """One line of what a try found; `wrong` is what would fail a study, or make it meaningless."""

    wrong: bool
    text: str


def findings(tried: Tried) -> Iterator[Finding]:
    """What one run of a step says about its side of the contract."""
    stage, ending = tried.stage, tried.ending
    if tried.wrong:
        yield Finding(True, tried.wrong)
    elif ending is not None and ending.asked:
        yield from _so_far(tried)
        if not ending.obeyed:
            yield Finding(
                stage.resumable,
                f"it did not end within {stage.grace:g} s of SIGTERM and was killed: a stop of the "
                "study waits for its grace period and then loses what it did not save",
            )
    else:
        declared = [(task or stage.step, name) for task, name in map(metric_parts, stage.metrics)]
        scores = ", ".join(
            f"{row.task}.{row.metric} {row.value:.4g}"
            for row in tried.rows
            if (row.task, row.metric) in declared and row.split == "test"
        )
        yield Finding(
            False, f"it ended well after {tried.seconds:.1f} s{f'; {scores}' if scores else ''}"
        )
        if lost := lost_at_its_end(tried.numbers):
            yield Finding(
                False,
                f"it counts as diverged, for {', '.join(lost[:5])} is not finite in the end; leave "
                "out what was not measured",
            )
    if tried.changed:
        named = ", ".join(tried.changed[:5]) + (", …" if len(tried.changed) > 5 else "")
        yield Finding(
            True,
            f"it wrote {named} in its working folder, where trials that run at the same time "
            "overwrite each other's; let it write to {output} or {scratch}",
        )
    used = {one.name for word in stage.command for one in placeholders.placeholders(word)}
    used |= {
        one.name for text in stage.environment.values() for one in placeholders.placeholders(text)
    }
    if placeholders.OUTPUT not in used and stage.results not in ("", "stdout"):
        yield Finding(
            True,
            f"results are read from {{output}}/{stage.results}, and the command is "
            "given no {output}",
        )


def _so_far(tried: Tried) -> Iterator[Finding]:
    """What a run that was cut off has shown."""
    seen = sorted(tried.numbers.curves)
    after = f"after {tried.seconds:.0f} s, when it was stopped"
    if not seen:
        yield Finding(False, f"{after}, it had no results yet; a longer try: --seconds 60")
        return
    named = ", ".join(seen[:10]) + (", …" if len(seen) > 10 else "")
    rows = tried.numbers.rows
    counted = "1 row" if rows == 1 else f"{rows} rows"
    yield Finding(False, f"{after}, it had {counted} of results with {named}")
    for name, metric in tried.stage.metrics.items():
        if metric.key not in seen:
            near = nearest(metric.key, seen)
            hint = (
                f"{near} (what the results call it goes into its key)"
                if near.startswith("; did")
                else ""
            )
            yield Finding(False, f"not seen yet: the metric {name}{hint}")


def differences(
    first: Tried,
    other_seed: Tried | None,
    other_arm: Tried | None,
    again: Tried | None,
    arms: tuple[str, str],
) -> Iterator[Finding]:
    """What runs of one step say beside each other; `arms` are the names of the two configs."""
    if again is not None and (same := _equal(first, again)) is not None:
        if same:
            yield Finding(False, f"seed {first.seed} twice gave the same numbers")
        else:
            yield Finding(
                False,
                f"seed {first.seed} twice gave different numbers: arms are compared seed by seed, "
                "and share less chance than they could",
            )
    if other_seed is not None and (same := _equal(first, other_seed)) is not None:
        told = f"seeds {first.seed} and {other_seed.seed} gave "
        if same:
            yield Finding(True, f"{told}the same numbers: does it use the seed?")
        else:
            yield Finding(False, f"{told}different numbers, as they should")
    if other_arm is not None and (same := _equal(first, other_arm)) is not None:
        told = f"{arms[0]} and {arms[1]} gave "
        if same and not (first.ended and other_arm.ended):
            yield Finding(False, f"{told}the same numbers so far; a longer try: --seconds 60")
        elif same:
            yield Finding(
                True, f"{told}the same numbers: does it read what {arms[1]} sets in the config?"
            )
        else:
            yield Finding(False, f"{told}different numbers")


def _equal(one: Tried, two: Tried) -> bool | None:
    """Whether the numbers that both have are equal; None where that cannot be said."""
    a, b = _comparable(one), _comparable(two)
    shared = a.keys() & b.keys()
    if one.ended and two.ended and shared:  # one of more steps than the other is another
        return a == b
    return all(a[key] == b[key] for key in shared) if shared else None


def _comparable(tried: Tried) -> dict[tuple[str, int], str]:
    """(name, step) → number, the declared metrics where there are any."""
    curves = tried.numbers.curves
    declared = {metric.key for metric in tried.stage.metrics.values()} & curves.keys()
    names = declared or {name for name in curves if not _CLOCK.search(name)}
    return {
        (name, step): "nan" if math.isnan(value) else repr(value)
        for name in names
        for step, value in curves[name].items()
    }


def stage_of(config: Mapping[str, object]) -> CommandStage:
    """The step that a plan's work describes."""
    return CommandStage.model_validate_json(json.dumps(config))
