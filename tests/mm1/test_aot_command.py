"""`mm1 aot` from the shell: mistakes are one line; a real compilation is slow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "ablations" / "recipes" / "mm1_1b.yaml"


def refused(result) -> str:
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "either --topology NAME or --fit"),
        (("--topology", "v5f:4x4"), "no chip 'v5f'"),
        (("--topology", "v5e:4"), "v5e slices have 2 sizes"),
        (("--topology", "v5e:4x4", "--mesh", "fsdp=8"), "nearest: fsdp=16"),
        (("--topology", "v5e:4x4", "--mesh", "fdsp=16"), "did you mean 'fsdp'"),
        (("--topology", "v5e:4x4", "--mesh", "fsdp=four"), "for example fsdp=8"),
        (("--topology", "v5e:4x4", "--mesh", "fsdp=16", "--micro-batches", "3"), "nearest: "),
        (("--fit", "--mesh", "fsdp=16"), "write neither"),
        (("--topology", "v5e:4x4", "--chip", "v5e"), "--chip goes with --fit"),
    ],
)
def test_a_mistake_is_one_line(mm1, options, told):
    assert told in refused(mm1("aot", CONFIG, *options))


@pytest.mark.slow
def test_a_training_step_is_compiled_and_told_as_json(mm1, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "encoder: {preset: vit_mini}\n"
        "training: {batch_size: 8, compute_dtype: bfloat16}\n"
        "optimizer: {peak_lr: 0.001}\n",
        encoding="utf-8",
    )
    result = mm1("aot", recipe, "--topology", "v5e:2x2", "--mesh", "fsdp=4", "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["fits"] is True
    assert told["bytes_per_chip"] > 0
    assert told["flops_per_step"] > 0
    assert 0 < told["mfu_ceiling"] <= 1
    assert "all-gather" in told["collectives"]
    assert [one["what"] for one in told["programs"]] == ["train", "prefill", "decode"]
