"""Real processes: what is measured, what goes wrong, and that nothing is left behind."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from ablations.command import files
from ablations.command.runner import CommandError, config_text
from ablations.errors import UserError
from ablations.stage import PRINTED, StageStopped

ROOT = Path(__file__).parents[3]


def scores(rows):
    return {f"{row.task}.{row.metric}": row.value for row in rows if row.split == "test"}


def curve(rows, name):
    found = {row.step: row.value for row in rows if (row.task, row.metric) == ("training", name)}
    return [found[step] for step in sorted(found)]


def living(marker: str) -> list[str]:
    """Processes whose command line has a marker."""
    told = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, encoding="utf-8")
    return [line for line in told.stdout.splitlines() if marker in line]


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


def test_curves_and_scores(step):
    rows = step.run("""
        for i in range(3):
            log(step=10 * i, loss=3.0 - i, val={"accuracy": 40 + i})
        log(step=30, loss=0.5)
    """)
    assert curve(rows, "loss") == [3.0, 2.0, 1.0, 0.5]
    assert curve(rows, "val.accuracy") == [40, 41, 42]
    assert scores(rows) == {"val.accuracy": 42, "train.loss": 0.5}
    (score,) = [row for row in rows if row.task == "val"]
    assert score.step == 20
    assert step.context.facts["program"] == sys.executable


def test_the_best_value_and_another_key(step):
    metrics = {
        "val.accuracy": {"key": "val.acc", "best": "maximise"},
        "val.loss": {"best": "minimise"},
    }
    rows = step.run(
        """
        for i, acc in enumerate([41, 47, 44]):
            log(step=i, **{"val/acc": acc, "val/loss": 100 - acc})
        """,
        metrics=metrics,
    )
    assert scores(rows) == {"val.accuracy": 47, "val.loss": 53}
    assert {row.step for row in rows if row.split == "test"} == {1}


def test_the_seed_the_config_and_its_file(step):
    rows = step.run(
        """
        log(**{"val.accuracy": 100 * seed + config["model"]["width"]}, given=config["seed"])
        """,
        seed=3,
        config={"model": {"width": 7}, "seed": 0},
        seed_key="seed",
    )
    assert scores(rows) == {"val.accuracy": 307, "train.given": 3}


@pytest.mark.parametrize(
    "value",
    [
        1e-5,
        1e300,
        -0.0,
        3,
        True,
        None,
        "1e-5",
        "on",
        "012",
        "1_000",
        "12:30:00",
        "2001-01-01",
        'a "quote" \\ and\nline',
        "Ünï 🙂 \u2028\u0085\ufeff\x7f\x00",
        [],
        {},
        [1, [2.5, "x"], {"a": None}],
    ],
)
def test_a_config_file_means_the_same_to_readers_of_json_and_of_yaml(value):
    config = {"key": value, "group": {"on": value}}
    text = config_text(config)
    assert json.loads(text) == config
    assert yaml.safe_load(text) == config
    assert type(yaml.safe_load(text)["key"]) is type(value)


def test_a_table(step):
    rows = step.run("""
        (output / "metrics.csv").write_text(
            "step,loss,val/accuracy,note\\n1,2.5,,warm\\n2,1.5,40,\\n3,,NaN,\\n4,1.0,41.5,\\n")
    """)
    assert curve(rows, "loss") == [2.5, 1.5, 1.0]
    assert scores(rows)["val.accuracy"] == 41.5


def test_a_table_that_is_written_anew_with_another_column(step):
    rows = step.run("""
        path = output / "metrics.csv"
        path.write_text("step,loss\\n1,2.5\\n2,2.0\\n")
        time.sleep(0.8)
        path.write_text("step,loss,val.accuracy\\n1,2.5,\\n2,2.0,\\n3,1.5,40\\n")
    """)
    assert curve(rows, "loss") == [2.5, 2.0, 1.5]
    assert scores(rows)["val.accuracy"] == 40


def test_one_json_file(step):
    rows = step.run("""
        (output / "results.json").write_text(json.dumps(
            {"loss": [3, 2, 1], "val": {"accuracy": 44}}))
    """)
    assert curve(rows, "loss") == [3, 2, 1]
    assert scores(rows)["val.accuracy"] == 44


def test_lines_that_are_printed(step):
    rows = step.run("""
        print("epoch 1 {", flush=True)
        print(json.dumps({"step": 1, "val.accuracy": 30}))
        print("{not json}")
        print(json.dumps({"step": 2, "val.accuracy": 31}), end="")
    """)
    assert curve(rows, "val.accuracy") == [30, 31]


def test_what_is_printed_does_not_mix_with_a_file(step):
    rows = step.run("""
        print(json.dumps({"lr": 0.1, "val.accuracy": 99}), flush=True)
        time.sleep(0.5)
        log(**{"val.accuracy": 31})
    """)
    assert curve(rows, "val.accuracy") == [31]
    assert "train.lr" not in scores(rows)


def test_progress_is_told_while_it_runs(step):
    seen = []
    heard = step.context.root / "heard"

    def report(at, numbers):
        seen.append((at, dict(numbers)))
        heard.touch()

    step.context.report = report
    step.run(f"""
        log(step=1, loss=2.0)
        while not Path("{heard}").exists():
            time.sleep(0.05)
        log(step=2, loss=1.0, **{{"val.accuracy": 3}})
    """)
    assert seen == [(1, {"loss": 2.0}), (2, {"loss": 1.0, "val.accuracy": 3.0})]


def test_a_row_that_is_written_twice_counts_as_it_was_last(step):
    rows = step.run("""
        for at, acc in [(1, 10), (2, 20), (3, 30), (2, 21), (3, 31)]:
            log(step=at, **{"val.accuracy": acc})
    """)
    assert curve(rows, "val.accuracy") == [10, 21, 31]


def test_a_long_curve_is_thinned(step):
    rows = step.run("""
        with open(output / "metrics.jsonl", "w") as file:
            for i in range(30_000):
                file.write(json.dumps({"step": i, "val.accuracy": i}) + "\\n")
    """)
    kept = curve(rows, "val.accuracy")
    assert len(kept) == 2_000
    assert (kept[0], kept[-1], scores(rows)["val.accuracy"]) == (0, 29_999, 29_999)


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')", "'NaN'"])
def test_a_number_that_is_none_at_the_end_is_divergence(step, value):
    rows = step.run(f"""
        log(step=1, **{{"val.accuracy": 40}})
        log(step=2, **{{"val.accuracy": {value}}})
    """)
    assert [row.value for row in rows if row.metric == "diverged"] == [1.0]
    assert not math.isfinite(scores(rows)["val.accuracy"])


def test_a_number_that_is_none_on_the_way_is_no_divergence(step):
    rows = step.run("""
        log(step=1, loss=float("nan"), **{"val.accuracy": float("nan")})
        log(step=2, loss=1.0, **{"val.accuracy": 40})
    """)
    assert not [row for row in rows if row.metric == "diverged"]


def test_whoever_declares_what_a_run_diverged_or_did_not(step):
    """Its identity does not say which metrics were declared when it ran."""
    script = 'log(loss=float("nan"), **{"val.accuracy": 40})'
    for metrics in (["val.accuracy"], ["loss"]):
        rows = step.run(script, metrics=metrics)
        assert [row.value for row in rows if row.metric == "diverged"] == [1.0]
        assert step.context.facts["diverged_by"] == ["loss"]
        step.context.again()


def test_a_number_that_two_names_mean_is_nobodys_unless_it_is_declared(step):
    script = 'log(loss=1.0, **{"train.loss": 2.0, "val.accuracy": 40})'
    assert scores(step.run(script)) == {"val.accuracy": 40}
    step.context.again()
    assert scores(step.run(script, metrics=["train.loss"])) == {
        "train.loss": 2.0,
        "val.accuracy": 40,
    }


def test_a_script_may_say_that_it_diverged(step):
    rows = step.run('log(diverged=True, **{"val.accuracy": 10})')
    assert [row.value for row in rows if row.metric == "diverged"] == [1.0]
    step.context.again()
    rows = step.run('log(diverged=False, **{"val.accuracy": 10})')
    assert not [row for row in rows if row.metric == "diverged"]


BAD = {
    "no results": ("pass", "none of metrics.jsonl, .* is in {output} \\(it is empty\\)"),
    "elsewhere": ('(output / "log.txt").touch()', "it holds log.txt"),
    "two": (
        '(output / "metrics.csv").write_text("a\\n1\\n"); log(a=1)',
        "several files may be the results: metrics.jsonl, metrics.csv",
    ),
    "empty": ('(output / "metrics.jsonl").touch()', "metrics.jsonl has no row"),
    "not JSON": (
        '(output / "metrics.jsonl").write_text("step 1: loss 2\\n")',
        "metrics.jsonl line 1: not JSON: 'step 1: loss 2'",
    ),
    "list": (
        '(output / "metrics.jsonl").write_text("[1]\\n")',
        "line 1: '\\[1\\]' is not an object",
    ),
    "bytes": (
        '(output / "metrics.jsonl").write_bytes(b"\\xff\\xfe\\n")',
        "metrics.jsonl line 1: not UTF-8",
    ),
    "text": ('log(**{"val.accuracy": "41 %"})', "line 1: val.accuracy is '41 %', not a number"),
    "null": (
        'log(**{"val.accuracy": 1}); log(**{"val.accuracy": None})',
        "line 2: val.accuracy is null at its end",
    ),
    "step": ('log(step="two", **{"val.accuracy": 1})', "line 1: step is 'two', not a whole number"),
    "other name": (
        'log(**{"val_accuracy": 1})',
        "no row has the metric val.accuracy; did you mean ",
    ),
    "cells": (
        '(output / "metrics.csv").write_text("a,b\\n1,2\\n1\\n")',
        "metrics.csv line 3: 1 cells, and the first line has 2 columns",
    ),
    "columns": (
        '(output / "metrics.csv").write_text("a,a\\n1,2\\n")',
        "two columns of the same name",
    ),
    "one value": ('(output / "metrics.json").write_text("3")', "metrics.json: 3 is not an object"),
}


@pytest.mark.parametrize("name", BAD)
def test_results_that_are_not_of_the_form(step, name):
    script, said = BAD[name]
    with pytest.raises(UserError, match=said) as caught:
        step.run(script)
    assert "\n" not in str(caught.value)


def test_a_named_file_that_is_not_there(step):
    with pytest.raises(UserError, match=r"no out\.jsonl in \{output\} \(it holds out2\.jsonl\)"):
        step.run('(output / "out2.jsonl").write_text("{}")', results="out.jsonl")


def test_a_glob_for_a_file_in_a_folder_with_a_number(step):
    rows = step.run(
        """
        (output / "version_0").mkdir()
        (output / "version_0/metrics.csv").write_text("val.accuracy\\n5\\n")
        """,
        results="version_*/metrics.csv",
    )
    assert scores(rows) == {"val.accuracy": 5}


def test_a_failure_tells_the_end_of_stderr(step):
    with pytest.raises(
        CommandError, match=r"train \(.*\) ended with exit code 3: 学习率"
    ) as caught:
        step.run("""
            print("x" * 10_000, file=sys.stderr)
            print("\\x1b[31m学习率 is too high 🙂", file=sys.stderr)
            sys.exit(3)
        """)
    (note,) = caught.value.__notes__
    assert note.endswith("is too high 🙂")
    assert "\x1b" not in note
    assert len(note) < 5_000


def test_a_key_that_the_script_refuses_is_named(step):
    with pytest.raises(CommandError, match=r"it seems to refuse the config's model\.width"):
        step.run('sys.exit("train.py: error: unrecognized arguments: --width=8")')


def test_a_signal_from_outside_is_tried_again(step):
    with pytest.raises(RuntimeError, match="killed by SIGKILL"):
        step.run("os.kill(os.getpid(), 9)")


def test_a_timeout(step):
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"did not end within its timeout of 1 s"):
        step.run("print('here', file=sys.stderr); time.sleep(60)", timeout=1.0)
    assert time.monotonic() - began < 45  # it would sleep for 60


def test_a_stop_lets_it_save_and_go_on(step):
    script = """
        import signal
        state = output / "state"
        first = int(state.read_text()) if state.exists() else 0
        def save(*_):
            state.write_text(str(i + 1))
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        for i in range(first, 5):
            log(step=i, **{"val.accuracy": i})
            time.sleep(0.01 if first else 30 * (i == 2))
    """
    threading.Timer(1.5, step.context.stop.set).start()
    with pytest.raises(StageStopped):
        step.run(script, resumable=True)
    assert not (step.context.output / "state").exists()
    step.context.stop.clear()
    step.context.again()
    rows = step.run(script, resumable=True)
    assert curve(rows, "val.accuracy") == [0, 1, 2, 3, 4]
    assert (step.context.output / "state").read_text(encoding="utf-8") == "3"
    assert (step.context.output / "metrics.jsonl").is_file()


def test_a_script_that_is_not_resumable_begins_in_empty_folders(step):
    script = """
        assert not list(output.iterdir()) and not list(scratch.iterdir())
        (scratch / "left").touch(); (output / "left").touch()
        log(**{"val.accuracy": 1})
        sys.exit(seed)
    """
    with pytest.raises(CommandError):
        step.run(script, seed=1)
    step.context.again()
    step.run(script, seed=0)


def test_a_script_that_does_not_stop_is_ended_with_all_that_it_started(step):
    marker = f"marked{os.getpid()}"
    seen = []

    def stop():
        wait_for(lambda: len(living(marker)) == 2)
        seen.extend(living(marker))
        step.context.stop.set()

    threading.Thread(target=stop, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(StageStopped):
        step.run(
            f"""
            import signal, subprocess
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sleeper = [sys.executable, "-c", "import time; time.sleep(60)", "{marker}"]
            subprocess.Popen(sleeper)
            subprocess.Popen(sleeper, start_new_session=True)
            time.sleep(60)
            """,
            grace=1.0,
        )
    assert time.monotonic() - began < 45  # it would sleep for 60
    assert len(seen) == 2
    assert not living(marker)


def test_what_it_leaves_running_is_ended(step):
    marker = f"left{os.getpid()}"
    step.run(f"""
        import subprocess
        sleeper = [sys.executable, "-c", "import time; time.sleep(60)", "{marker}"]
        subprocess.Popen(sleeper, start_new_session=True)
        log(**{{"val.accuracy": 1}})
    """)
    assert not living(marker)


def test_nothing_outlives_a_worker_that_is_killed(tmp_path):
    marker = f"orphan{os.getpid()}"
    worker = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        from ablations.command.process import Process
        inner = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', " \\
            "'import time; time.sleep(60)', '{marker}'], start_new_session=True); time.sleep(60)"
        with Process([sys.executable, "-c", inner, "{marker}"], Path("."), os.environ, print) as p:
            while not p.listen(1.0):
                pass
    """)
    started = subprocess.Popen([sys.executable, "-c", worker], cwd=ROOT)
    wait_for(lambda: len(living(marker)) == 4)  # the worker, the guard, the command, its child
    started.send_signal(signal.SIGKILL)
    started.wait()
    wait_for(lambda: not living(marker))


