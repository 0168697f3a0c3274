"""A stage that does what a runner should not; imported by path in workers too."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from ablations.stage import ResultRow, StageStopped


class OwnError(BaseException):
    pass


class MuteError(Exception):
    def __str__(self):
        raise OwnError


def raise_(error):
    raise error


def close_streams():
    sys.stdout.close()
    sys.stderr.close()
    for number in range(3):
        os.close(number)


def leave_threads():
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(600,), daemon=False).start()


def change_process():
    os.chdir("/")
    os.environ["UNRULY"] = "1"
    os.environ.pop("HOME", None)


FAILS = {
    "interrupt": lambda: raise_(KeyboardInterrupt()),
    "system exit": lambda: sys.exit(3),
    "own": lambda: raise_(OwnError("mine")),
    "mute": lambda: raise_(MuteError()),
    "surrogate": lambda: raise_(ValueError("caf\udce9 \x1b[31mred")),
    "long": lambda: raise_(ValueError("x" * 20_000_000)),
    "recursion": lambda: (f := lambda: f())(),
    "stopped": lambda: raise_(StageStopped()),
    "nothing": lambda: None,
    "numbers": lambda: [1, 2],
}
DIES = {
    "exit": lambda: os._exit(0),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "group": lambda: os.killpg(0, signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
}
WORKS = {
    "streams": close_streams,
    "threads": leave_threads,
    "process": change_process,
    "prints": lambda: [print("y" * 1_000_000) for _ in range(100)] and None,
}


def train(config, seed, inputs, context):
    """Does what its config says; then tells of its process in a file."""
    does = config["does"]
    if does in FAILS:
        return FAILS[does]()
    tried = context.scratch / "tried"
    if does in WORKS or not (config.get("once") and tried.exists()):
        tried.touch()
        (DIES | WORKS)[does]()
    return (ResultRow("training", "loss", 1.0, step=step) for step in (1, 2))


def look(config, seed, inputs, context):
    """Fails where the stage before it left something behind."""
    assert os.environ.get("UNRULY") is None
    assert "HOME" in os.environ
    assert Path.cwd() != Path("/")
    print("can be written to", file=sys.stdout)
    print("can be written to", file=sys.stderr, flush=True)
    assert [os.fstat(number) for number in range(3)]
    return [ResultRow("easy_vqa", "accuracy", 1.0, split="test", n_items=1)]
