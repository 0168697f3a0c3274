"""What changed between two looks at a study, as events: `mm1 watch --json`, and its plain lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mm1.watch_view import told_claim, told_fault, told_stage, told_state, told_time
from mm1.watching import View
from sweeps.display import clock
from sweeps.live import Fault

RUN_SECONDS = 10.0  # the time to go is told at least so often


class Events:
    """Tells what is new in each view; of the first one, all there is."""

    def __init__(self) -> None:
        self._last: View | None = None
        self._told_run = 0.0
        self._silent: set[str] = set()

    def of(self, view: View) -> Iterator[dict[str, Any]]:
        """The events that lead from the last view to this one."""
        last, self._last = self._last, view
        said = {"time": round(time.time(), 3), "study": view.study}
        yield from ({**said, **event} for event in self._new(last, view))

    def _new(self, last: View | None, view: View) -> Iterator[dict[str, Any]]:
        run = view.run
        same = last is not None and (last.run.state, last.counts) == (run.state, view.counts)
        if not same or (run.is_on and view.taken - self._told_run >= RUN_SECONDS):
            self._told_run = view.taken
            yield {
                "event": "run",
                "state": run.state,
                "host": run.host,
                "pid": run.pid,
                "code": run.code,
                "workers": run.workers,
                "trials": dict(view.counts),
                "elapsed_seconds": round(run.elapsed, 1),
                "remaining_seconds": None if run.remaining is None else round(run.remaining, 1),
            }
        before = {arm.name: arm.states for arm in last.arms} if last else {}
        for arm in view.arms:
            if arm.states == before.get(arm.name):
                continue
            earlier = before.get(arm.name) or ("waiting",) * len(view.seeds)
            for seed, state, was in zip(view.seeds, arm.states, earlier, strict=True):
                if state != was:
                    yield {"event": "trial", "arm": arm.name, "seed": seed, "state": state}
        yield from self._stages(last, view)
        known = {claim.name: claim for claim in last.claims} if last else {}
        for claim in view.claims:
            if claim != known.get(claim.name):
                shown = {k: v for k, v in asdict(claim).items() if k != "shown_effect"}
                yield {"event": "claim", **shown, "verdict": claim.verdict or None}
        faults = set(last.faults) if last else set()
        for fault in view.faults:
            if fault not in faults:
                yield {"event": "fault", **fault.model_dump(mode="json")}
        for note in view.notes:
            if last is None or note not in last.notes:
                yield {"event": "note", "text": note}

    def _stages(self, last: View | None, view: View) -> Iterator[dict[str, Any]]:
        steps = {one.stage: one.step for one in last.stages} if last else {}
        for one in view.stages:
            if one.stage not in steps or one.step != steps[one.stage]:
                yield {"event": "stage", **one.model_dump(mode="json")}
            if one.silent_seconds and one.stage not in self._silent:
                self._silent.add(one.stage)
                yield {
                    "event": "silent",
                    "stage": one.stage,
                    "label": one.label,
                    "seconds": round(one.silent_seconds, 1),
                }
            elif not one.silent_seconds:
                self._silent.discard(one.stage)


def line(event: dict[str, Any], view: View) -> str | None:
    """An event as a line of a log; None for those that would only repeat one."""
    match event["event"]:
        case "run":
            counts = ", ".join(f"{n} {state}" for state, n in view.counts.items() if n)
            words = "".join(text for text, _ in told_state(view.run))
            running = view.stages[0] if view.stages else None
            shown = f" | {running.label} {told_stage(running)}" if running else ""
            more = f" and {len(view.stages) - 1} more" if len(view.stages) > 1 else ""
            return f"{view.study}: {words} | trials: {counts} | {told_time(view.run)}{shown}{more}"
        case "trial" if event["state"] in ("done", "diverged", "failed", "cancelled"):
            return f"{event['state']}: {event['arm']} seed {event['seed']}"
        case "claim":
            claim = next(one for one in view.claims if one.name == event["name"])
            return f"claim {claim.name}: {told_claim(claim)[0]}"
        case "fault":
            named = {name: event[name] for name in Fault.model_fields}
            return f"failed: {told_fault(Fault.model_validate(named))}"
        case "silent":
            return f"silent for {clock(event['seconds'])}: {event['label']}"
        case "note":
            return event["text"]
    return None
