"""From the `workload:` of a study file to stages: mistakes with their line, identity, sharing."""

from __future__ import annotations

import subprocess
import textwrap

import pytest

from ablations.command.placeholders import Values, overrides, words
from ablations.deciding import claims_of
from ablations.errors import UserError
from ablations.plan import make_plan
from ablations.study import load_study
from ablations.workload import INTACT, TRAINING
from mm1 import plan_text
from mm1_jax.workload import RECIPE

STUDY = """
study: augmentation
question: Does more augmentation help?
workload:
  command: python3 train.py --config {config} --seed {seed} --out {output}
  metrics: {val.accuracy: {goal: maximize, worst: 0, unit: "%"}}
base: base.yaml
design:
  one_at_a_time:
    lr: [0.1, 0.2]
seeds: 2
primary_metric: val.accuracy
claims:
  higher: effect(lr, 0.1 -> 0.2) > 0
"""
STEPS = """
study: steps
question: Does it?
workload:
  steps:
    tokenize:
      command: python3 tokenize.py {config} {output}
      reads: [tokens]
    pretrain:
      command: python3 pretrain.py {config} {seed} {output} {input:tokenize}
      reads: [model, "pre*"]
    finetune:
      command: python3 train.py {overrides} seed={seed} out={output} init={input:pretrain}
      metrics: {accuracy: {goal: maximize}, val.loss: {goal: minimize, value: best}}
      resources: {cpu: 2, memory: 4 GB}
  timeout: 60
base: base.yaml
design:
  one_at_a_time:
    lr: [0.1, 0.2]
    model.width: [8, 16]
seeds: 2
primary_metric: finetune.accuracy
"""
BASE = "lr: 0.1\nmodel: {width: 8}\npretraining: {steps: 5}\ntokens: 64\n"


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def home(tmp_path):
    for name in ("train", "tokenize", "pretrain"):
        (tmp_path / f"{name}.py").write_text(f"print('{name}')\n", encoding="utf-8")
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    return tmp_path


def planned(home, text=STUDY, name="study.yaml"):
    path = home / name
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return make_plan(load_study(path, RECIPE))


def ids(plan, role=None):
    return {
        (trial.arm, trial.seed, one): stage
        for trial in plan.trials
        for one, stage in trial.stages.items()
        if role in (None, one)
    }


def test_one_command(home):
    plan = planned(home)
    assert [trial.stages.keys() for trial in plan.trials] == [{"run"}] * 4
    assert len(plan.stages) == 4
    work = plan.stages[plan.trials[0].stages["run"]].work
    assert work.config["config"] == {
        "lr": 0.1,
        "model": {"width": 8},
        "pretraining": {"steps": 5},
        "tokens": 64,
    }
    task = plan.tasks["val"]
    assert (task.first.name, task.first.goal, task.first.worst, task.first.unit) == (
        *("accuracy", "maximise", 0.0, "%"),
    )
    assert task.conditions == (INTACT,)
    assert plan.tasks[TRAINING].metric("val.accuracy").goal == "maximise"


def test_steps_that_read_the_same_run_once(home):
    plan = planned(home, STEPS)
    found = ids(plan)
    of = {role: {s for (_, _, one), s in found.items() if one == role} for role in plan_roles(plan)}
    assert len(of["tokenize"]) == 1  # no seed, no metrics: one for all
    assert len(of["pretrain"]) == 4  # two widths, two seeds
    assert len(of["finetune"]) == 6
    assert found["base", 0, "pretrain"] == found["lr=0.2", 0, "pretrain"]
    assert found["base", 0, "pretrain"] != found["model.width=16", 0, "pretrain"]
    stage = plan.stages[found["base", 1, "finetune"]]
    assert stage.inputs == {"pretrain": found["base", 1, "pretrain"]}
    assert stage.work.config["timeout"] == 60
    assert stage.work.resources.memory_bytes == 4 * 10**9
    pretrain = plan.stages[found["base", 1, "pretrain"]].work
    assert pretrain.config["config"] == {"model": {"width": 8}, "pretraining": {"steps": 5}}
    assert [metric.name for metric in plan.tasks["finetune"].metrics] == ["accuracy"]


