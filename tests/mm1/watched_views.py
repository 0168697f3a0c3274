"""A study under way, as tests show it."""

from __future__ import annotations

from mm1.watching import STATES, ArmLine, ClaimLine, Run, View
from sweeps.live import Fault, RunningStage

CLAIM = ClaimLine(
    name="bigger-is-better",
    verdict="",
    interim=True,
    n=2,
    seeds=4,
    contrast="effect(size, 16 -> 32)",
    relation=">",
    boundary=0.0,
    effect=15.1,
    shown_effect="+15.1",
    standing="registered",
    reason="",
)
STAGE = RunningStage(
    stage="3f2a91bc00",
    label="size=32 seed 2: train",
    seconds=61,
    step=50,
    steps=400,
    steps_per_second=2.0,
    remaining=175,
    metrics={"learning_rate": 0.1, "loss": 0.25, "tokens_per_second": 12345.0, "mfu": 0.41},
)
FAULT = Fault(
    stage="77aa", label="size=8 seed 0: train", error="boom", attempt=3, again=False, at=1.0
)


def a_view(arms: int = 3, **changes) -> View:
    names = ["base", *(f"size={number}" for number in range(1, arms))]
    states = ("done", "diverged", "running", "waiting")
    lines = tuple(ArmLine(name, name, states, "66.0 ± 1.2") for name in names)
    values = {
        "study": "demo",
        "question": "What matters?",
        "taken": 100.0,
        "run": Run("running", "lab7", 4711, None, 65.0, 130.0, 2),
        "counts": {state: arms * states.count(state) for state in STATES},
        "seeds": (0, 1, 2, 3),
        "metric": "easy_vqa.accuracy",
        "arms": lines,
        "stages": (STAGE,),
        "more_stages": 0,
        "claims": (CLAIM,),
        "faults": (FAULT,),
    }
    return View(**(values | changes))
