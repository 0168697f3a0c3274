"""Examples of a report: items drawn by their hash, with what every arm answered to each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas

from ablations.command.examples import image_kind
from ablations.errors import MissingFileError
from ablations.workload import Asked
from analysis.report.document import Block, Example, Examples, Given, Heading, Image, Text
from analysis.results import StudyResults
from sweeps.records import UnreadableError

MOST = 6  # of each kind: right and wrong
MOST_TASKS = 12
IMAGE = "<image>"  # where an image stands in a stored prompt
ARMS_NAMED = 6  # beside an answer that several arms gave
ARMS_READ = 24  # whose answers are shown; each is a file of the store


def examples(results: StudyResults) -> Iterable[Block]:
    """Examples of each task, the primary one first."""
    plan = results.plan
    tasks = dict.fromkeys([plan.primary_metric[0], *(task for task, *_ in results.table.metrics)])
    parts: list[Block] = []
    missing: set[str] = set()
    answers = plan.answers(plan.trials[0])
    shown: set[str] = set()  # a stage that answers several tasks has one set of examples
    for task in list(tasks)[:MOST_TASKS]:
        stage = answers.get(Asked(task), task)
        if stage in shown:
            continue
        shown.add(stage)
        try:
            found = list(_of_task(results, task, missing))
        except UnreadableError as error:
            found = [Text(f"Left out: {error}", "note")]
        if found:
            parts += [Heading(task), *found]
    if len(tasks) > MOST_TASKS:
        left = ", ".join(list(tasks)[MOST_TASKS:])
        parts.append(Text(f"Examples of other tasks are in the dashboard: {left}.", "note"))
    if missing:
        yield Text(
            "Images are not shown: the prepared data is not on this machine "
            f"({', '.join(sorted(missing))}).",
            "note",
        )
    yield from parts or [Text("No example has been stored yet.")]


def _of_task(results: StudyResults, task: str, missing: set[str]) -> Iterable[Block]:
    """The base's right and wrong answers of one task, every arm's prediction in each."""
    plan = results.plan
    base = plan.arms[0].name
    for seed in plan.seeds:
        table = results.examples(base, seed, task)
        if table is not None:
            break
    else:
        return
    if "image" not in table:  # of ours, those without an image are pages of text
        table = table[table["image_id"] >= 0]
    if not len(table):
        return
    others = {
        arm.label: found.set_index("item_id")
        for arm in plan.arms[:ARMS_READ]
        if (found := results.examples(arm.name, seed, task)) is not None
    }
    # A fixed draw, so that nobody picks: the order of the items' hashes.
    order = table["item_id"].map(lambda item: hashlib.sha256(str(item).encode()).hexdigest())
    table = table.assign(order=order).sort_values("order")
    exact = (task, "accuracy") in {one[:2] for one in results.table.metrics}
    if exact:
        right, wrong = table[table["score"] > 0], table[table["score"] == 0]
        groups = {"Answered rightly by the base": right, "Answered wrongly by the base": wrong}
    else:
        groups = {"Drawn at random": table}
    told = f"Seed {seed}; drawn by the hash of the item, not picked."
    if (more := len(plan.arms) - ARMS_READ) > 0:
        told += f" The first {ARMS_READ} arms; those of the other {more:,} are in the dashboard."
    yield Text(told, "note")
    for title, group in groups.items():
        items = [
            _example(results, task, item, others, exact, missing)
            for item in group.head(MOST).to_dict("records")
        ]
        if items:
            yield Heading(title, minor=True)
            yield Examples(tuple(items))


def _example(
    results: StudyResults,
    task: str,
    item: Mapping[str, Any],
    arms: Mapping[str, pandas.DataFrame],
    exact: bool,
    missing: set[str],
) -> Example:
    given: dict[tuple[str, float], list[str]] = {}  # equal answers share a line
    for label, table in arms.items():
        if item["item_id"] in table.index:
            mine = table.loc[item["item_id"]]
            given.setdefault((str(mine["prediction"]), float(mine["score"])), []).append(label)
    answers = []
    for (prediction, score), labels in given.items():
        answers.append(
            Given(
                mark=("✓" if score > 0 else "✗") if exact else f"{score:.2g}",
                verdict=("right" if score > 0 else "wrong") if exact else "",
                text=prediction,
                arms=tuple(labels[:ARMS_NAMED]),
                more_arms=max(0, len(labels) - ARMS_NAMED),
            )
        )
    prompt = str(item["prompt"])
    if prompt.count(IMAGE) == 1:
        prompt = prompt.removeprefix(IMAGE)  # the one beside it
    return Example(
        prompt=prompt,
        reference=" / ".join(map(str, list(item["references"])[:3])),
        image=_image(results, task, item, missing),
        has_image="image" not in item or bool(item["image"]),
        answers=tuple(answers),
    )


def _image(
    results: StudyResults, task: str, item: Mapping[str, Any], missing: set[str]
) -> Image | None:
    """The image of an example: kept with it, or in the prepared data."""
    if "image" in item:
        kept = item["image"]
        kind = image_kind(kept)
        if kind is None:
            return None
        return Image(str(item["image_file"]), kind, kept, f"{item['image_file']} of {task}")
    number = int(item["image_id"])
    try:
        found = results.prepared_picture(number)
    except MissingFileError as error:
        missing.add(Path(error.message).name)  # where it would be is no part of a report
        return None
    if found is None:
        return None
    return Image(f"image {number}", "png", found, f"image {number} of {task}")
