from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

from mm1.cli import cli
from mm1.run_folder import open_run
from mm1_jax.training.checkpoints import load_subtree


def commands(group: click.Group, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, (*above, name))
        else:
            found.append((*above, name))
    return found


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a user's mistake comes to."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_without_a_command_it_says_what_to_do_first(mm1):
    result = mm1()
    assert result.returncode == 0
    assert "mm1 plan ablations/studies/demo.yaml" in result.stdout


@pytest.mark.parametrize("words", commands(cli), ids=" ".join)
def test_every_command_shows_an_example_that_it_would_accept(words):
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    text = command.get_help(click.Context(command))
    example = " ".join(text.split("Example: mm1 ")[1].split("\n\n")[0].split()).replace("\\ ", "")
    assert example.startswith(" ".join(words))
    arguments = shlex.split(example)[len(words) :]
    command.make_context(words[-1], arguments)  # raises on an option that is not there


def test_an_unknown_command_names_the_nearest(mm1):
    assert "did you mean 'plan'?" in refused(mm1("plann"))


def test_an_unknown_option_is_one_line(mm1):
    assert "--sede" in refused(mm1("train", "x.yaml", "--sede", 1))


def test_a_missing_study_file_is_one_line(mm1):
    assert "nowhere.yaml" in refused(mm1("plan", "nowhere.yaml"))


def test_a_study_that_has_not_run_is_one_line(mm1):
    assert "nothing" in refused(mm1("compare", "nothing"))


def test_a_mistake_in_a_study_names_file_line_key_and_nearest(mm1, study):
    study.write_text(
        study.read_text(encoding="utf-8").replace(
            "connector.tokens: [1, 4]", "conector.tokens: [1]"
        ),
        encoding="utf-8",
    )
    line = refused(mm1("plan", study))
    assert line.startswith(f"mm1: {study}:7: ")
    assert "connector" in line


def test_a_plan_tells_arms_trials_and_cost(mm1, study):
    figures = json.loads(mm1("plan", study, "--json").stdout)
    assert [arm["name"] for arm in figures["arms"]] == ["base", "connector.tokens=4"]
    assert figures["trials"] == 4
    assert figures["stages"] == 4 * 2 + 2  # trainings, evaluations, and base's shuffled control
    assert figures["stages_finished"] == 0
    assert figures["flops"] > 0
    text = mm1("plan", study).stdout
    assert "2 arms × 2 seeds = 4 trials" in text
    assert "connector.tokens=4" in text


def test_planning_leaves_the_heavy_packages_out(study):
    code = (
        "import sys; from mm1.cli import cli; "
        f"cli.main(['plan', {str(study)!r}], standalone_mode=False); "
        "print([name for name in ('jax', 'ray', 'mlflow', 'scipy.stats') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert result.stdout.strip().splitlines()[-1] == "[]", result.stderr


def test_submitting_needs_a_cluster(mm1, study):
    assert "--cluster" in refused(mm1("submit", study))


def test_a_store_at_a_url_needs_a_data_folder(mm1, study):
    assert "--data" in refused(mm1("run", study, "--store", "memory://x"))


def test_a_misspelt_required_key_names_the_nearest(mm1, study):
    study.write_text(
        study.read_text(encoding="utf-8").replace("seeds: 2", "sedes: 2"), encoding="utf-8"
    )
    assert "did you mean 'seeds'?" in refused(mm1("plan", study))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{items: 40}", "{items: 40, shots: [-1]}", "shots"),
        ("images: 2}", "images: 2, background: [255, 256, 255]}", "background"),
        ("steps: 6", f"steps: {10**30}", "steps"),
        ("steps: 6", f"steps: {'9' * 5000}", "steps"),
    ],
)
def test_an_impossible_recipe_is_refused_before_anything_runs(mm1, study, tmp_path, old, new, said):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert said in refused(mm1("plan", study))


def test_a_place_that_cannot_be_written_is_one_line(mm1, study, tmp_path):
    (tmp_path / "file").touch()
    line = refused(mm1("train", tmp_path / "recipe.yaml", "--out", "file/run"))
    assert "file/run: Not a directory" in line


