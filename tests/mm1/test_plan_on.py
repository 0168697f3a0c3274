"""What a plan comes to on a machine: whether it fits, how long it takes, what it costs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.errors import UserError
from ablations.machine import load_machine, with_price
from ablations.plan import make_plan
from mm1 import plan_on, plan_text
from mm1.options import machine_of
from mm1.plan_on import on_machine
from mm1.studies import load_study
from sweeps.scheduler import START_SECONDS

ROOT = Path(__file__).parents[2]
LARGE = """\
study: large
question: Does it fit?
base: {base}
overrides: {{training.mesh: {{fsdp: {mesh}}}, training.micro_batches: {parts}}}
design:
  arms:
    wider: {{training.batch_size: 8192}}
    longer: {{training.steps: 400000}}
seeds: 2
primary_metric: emoji_caption.cider
"""
COMMAND = """\
study: own
question: How long?
workload:
  steps:
    pretrain:
      command: "sh a.sh {config:rate} {seed} {output}"
      code: [a.sh]
      resources: {gpu: 0.5}
SECONDS
    test:
      command: "sh b.sh {input:pretrain} {output}"
      code: [b.sh]
      needs: [pretrain]
      seconds: 60
      metrics: {loss: {goal: minimize}}
base: base.yaml
design: {one_at_a_time: {rate: [1, 2]}}
seeds: 3
primary_metric: test.loss
"""


def large(folder, recipe="mm1_3b", parts=16, mesh=8):
    base = ROOT / f"ablations/recipes/{recipe}.yaml"
    text = LARGE.format(base=base, parts=parts, mesh=mesh)
    (folder / "large.yaml").write_text(text, encoding="utf-8")
    return make_plan(load_study(folder / "large.yaml"))


def own(folder, seconds=None):
    said = "" if seconds is None else f"      seconds: {seconds}"
    (folder / "own.yaml").write_text(COMMAND.replace("SECONDS", said), encoding="utf-8")
    (folder / "base.yaml").write_text("rate: 1\n", encoding="utf-8")
    for name in ("a.sh", "b.sh"):
        (folder / name).write_text("true\n", encoding="utf-8")
    return make_plan(load_study(folder / "own.yaml"))


def said(on, capsys, plan):
    plan_text.show(plan, 1, set(), on=on)
    return capsys.readouterr().out


def test_an_arm_that_does_not_fit_is_left_out_and_told_what_would_help(tmp_path, capsys):
    plan = large(tmp_path)
    on = on_machine(plan, load_machine("h100-8"), set(), {})
    base, wider, longer = on.arms
    assert (base.fit.room, wider.fit.room) == ("yes", "no")
    assert base.fit.devices == 8
    assert base.fit.memory_bytes < wider.fit.memory_bytes
    assert wider.seconds is None
    assert wider.cost is None
    assert longer.seconds == pytest.approx(2 * base.seconds, rel=0.01)
    # One at a time on all eight devices: the machine's price for as long as a trial takes.
    assert base.cost == pytest.approx(base.seconds / 3600 * 87.83)
    assert on.workers == 1
    alone = base.seconds + longer.seconds
    assert on.seconds == pytest.approx(2 * alone, rel=0.01)
    assert on.cost == pytest.approx(on.seconds / 3600 * 87.83)
    assert on.critical_path_seconds == pytest.approx(longer.seconds, rel=0.01)
    assert on.device_hours == pytest.approx(8 * 2 * alone / 3600, rel=0.01)
    told = said(on, capsys, plan)
    assert "does not fit, and is left out of the totals: wider: train needs about" in told
    assert "what would help: training.micro_batches:" in told
    assert "all assumed" in told
    assert "on demand, us-east4, read 2026-12-01" in told


def test_what_is_proposed_does_fit(tmp_path):
    with pytest.raises(UserError) as error:
        on_machine(large(tmp_path, "mm1_1b", mesh=4), load_machine("v5e-4"), set(), {})
    told = str(error.value)
    assert "\n" not in told
    assert "no arm of large fits on v5e-4: base: train needs about" in told
    assert "(3 arms, none fits)" in told
    parts = int(re.search(r"GiB too much; what would help: .*?micro_batches: (\d+)", told)[1])
    proposed = large(tmp_path, "mm1_1b", parts, mesh=4)
    assert on_machine(proposed, load_machine("v5e-4"), set(), {}).arms[0].fit.room != "no"


def test_where_nothing_helps_a_larger_machine_is_named(tmp_path):
    with pytest.raises(UserError, match=r"would help: on v5e-16 training: \{remat: full, micro_b"):
        on_machine(large(tmp_path, parts=1, mesh=1), load_machine("v5e-4"), set(), {})


def test_a_mesh_larger_than_the_machine_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(UserError, match="base: train needs 8 devices, and it has 1 device"):
        on_machine(large(tmp_path), load_machine("a100-1"), set(), {})


def test_a_time_that_nobody_said_is_not_known_and_not_nothing(tmp_path, capsys):
    plan = own(tmp_path)
    on = on_machine(plan, load_machine("a100-1"), set(), {})
    assert on.arms[0].seconds is None
    assert (on.seconds, on.cost, on.critical_path_seconds) == (None, None, None)
    told = said(on, capsys, plan)
    assert "time and cost in all are not known: nobody says how long it takes" in told
    assert "fits unknown" in told
    # Half a GPU each: two at a time on each device.
    known = own(tmp_path, seconds=120)
    on = on_machine(known, load_machine("a100-8"), set(), {})
    assert on.arms[0].seconds == 180
    assert on.critical_path_seconds == START_SECONDS + 180
    assert on_machine(known, load_machine("a100-8"), set(), {}, workers=1).seconds == (
        START_SECONDS + 6 * 180
    )


def test_what_a_command_asks_for_and_a_machine_has_not_is_told(tmp_path):
    with pytest.raises(UserError, match="pretrain needs a GPU, and it has none"):
        on_machine(own(tmp_path), load_machine("v5e-16"), set(), {})


def test_finished_stages_replace_what_was_assumed(tmp_path, capsys):
    plan = own(tmp_path)
    first = next(stage for stage in plan.stages.values() if stage.kind == "pretrain")
    on = on_machine(plan, load_machine("a100-1"), {first.id}, {first.id: 500.0})
    assert on.arms[0].seconds == 560
    assert on.stages == 11
    assert "5 stages by finished stages of the same program on this machine" in said(
        on, capsys, plan
    )


def test_without_a_price_no_cost_is_told_and_with_one_it_is(tmp_path, capsys):
    plan = own(tmp_path, seconds=3600)
    on = on_machine(plan, load_machine("h200-8"), set(), {})
    assert on.cost is None
    assert all(arm.cost is None for arm in on.arms)
    told = said(on, capsys, plan)
    assert "no price of h200-8 is known: say --price" in told
    assert "cost a trial" not in told
    on = on_machine(plan, with_price(load_machine("h200-8"), 16.0), set(), {})
    assert on.arms[0].cost == pytest.approx((3600 / 16 + 60 / 8) / 3600 * 16)
    assert on.cost == pytest.approx(on.seconds / 3600 * 16)


def test_the_command_line(mm1, tmp_path):
    shutil.copytree(ROOT / "examples/shell", tmp_path / "shell")
    shutil.copytree(ROOT / "examples/data", tmp_path / "data")
    own_file = tmp_path / "mine.yaml"
    own_file.write_text("like: v5e-16\nprice: {hourly: 36}\n", encoding="utf-8")
    ran = mm1("plan", "shell/study.yaml", "--on", own_file, "--json")
    on = json.loads(ran.stdout)["on"]
    assert (on["machine"]["name"], on["devices"], on["workers"]) == ("mine", 16, 16)
    assert on["cost"] == pytest.approx(on["seconds"] / 100)
    assert on["bases"] == {"what the study says": 24}
    ran = mm1("plan", "shell/study.yaml", "--on", "v5e-17")
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
    assert "no machine 'v5e-17'; did you mean" in ran.stderr


def test_a_price_belongs_to_a_machine():
    with pytest.raises(UserError, match="--price is a machine's: say which with --on"):
        machine_of(None, 3.0)
    with pytest.raises(UserError, match="--price -1"):
        machine_of("v5e-16", -1.0)
    assert machine_of("v5e-16", 2.0).price.hourly == 2
    assert machine_of(None, None) is None


def test_planning_on_a_machine_imports_nothing_heavy(tmp_path):
    large(tmp_path)
    program = (
        "import sys; from mm1.cli import cli\n"
        f"cli.main(['plan', {str(tmp_path / 'large.yaml')!r}, '--on', 'h100-8'], "
        "standalone_mode=False)\n"
        "print([m for m in ('jax', 'ray', 'mlflow', 'scipy.stats', 'pandas') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "[]"


def test_money_that_is_next_to_nothing_is_not_nothing():
    machine = load_machine("a100-1")
    assert plan_on.money(machine, 0.001) == "< 0.01 USD"
    assert plan_on.money(machine, 0.0) == "0.00 USD"
    assert plan_on.money(machine, 12345.6) == "12,346 USD"