def test_what_nobody_has_counted_is_not_none_of_it(home, capsys):
    plan = planned(home, STEPS)
    plan_text.show(plan, workers=1, finished=set())
    said = capsys.readouterr().out
    assert "FLOP" not in said
    assert "before: tokenize: 1 shared by all seeds" in said
    assert "from tokenize 1 min 00 s, pretrain 1 min 00 s, finetune 1 min 00 s: " in said
    told = plan_text.summary(plan, 1, set())
    assert (told["flops"], told["arms"][0]["flops_per_trial"]) == (None, None)
    assert {one["flops"] for one in told["before"].values()} == {None}


def test_a_step_without_a_seed_limits_what_a_claim_holds_for(home):
    text = STEPS.replace("lr: [0.1, 0.2]", "tokens: [64, 32]")
    text += "claims: {more: 'effect(tokens, 32 -> 64) > 0', wide: 'score(model.width=16) > 1'}\n"
    plan = planned(home, text)
    assert {found.scope for found in claims_of(plan)} == {
        "on these benchmarks, one run of tokenize"
    }
    (said,) = [one for one in plan.warnings if "for all seeds" in one]
    assert said == (
        "claim more compares arms whose tokenize differ and are one for all seeds: it holds for "
        "one run of tokenize only, whatever the seeds say"
    )


def plan_roles(plan):
    return list(plan.trials[0].stages)


SAME = {
    "a comment": ("train.py", "# what it does\nprint('train')  # says so\n"),
    "a docstring": (
        "train.py",
        '"""What it does."""\nprint("train")\n'.replace('"t', "'t").replace('n")', "n')"),
    ),
    "documentation": ("README.md", "read me"),
    "another study": ("other.yaml", "study: other\nbase: else.yaml\n"),
    "its base": ("else.yaml", "lr: 3\n"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_decides_nothing_changes_no_identity(home, name):
    (home / "other.yaml").write_text("study: other\nbase: else.yaml\n", encoding="utf-8")
    (home / "else.yaml").write_text("lr: 2\n", encoding="utf-8")
    git(home, "add", ".")
    before = ids(planned(home))
    file, text = SAME[name]
    (home / file).write_text(text, encoding="utf-8")
    git(home, "add", ".")
    assert ids(planned(home)) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("question: Does", "question: Will"),
        ("study: augmentation", "study: renamed"),
        ('unit: "%"', "unit: points"),
        ("worst: 0", "worst: 1"),
        ("base: base.yaml", "base: base.yaml\nalpha: 0.1"),
        ("  metrics:", "  timeout: 5\n  metrics:"),
        ("  metrics:", "  resources: {cpu: 4}\n  metrics:"),
        ("  metrics:", "  resources: {per_gpu: 4, memory: 2 GB}\n  metrics:"),
        ("  metrics:", "  resources: {gpu: 8, hosts: 2, devices: 16}\n  metrics:"),
        ("  metrics:", "  resources: {tpu: v5e-16, hosts: 4}\n  metrics:"),
        ("  metrics:", "  seconds: 7\n  metrics:"),
        ("python3 train.py", "/usr/bin/env  python3   train.py".replace("/usr/bin/env  ", "")),
        ('unit: "%"}}', 'unit: "%"}, val.loss: {goal: minimize}}'),
    ],
)
def test_words_of_the_study_change_no_identity(home, old, new):
    before = ids(planned(home))
    assert old in STUDY
    assert ids(planned(home, STUDY.replace(old, new))) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--config {config}", "--fast --config {config}"),
        ("  metrics:", "  environment: {DEBUG: 1}\n  metrics:"),
        ("  metrics:", "  results: out.csv\n  metrics:"),
        ("  metrics:", "  data: [train.py]\n  metrics:"),
        ('unit: "%"', "value: best"),
        ('unit: "%"', "key: acc"),
        ("  metrics:", "  seed_key: tokens\n  metrics:"),
    ],
)
def test_what_decides_changes_every_identity(home, old, new):
    before = ids(planned(home))
    assert old in STUDY
    after = ids(planned(home, STUDY.replace(old, new)))
    assert not set(before.values()) & set(after.values())


