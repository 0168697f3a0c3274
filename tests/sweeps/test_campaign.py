"""Whatever is killed, and whenever: nothing is lost, nothing runs twice, the bits are the same."""

from __future__ import annotations

import threading

import pytest
from campaign import TARGETS, Campaign, shuffled, study
from gang_campaign import GANG_TARGETS, GangCampaign

from sweeps.worker import execute

KILLS = 100


def test_a_few_kills_change_nothing(tmp_path):
    campaign = Campaign(tmp_path, seed=1, steps=40)
    plans = campaign.run(["worker", "raylet", "driver", "worker"])
    assert campaign.killed == ["worker", "raylet", "driver", "worker"]
    assert campaign.differences(plans) == []


@pytest.mark.slow
def test_a_hundred_kills_change_nothing(tmp_path):
    campaign = Campaign(tmp_path, seed=2)
    plans = campaign.run(shuffled(TARGETS, KILLS, seed=2))
    assert len(campaign.killed) == KILLS
    assert campaign.differences(plans) == []


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, KILLS])
def test_kills_among_gangs_change_nothing(tmp_path, kills):
    campaign = GangCampaign(tmp_path, seed=3)
    try:
        plans = campaign.run(shuffled(GANG_TARGETS, kills, seed=3))
    finally:
        campaign.close()
    assert len(campaign.killed) == kills
    assert campaign.differences(plans) == []


def test_a_campaign_sees_what_is_lost_changed_or_run_twice(tmp_path):
    """What the others rely on: differences are found where there are some."""
    campaign, plan = Campaign(tmp_path, seed=3), study(0, steps=10)
    for stage in plan.stages.values():
        execute(campaign.store, stage, tmp_path, threading.Event(), "revision")
    campaign.log.write_text("", encoding="utf-8")
    assert campaign.differences([plan]) == []
    trained, evaluated = list(plan.trials[0].stages.values())
    campaign.log.write_text(f"{trained} 9e12\n", encoding="utf-8")
    (weights,) = (tmp_path / "store").glob(f"stages/*/{trained}/*/output/weights")
    weights.write_bytes(weights.read_bytes()[::-1])
    campaign.store.set_aside(evaluated)
    found = "\n".join(campaign.differences([plan]))
    assert "is missing" in found
    assert "after it was finished" in found
    assert "damaged: " in found
    attempt = campaign.store.done_record(trained).attempt
    campaign.attempts[trained] = f"not {attempt}"
    campaign._look()
    assert "was finished twice" in "\n".join(campaign.wrong)
