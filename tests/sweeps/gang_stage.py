"""A stage that several processes run together, each step a sum over all of them.

Imported by path in workers too. It needs every process at every step, as a collective of JAX or
PyTorch does: who waits for one that has died or failed waits for ever, or notices it.
"""

from __future__ import annotations

import json
import os
import time
from multiprocessing.connection import Client, Listener

from whole_files import write_whole

from ablations.errors import UserError
from ablations.stage import Gang, ResultRow, StageStopped

KEY = b"gang"


def train(config, seed, inputs, context):
    """`steps` steps from the last checkpoint; `kills`, `fails`: what process does so at step 3."""
    gang = context.gang or Gang("", 1, 0)
    state = context.scratch / "state.json"
    (context.scratch / f"pid-{gang.index}").write_text(str(os.getpid()), encoding="utf-8")
    total = Sum(gang)
    kept = (
        json.loads(state.read_text(encoding="utf-8"))
        if state.exists()
        else {"step": 0, "value": 1.0}
    )
    first, value = kept["step"], kept["value"]
    total.of(0.0)  # all have read the same state
    for step in range(first + 1, config["steps"] + 1):
        trouble(config, step, gang, context)
        value = 0.5 * value + total.of((gang.index + 1) / step)
        stops = total.of(float(context.stop_requested()))
        if gang.index == 0:
            write_whole(state, json.dumps({"step": step, "value": value}))
            context.report(step, {"loss": value})
        if stops:
            raise StageStopped
    if gang.index == 0:
        (context.output / "first_step").write_text(str(first), encoding="utf-8")
        (context.output / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        (context.output / "where.json").write_text(json.dumps(where()), encoding="utf-8")
    return [ResultRow("training", "loss", value, step=config["steps"])]


def trouble(config, step, gang, context):
    once = context.scratch / "trouble"
    if step != 3 or once.exists():
        return
    if gang.index == config.get("kills"):
        once.touch()
        os.kill(os.getpid(), 9)
    if gang.index == config.get("fails"):
        once.touch()
        raise ValueError("told to fail")
    if gang.index == config.get("mistakes"):
        raise UserError("told to be wrong")
    if config.get("waits"):  # for somebody to kill one, or ask them to stop
        write_whole(context.scratch / f"waits-{gang.index}", json.dumps(where()))
        while not context.stop_requested():
            time.sleep(0.05)


def where():
    """The node that this process is on, and which TPU chips it sees."""
    import ray

    names = ("TPU_NAME", "TPU_WORKER_ID", "TPU_VISIBLE_CHIPS")
    node = ray.get_runtime_context().get_node_id()
    return {"node": node, **{name: os.environ.get(name, "") for name in names}}


class Sum:
    """The sum over all processes of a number of each."""

    def __init__(self, gang):
        host, _, port = gang.coordinator.rpartition(":")
        self._ends = []
        if gang.count > 1 and gang.index == 0:
            self._listener = Listener((host, int(port)), authkey=KEY)
            self._ends = [self._listener.accept() for _ in range(gang.count - 1)]
        elif gang.count > 1:
            while not self._ends:
                try:
                    self._ends = [Client((host, int(port)), authkey=KEY)]
                except ConnectionRefusedError:
                    time.sleep(0.02)
        self._is_first = gang.index == 0

    def of(self, number):
        if not self._is_first:
            (end,) = self._ends
            end.send(number)
            return end.recv()
        total = number + sum(end.recv() for end in self._ends)
        for end in self._ends:
            end.send(total)
        return total
