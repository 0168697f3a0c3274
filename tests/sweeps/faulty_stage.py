"""Stages that hang, run out of memory, or are told to yield. Imported by path in workers too."""

from __future__ import annotations

import os
import pathlib
import time

from whole_files import write_whole

from ablations.stage import ResultRow, StageStopped


def train(config, seed, inputs, context):
    """Steps of 50 ms that are saved; meanwhile what `config` says goes wrong, so many times.

    With `until` they end when there is such a file.
    """
    began = time.time()
    context.record({"pid": os.getpid(), "began": began})
    state = context.scratch / "step"
    first = int(state.read_text(encoding="utf-8")) if state.exists() else 0
    for step in range(first, config.get("steps", 3)):
        if "until" in config and pathlib.Path(config["until"]).exists():
            break
        time.sleep(0.05)
        context.report(step + 1, {"loss": 1.0})
        write_whole(state, str(step + 1))
        if context.stop_requested() and not config.get("deaf"):
            raise StageStopped
    if _times(context, "hung", config.get("hangs", 0)):
        sleep_for_ever()
    if _times(context, "hungry", config.get("hungry", 0)):
        bytearray(1 << 62)
    (context.output / "first_step").write_text(str(first), encoding="utf-8")
    context.record({"ended": time.time()})
    return [ResultRow("easy_vqa", "accuracy", 50.0 + seed, split="test", n_items=10)]


def sleep_for_ever():
    while True:
        time.sleep(1.0)


def _times(context, name, most):
    """Whether this is one of the first `most` attempts that come here."""
    place = context.scratch / name
    count = int(place.read_text(encoding="utf-8")) if place.exists() else 0
    write_whole(place, str(count + 1))
    return count < most
