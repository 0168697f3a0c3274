"""`mm1 try`: what is wrong between a script and its study, in plain words, and nothing kept."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from mm1.cli import cli

STUDY = """
study: tried
question: Does it?
workload:
  command: python3 train.py --config {config} --seed {seed} --out {output}
  metrics: {val.accuracy: {goal: maximize}}
  code: [train.py]
base: base.json
design: {one_at_a_time: {lr: [0.1, 0.2]}}
seeds: 2
primary_metric: val.accuracy
"""
HEAD = """
import argparse, json, sys, time
from pathlib import Path
parser = argparse.ArgumentParser()
for name in ("--config", "--seed", "--out"):
    parser.add_argument(name)
asked = parser.parse_args()
config, seed = json.loads(Path(asked.config).read_text()), int(asked.seed)
def log(**row):
    with open(Path(asked.out) / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row) + "\\n")
"""
GOOD = 'log(**{"val.accuracy": 100 * config["lr"] + seed})'


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Try a study of a script; what was printed, and the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "base.json").write_text('{"lr": 0.1, "width": 8}', encoding="utf-8")

    def run(script, study=STUDY, *options):
        (tmp_path / "train.py").write_text(HEAD + textwrap.dedent(script), encoding="utf-8")
        (tmp_path / "study.yaml").write_text(study.lstrip(), encoding="utf-8")
        before = sorted(os.listdir(tmp_path))  # noqa: PTH208
        result = CliRunner().invoke(cli, ["try", "study.yaml", *options], catch_exceptions=False)
        kept = sorted(os.listdir(tmp_path))  # noqa: PTH208
        assert not list((tmp_path / "tmp").iterdir())
        return result.output, result.exit_code, sorted(set(kept) - set(before))

    return run


def test_a_script_that_is_as_it_should_be(tried):
    told, code, left = tried(GOOD)
    assert code == 0
    assert left == []
    assert "it ended well after" in told
    assert "val.accuracy 10" in told
    assert "seed 0 twice gave the same numbers" in told
    assert "seeds 0 and 1 gave different numbers, as they should" in told
    assert "base and lr=0.2 gave different numbers" in told
    assert "wrong" not in told


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            'log(**{"val.accuracy": 100 * config["lr"]})',
            "seeds 0 and 1 gave the same numbers: does",
        ),
        (
            'log(**{"val.accuracy": seed})',
            "base and lr=0.2 gave the same numbers: does it read what lr=0.2 sets in the config?",
        ),
        (
            'log(**{"val.acuracy": seed})',
            "no row has the metric val.accuracy; did you mean 'val.ac",
        ),
        ("pass", "no results: none of metrics.jsonl,"),
        ("print('no'); sys.exit('bad')", "it ended with exit code 1: bad"),
        (
            "raise TypeError('__init__() got an unexpected keyword argument width')",
            "(it seems to refuse the config's width)",
        ),
        (
            f"{GOOD}; Path('model.pt').write_text(str(seed))",
            "it wrote model.pt in its working fold",
        ),
    ],
)
def test_what_is_wrong(tried, script, said):
    told, code, _ = tried(script)
    assert code == 2
    assert "wrong" in told
    assert said in told


def test_a_script_that_cannot_be_repeated_is_told(tried):
    told, code, _ = tried('log(**{"val.accuracy": time.time() + config["lr"]})')
    assert code == 0
    assert "seed 0 twice gave different numbers" in told


def stopped_with_results(tried, script, study):
    """What is told of a script that is stopped, in so much time that it has some results."""
    for seconds in ("1", "10", "100"):
        told, code, _ = tried(script, study, "--seconds", seconds)
        assert code == 0, told
        assert f"after {seconds} s, when it was stopped, it had" in told
        if "it had no results yet" not in told:
            break
    return told


def test_a_long_script_is_stopped(tried):
    script = """
        for step in range(100_000):
            log(step=step, loss=seed + config["lr"] + step, val_accuracy=1)
            time.sleep(0.1)
        """
    told = stopped_with_results(tried, script, STUDY)
    assert "not seen yet: the metric val.accuracy; did you mean 'val_accuracy'?" in told
    assert "seeds 0 and 1 gave different numbers" in told


def test_arms_that_differ_in_length_only_are_heard(tried):
    script = """
        for step in range(config["epochs"]):
            log(step=step, **{"val.accuracy": step + seed})
            time.sleep(config["seconds"])
    """
    study = STUDY.replace("lr: [0.1, 0.2]", "epochs: [2, 3]").replace(
        "base: base.json", "base: long.json"
    )

    def base(seconds):
        Path("long.json").write_text(f'{{"epochs": 2, "seconds": {seconds}}}', encoding="utf-8")

    base(0)
    told, code, _ = tried(script, study)
    assert code == 0, told
    assert "base and epochs=3 gave different numbers" in told
    base(1000)
    told = stopped_with_results(tried, script, study)
    assert "base and epochs=3 gave the same numbers so far" in told


def test_steps_follow_each_other(tried):
    steps = STUDY.replace(
        "  command: python3 train.py --config {config} --seed {seed} --out {output}\n"
        "  metrics: {val.accuracy: {goal: maximize}}\n",
        """  steps:
    first:
      command: python3 train.py --config {config} --seed {seed} --out {output}
    second:
      command: >-
        sh -c 'test -f {input:first}/metrics.jsonl && cat {config}
        && echo "{\\"val.accuracy\\": 1{seed}{config:lr}}"'
      metrics: {val.accuracy: {goal: maximize}}
""",
    )
    told, code, _ = tried(GOOD, steps)
    assert code == 0, told
    assert told.index("first: python3") < told.index("second: sh")
    told, code, _ = tried("sys.exit(3)", steps)
    assert "second: left out, first did not come to its end" in told
    assert code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--arm", "lr=0.3"), "no arm 'lr=0.3'; did you mean 'lr=0.2'?"),
        (("--step", "runn"), "no step 'runn'; did you mean 'run'?"),
    ],
)
def test_names_that_are_not_there(tried, options, said):
    from ablations.errors import UserError

    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        tried(GOOD, STUDY, *options)