def test_code_changes_every_identity(home):
    before = ids(planned(home))
    (home / "tokenize.py").write_text("print('other')\n", encoding="utf-8")
    after = ids(planned(home))
    assert not set(before.values()) & set(after.values())


def test_a_moved_folder_changes_nothing(home, tmp_path_factory):
    before = ids(planned(home))
    moved = tmp_path_factory.mktemp("moved") / "here"
    home.rename(moved)
    assert ids(planned(moved)) == before


def test_named_code_leaves_out_the_rest(home):
    text = STUDY.replace("  metrics:", "  code: [train.py]\n  metrics:")
    before = ids(planned(home, text))
    (home / "tokenize.py").write_text("print('other')\n", encoding="utf-8")
    assert ids(planned(home, text)) == before


BAD = [
    ("train.py", "trian.py", 4, "no script 'trian.py' in .*; did you mean 'train.py'?"),
    ("python3", "pythn", 4, "no program 'pythn' is on the PATH"),
    ("{seed}", "{sed}", 4, "unknown placeholder {sed}; did you mean 'seed'?"),
    ("{seed}", "{input:pre}", 4, "no step 'pre'"),
    ("--out {output}", "> {output}", 4, "'>' is for a shell"),
    ("--out {output}", "'", 4, "cannot be split into words: No closing quotation"),
    ("{config}", "{config:lrr}", 4, "the base has no 'lrr'; did you mean 'lr'?"),
    ("--config {config}", "", 4, "neither {config} nor {overrides}"),
    ("{config}", "x{overrides}", 4, "{overrides} becomes several arguments"),
    ("python3 train.py", "A=1 python3 train.py", 4, "'A=1' sets a variable; write it under"),
    ("goal: maximize", "gaol: maximize", 5, "unknown key .*gaol'; did you mean 'goal'"),
    ("goal: maximize", "goal: up", 5, '"up" is not valid'),
    ("val.accuracy: {", "val.top.accuracy: {", 5, "is not TASK.METRIC"),
    ("val.accuracy: {", "training.loss: {", 5, "the task 'training' has a meaning of its own"),
    ("goal: maximize, worst: 0", "value: best", 5, "value: best, and no goal"),
    ("worst: 0", "of: blind", 5, "task val has no metric 'blind'"),
    ("  metrics:", "  code: [src/*.py]\n  metrics:", 5, r"'src/\*.py' matches no file"),
    ("  metrics:", "  code: [tokenize.py]\n  metrics:", 4, "train.py decides the result, and code"),
    ("  metrics:", "  data: [cifar]\n  metrics:", 5, "'cifar': no such file or folder"),
    ("  metrics:", "  reads: [lrr]\n  metrics:", 5, "the base has no 'lrr'; did you mean 'lr'?"),
    ("  metrics:", "  results: ../x.json\n  metrics:", 5, "is not below {output}"),
    ("  metrics:", "  working_folder: src\n  metrics:", 5, "no such folder"),
    ("  metrics:", "  resources: {memory: much}\n  metrics:", 5, "'much' is not a size such as"),
    ("  metrics:", "  resources: {gpu: 1, per_gpu: 4}\n  metrics:", 5, "give one of them"),
    ("  metrics:", "  resources: {gpu: 1.5}\n  metrics:", 5, "gpu 1.5: whole ones, or a share"),
    ("  metrics:", "  resources: {tpu: v5e-17}\n  metrics:", 5, "no slice; nearest: v5e-16"),
    ("  metrics:", "  resources: {tpu: v5x-4}\n  metrics:", 5, "no TPU version 'v5x'; did you"),
    ("  metrics:", "  seed_key: sed\n  metrics:", 5, "'sed' is no key that it reads"),
    ("seeds: 2", "seeds: 2\nnull_arms: 1", 11, "no first weights that could be drawn anew"),
    ("primary_metric: val.accuracy", "primary_metric: val.acc", 11, "did you mean 'val.accuracy'"),
    ("lr: [0.1", "lrr: [0.1", 9, "unknown path 'lrr'; did you mean 'lr'?"),
    ("lr: [0.1, 0.2]", "lr: [0.1, fast]", 9, "fast is not valid: the base has a number"),
    ("> 0", "on nothing > 0", 13, ""),
    ("effect(lr, 0.1 -> 0.2) > 0", "score(base) > blind(val)", 13, "nobody answers val blind here"),
]