def test_a_damaged_store_is_one_line(mm1, tmp_path):
    (tmp_path / ".mm1").mkdir()
    (tmp_path / ".mm1" / "format.json").write_text("{", encoding="utf-8")
    assert "damaged" in refused(mm1("status"))


def test_a_cluster_that_is_not_there_is_refused_at_once(mm1, study, data_root):
    result = mm1("run", study, "--data", data_root, "--cluster", "127.0.0.1:1", "--mlflow", "off")
    assert "127.0.0.1:1" in refused(result)


def test_status_of_an_empty_store_says_how_to_start(mm1):
    result = mm1("status")
    assert result.returncode == 0
    assert "mm1 run" in result.stdout


def test_training_is_interrupted_resumed_and_evaluated(mm1, study, tmp_path, data_root):
    recipe = tmp_path / "recipe.yaml"
    longer = "steps: 1500, batch_size: 2, log_every: 20, checkpoint_every: 1500"
    recipe.write_text(
        recipe.read_text(encoding="utf-8").replace(
            "steps: 6, batch_size: 2, log_every: 2, checkpoint_every: 2", longer
        ),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mm1", "train", str(recipe), "--data", str(data_root)]
    running = subprocess.Popen(
        [*command, "--out", "run"], cwd=tmp_path, stderr=subprocess.PIPE, encoding="utf-8"
    )
    assert running.stderr is not None
    for line in running.stderr:
        if "step" in line:
            running.send_signal(signal.SIGINT)
            break
    rest = running.stderr.read()
    assert running.wait(60) == 130, rest
    assert "goes on from" in rest

    recipe.write_text(
        recipe.read_text(encoding="utf-8").replace("steps: 1500", "steps: 1501"), encoding="utf-8"
    )
    assert "training.steps is 1500 there and 1501 here" in refused(
        mm1("train", recipe, "--data", data_root, "--out", "run")
    )
    recipe.write_text(
        recipe.read_text(encoding="utf-8").replace("steps: 1501", "steps: 1500"), encoding="utf-8"
    )
    trained = mm1("train", recipe, "--data", data_root, "--out", "run", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["loss"] < 5
    first_step = next(line for line in trained.stderr.splitlines() if "step" in line)
    assert int(first_step.split("step")[1].split()[0]) > 20, "it began anew"

    started = time.monotonic()
    again = mm1("train", recipe, "--data", data_root, "--out", "run", "--json")
    assert json.loads(again.stdout) == json.loads(trained.stdout)
    assert "step" not in again.stderr, f"it trained again ({time.monotonic() - started:.0f} s)"

    scored = mm1(
        "evaluate", "run/", "--data", data_root, "--task", "easy_vqa", "--items", 40, "--json"
    )
    assert scored.returncode == 0, scored.stderr
    rows = {row["metric"]: row for row in json.loads(scored.stdout)}
    assert 0 <= rows["accuracy"]["value"] <= 100
    assert rows["accuracy"]["n_items"] == 40
    assert (tmp_path / "run/evaluations/easy_vqa-0-intact/examples.parquet").is_file()
    asked_again = mm1(
        "evaluate", "run", "--data", data_root, "--task", "easy_vqa", "--items", 40, "--json"
    )
    assert json.loads(asked_again.stdout) == json.loads(scored.stdout)
    assert "step" not in asked_again.stderr, "it was asked again"
    checked = mm1("fsck", "--store", "run")
    assert (checked.returncode, checked.stdout.count("\n")) == (0, 1), checked.stdout
    assert "done in" in mm1("logs", "--store", "run", "base", "seed", 0).stdout
    assert "1 of 1 trials done" in mm1("status", "--store", "run").stdout

    assert "--task" in refused(mm1("evaluate", "run", "--data", data_root, "--items", 40))
    assert "did you mean 'easy_vqa'?" in refused(
        mm1("evaluate", "run", "--data", data_root, "--task", "easy_vqua")
    )


def test_data_show_writes_a_page_of_what_the_model_gets(mm1, study, tmp_path, data_root):
    result = mm1("data", "show", tmp_path / "recipe.yaml", "--data", data_root, "--sequences", 2)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "data.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 2


def test_a_recipe_with_pretraining_is_trained_stage_by_stage(mm1, study, tmp_path, data_root):
    recipe = tmp_path / "recipe.yaml"
    whole = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    whole["language_model"] |= {"kind": "moe", "experts": 2, "every": 1, "from_dense": True}
    whole["language_model_pretraining"] = {
        "text_tokens": 32,
        "training": {"steps": 3, "batch_size": 2},
        "optimizer": {"warmup_steps": 2},
    }
    whole["training"] |= {"steps": 2, "freeze": ["language_model"]}
    recipe.write_text(yaml.safe_dump(whole), encoding="utf-8")
    trained = mm1("train", recipe, "--data", data_root, "--out", "run", "--seed", 3)
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr.index("pre-train the language model") < trained.stderr.index(": train")
    dense, experts = (
        load_subtree(tmp_path / "run" / folder, "language_model")[1]
        for folder in ("pretrained/language_model", ".")
    )
    (down,) = dense["blocks"]["down"]["kernel"]
    for expert in experts["expert_blocks"]["experts"]["down"][0]:
        np.testing.assert_array_equal(expert, down)
    again = mm1("train", recipe, "--data", data_root, "--out", "run", "--seed", 3)
    assert "step" not in again.stderr

    score = ("evaluate", "run", "--data", data_root, "--json", "--items", 5)
    scored = mm1(*score, "--task", "pretrained_text")
    assert scored.returncode == 0, scored.stderr
    rows = {row["metric"]: row["value"] for row in json.loads(scored.stdout)}
    assert rows["perplexity"] > rows["ngram_perplexity"] > 1
    refusal = refused(mm1(*score, "--task", "emoji_probe"))
    assert "--task emoji_probe: run holds no encoder that it scores" in refusal


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def start(tmp_path, data_root):
    """`start(name, steps, count)`: `mm1 train name.yaml --out name` in so many processes."""
    recipe = yaml.safe_load(Path("ablations/recipes/mini.yaml").read_text(encoding="utf-8"))
    recipe["optimizer"]["warmup_steps"] = 2

    def call(name: str, steps: int, count: int) -> list[subprocess.Popen[str]]:
        recipe["training"] |= {"steps": steps, "log_every": 2, "checkpoint_every": steps // 2}
        recipe["training"]["mesh"]["data"] = count
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        command = [sys.executable, "-m", "mm1", "train", f"{name}.yaml", "--out", name]
        command += ["--data", str(data_root), *(["--distributed"] if count > 1 else [])]
        shared = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
        return [
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env={**os.environ, "JAX_PLATFORMS": "cpu"}
                | ({**shared, "JAX_PROCESS_ID": str(number)} if count > 1 else {}),
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            for number in range(count)
        ]

    return call


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and the rest of stderr of each."""
    said = [process.communicate(timeout=600)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


@pytest.mark.slow
def test_two_processes_train_one_model_as_one_process_does(tmp_path, start):
    for code, said in ended([*start("one", 4, 1), *start("two", 4, 2)]):
        assert code == 0, said
    one, two = (trained_rows(tmp_path / name) for name in ("one", "two"))
    assert list(one["metric"]) == list(two["metric"])
    np.testing.assert_allclose(two["value"], one["value"], rtol=1e-4)


@pytest.mark.slow
def test_where_any_of_two_processes_is_interrupted_both_save_and_go_on(tmp_path, start):
    _, second = running = start("two", 400, 2)
    for line in second.stderr:
        if "step" in line:
            second.send_signal(signal.SIGINT)
            break
    for code, said in ended(running):
        assert code == 130, said
        assert "goes on from" in said
    (scratch,) = (tmp_path / "two" / "scratch").iterdir()
    assert not list((tmp_path / "two").glob("stages/*/*/failures/*"))
    for code, said in ended(start("two", 400, 2)):
        assert code == 0, said
        first_step = next(line for line in said.splitlines() if "step" in line)
        assert int(first_step.split("step")[1].split()[0]) > 2, "it began anew"
    assert not scratch.exists()


def trained_rows(folder: Path):
    store, plan = open_run(folder) or pytest.fail("no run")
    return store.rows([plan.main(plan.trials[0])])


def test_distributed_without_other_processes_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "mm1", "train", "ablations/recipes/mini.yaml", "--distributed"],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2
    assert "JAX_COORDINATOR_ADDRESS" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