def test_a_program_that_cannot_be_started(step):
    with pytest.raises(UserError, match=r"nonsense cannot be started: No such file"):
        step.run("pass", command=["nonsense"])


def test_much_output_is_kept_bounded(step):
    """As in a worker: this process prints into the file of which a stage's output is shown."""
    script = """
        for i in range(120):
            sys.stdout.write(f"{i}: " + "é" * 50_000 + "\\n")
        print("the end")
        log(**{"val.accuracy": 1})
    """
    step.script(script)
    kept = os.dup(1)
    with open(step.context.scratch / PRINTED, "wb") as file:
        os.dup2(file.fileno(), 1)
        try:
            step.run()
        finally:
            os.dup2(kept, 1)
            os.close(kept)
    text = (step.context.scratch / PRINTED).read_bytes()
    assert len(text) < 4 * 2**20
    assert text.startswith("… ".encode())
    assert text.rstrip().endswith(b"the end")


def test_environment(step, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    step.run(
        """
        assert "PYTHONPATH" not in os.environ and "RAY_ADDRESS" not in os.environ
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert os.environ["CACHE"] == str(scratch) + "/cache"
        assert Path.cwd() == Path(__file__).parent
        log(**{"val.accuracy": 1})
        """,
        cpu=3.0,
        environment={"CACHE": "{scratch}/cache"},
    )


def test_the_command_sees_the_devices_of_its_worker(step, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # of the worker; its study says nothing of cores
    monkeypatch.setenv(
        "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count=8"
    )
    step.run(
        """
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        assert os.environ["OMP_NUM_THREADS"] == "2"
        assert os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=8"
        log(**{"val.accuracy": 1})
        """
    )


def test_inputs(step, tmp_path):
    before = tmp_path / "before"
    before.mkdir()
    (before / "weights").write_text("7", encoding="utf-8")
    rows = step.run(
        'log(**{"val.accuracy": int((Path(sys.argv[5]) / "weights").read_text())})',
        command=[
            *(sys.executable, "train.py", "{config}", "{seed}", "{output}", "{scratch}"),
            "{input:pretrain}",
        ],
        inputs={"pretrain": before},
    )
    assert scores(rows) == {"val.accuracy": 7}


def test_code_that_changes_while_it_runs(step):
    with pytest.raises(CommandError, match=r"the code changed while train ran \(model\.py\)"):
        step.run("""
            Path("model.py").write_text("x = 1")
            log(**{"val.accuracy": 1})
        """)


def test_files_that_are_written_beside_the_output_are_told(step):
    step.run("""
        Path("checkpoint.pt").write_text("x")
        log(**{"val.accuracy": 1})
    """)
    assert "checkpoint.pt changed in the working folder" in step.context.facts["wrote_elsewhere"]


def test_data_that_is_not_what_was_planned(step):
    (step.home / "data.bin").write_bytes(b"1234")
    planned = files.data_fingerprint(step.home, ["data.bin"])
    (step.home / "data.bin").write_bytes(b"12345")
    with pytest.raises(UserError, match=r"the data here \(data\.bin\) is not what the study"):
        step.run("pass", data=["data.bin"], data_fingerprint=planned)


def test_links_in_the_output_become_what_they_name(step):
    step.run("""
        (output / "step_5").mkdir()
        (output / "step_5/weights").write_text("5")
        (output / "last").symlink_to("step_5")
        (output / "best").symlink_to(output / "step_5/weights")
        log(**{"val.accuracy": 1})
    """)
    output = step.context.output
    assert not [path for path in output.rglob("*") if path.is_symlink()]
    assert (output / "last/weights").read_text(encoding="utf-8") == "5"
    step.context.again()
    with pytest.raises(CommandError, match="cache in the output is a link to"):
        step.run('(output / "cache").symlink_to("/usr"); log(**{"val.accuracy": 1})')


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63"
    "60000000020001e221bc330000000049454e44ae426082"
)


def test_examples(step):
    (step.home / "pictures").mkdir()
    (step.home / "pictures/a.png").write_bytes(PNG)
    step.run(
        """
        rows = [
            {"id": "a", "image": "pictures/a.png", "prompt": "Colour?", "prediction": "red",
             "reference": "blue", "score": False},
            {"id": 2, "prediction": "Ünï", "references": ["x", "y"], "score": 0.5},
        ]
        (output / "examples.jsonl").write_text(
            "".join(json.dumps(row) + "\\n" for row in rows), encoding="utf-8")
        log(**{"val.accuracy": 1})
        """,
        examples="examples.jsonl",
    )
    first, second = pq.read_table(step.context.output / "examples.parquet").to_pylist()
    assert (first["item_id"], first["image_id"], first["score"]) == ("a", 0, 0.0)
    assert (first["image"], first["image_file"]) == (PNG, "pictures/a.png")
    assert first["references"] == ["blue"]
    assert (second["item_id"], second["image_id"], second["image"]) == ("2", -1, None)
    assert (second["prediction"], second["references"]) == ("Ünï", ["x", "y"])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"id": 1, "predicted": "x"}', "line 1: unknown key 'predicted'; did you mean"),
        ('{"id": 1, "score": "good"}', "line 1: score is 'good', not a number"),
        ('{"id": 1}\n{"id": 1}', "line 2: a second example with the id '1'"),
        ('{"id": 1, "image": "no.png"}', "example '1': no image 'no.png'"),
        ("[]", "line 1: .* is not an object"),
        ("x", "line 1: not a line of JSON"),
    ],
)
def test_examples_that_are_not_of_the_form(step, row, said):
    with pytest.raises(UserError, match=said):
        step.run(
            f"""
            (output / "examples.jsonl").write_text({row!r})
            log(**{{"val.accuracy": 1}})
            """,
            examples="examples.jsonl",
        )


def test_a_step_that_prepares_something_may_measure_nothing(step):
    assert step.run('(output / "table.txt").write_text("1 2 3")', metrics=()) == []
    assert (step.context.output / "table.txt").read_text(encoding="utf-8") == "1 2 3"
    step.context.again()
    with pytest.raises(UserError, match=r"no results: no numbers\.csv"):
        step.run("pass", metrics=(), results="numbers.csv")