@pytest.mark.parametrize(("old", "new", "line", "said"), BAD)
def test_mistakes_name_their_line(home, old, new, line, said):
    assert old in STUDY
    text = STUDY.replace(old, new, 1)
    with pytest.raises(UserError, match=rf"study\.yaml:{line}: .*{said}") as caught:
        planned(home, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{input:pretrain}", "{input:pretrian}", "no step 'pretrian'; did you mean 'pretrain'?"),
        ("{input:tokenize}", "{input:finetune}", "in a circle: pretrain → finetune → pretrain"),
        ("      reads: [tokens]", "      metrics: {val.x: {}}", "the task val is step tokenize's"),
        ("  timeout: 60", "  command: ls", "give a command, or steps that have one each"),
        ("  timeout: 60", "  reads: [lr]", "reads belongs to a step where there are steps"),
    ],
)
def test_mistakes_of_steps(home, old, new, said):
    assert old in STEPS
    with pytest.raises(UserError, match=rf"study\.yaml:\d+: .*{said}"):
        planned(home, STEPS.replace(old, new, 1))


def test_a_script_that_git_does_not_track(home):
    (home / "new.py").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"new\.py decides the result, and git does not track it"):
        planned(home, STUDY.replace("train.py", "new.py"))
    assert any("git does not track new.py" in one for one in planned(home).warnings)


def test_a_folder_without_git(tmp_path):
    (tmp_path / "train.py").write_text("", encoding="utf-8")
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    with pytest.raises(UserError, match=r"is in no git repository; name them, code: \[train\.py\]"):
        planned(tmp_path)
    text = STUDY.replace("  metrics:", "  code: [train.py]\n  metrics:")
    assert len(planned(tmp_path, text).stages) == 4


def test_warnings(home):
    plan = planned(home, STUDY.replace(" --seed {seed}", ""))
    assert any("the command takes no {seed}" in one for one in plan.warnings)
    text = STUDY.replace("--config {config}", "{overrides}").replace(
        "  metrics:", "  reads: [lr, model]\n  metrics:"
    )
    (unread,) = [one for one in planned(home, text).warnings if "no step reads" in one]
    assert "pretraining.steps, tokens: varying it changes nothing" in unread


def test_words_of_a_command():
    assert words(
        "a 'b c' --x={seed} ${HOME} {{seed}} {print $1}".replace("{print $1}", "'{a b}'")
    ) == (*("a", "b c", "--x={seed}", "${HOME}", "{{seed}}", "{a b}"),)
    values = Values("/c.yaml", {"a": {"b": 0.5}, "t": "x y"}, 3, "/out", "/tmp", {"p": "/p"})
    filled = values.arguments(
        ["--x={seed}", "${seed}", "{{seed}}", "{input:p}/w", "{config:a.b}", "{config:t}"]
    )
    assert filled == ["--x=3", "${seed}", "{seed}", "/p/w", "0.5", "x y"]


def test_overrides_as_hydra_takes_them():
    config = {
        "lr": 1e-05,
        "on": True,
        "none": None,
        "name": "resnet18",
        "text": "it's a 'test'",
        "end": "C:\\x\\",
        "number": "12",
        "truth": "true",
        "list": [1, "a b", {"k": 2.0}],
        "empty": {},
        "nothing": "",
    }
    assert overrides({"model": config}) == [
        "model.lr=1e-05",
        "model.on=true",
        "model.none=null",
        "model.name=resnet18",
        r"model.text='it\'s a \'test\''",
        "model.end='C:\\x\\\\'",
        "model.number='12'",
        "model.truth='true'",
        "model.list=[1,'a b',{k:2.0}]",
        "model.empty={}",
        "model.nothing=''",
    ]
