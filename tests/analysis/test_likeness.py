"""Which arms train the same, found at once as one by one."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

from ablations.plan import Plan
from analysis.likeness import NOTHING, TOLERANCE, TrainedArms, differing, near


def plan_of(configs: list[dict[str, Any]], free: tuple[str, ...] = ()) -> Plan:
    """As much of a plan as is looked at."""
    names = [f"arm-{number}" for number in range(len(configs))]
    return cast(
        Plan,
        SimpleNamespace(
            arms=[
                SimpleNamespace(name=name, config=one)
                for name, one in zip(names, configs, strict=True)
            ],
            trials=[SimpleNamespace(arm=name, stages={"training": "t"}) for name in names],
            stages={"t": SimpleNamespace(work=SimpleNamespace(pinned=False))},
            free=free,
            untrained=(),
        ),
    )


def test_numbers_are_near_by_their_ratio_and_others_where_they_are_equal() -> None:
    assert near(1.0, 1.0 + 0.9 * TOLERANCE)
    assert not near(1.0, 1.0 + 1.1 * TOLERANCE)
    assert near(0, NOTHING / 2)
    assert not near(float("nan"), float("nan"))
    assert near("gelu", "gelu")
    assert not near(1, None)


def test_all_arms_that_match_are_found_and_no_others() -> None:
    draw = random.Random(0)
    configs = [
        {
            "rate": draw.choice([0.1, 0.1 * (1 + 0.8 * TOLERANCE), 0.2, 0, NOTHING / 3, None]),
            "block": {"norm": draw.choice(["rms", "layer"]), "widths": [draw.choice([8, 16]), 3]},
            **({"more": True} if draw.random() < 0.5 else {}),
        }
        for _ in range(60)
    ]
    trained = TrainedArms(plan_of(configs))
    matched = 0
    for one, its in trained.leaves.items():
        expected = {name for name, other in trained.leaves.items() if not differing(its, other)}
        assert trained.like(its) == expected
        matched += len(expected) > 1
        assert one in expected
    assert matched > 10
    assert TrainedArms(plan_of([])).like({"rate": 1}) == set()


def test_the_order_of_keys_and_what_decides_nothing_are_left_out() -> None:
    configs = [{"a": 1, "b": {"c": 2}, "seed": 1}, {"seed": 2, "b": {"c": 2}, "a": 1}]
    trained = TrainedArms(plan_of(configs, free=("seed",)))
    for its in trained.leaves.values():
        assert trained.like(its) == {"arm-0", "arm-1"}
    apart = TrainedArms(plan_of(configs))
    assert [len(apart.like(its)) for its in apart.leaves.values()] == [1, 1]
