"""Compiling ahead of time for TPU slices; what needs the TPU compiler for minutes is slow."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import pytest
import yaml

from ablations.errors import UserError
from mm1_jax.config.recipe import Recipe
from mm1_jax.config.training import MeshConfig
from mm1_jax.scale import aot, costs
from mm1_jax.scale.chips import CHIPS, chip_of

RECIPES = Path(__file__).parents[3] / "ablations" / "recipes"


def paper_sized(**language_model) -> Recipe:
    """The paper's batch and images around one of its language models."""
    return Recipe.model_validate(
        {
            "encoder": {"preset": "vit_h14", "class_token": True},
            "connector": {"kind": "c_abstractor", "tokens": 144, "width": 1024, "depth": 3},
            "language_model": language_model,
            "data": {
                "packing": "total",
                "text_tokens": 4096,
                "images": 16,
                "total_tokens": 4096,
                "vocabulary": 32000,
            },
            "training": {"batch_size": 512, "compute_dtype": "bfloat16"},
        }
    )


@pytest.mark.parametrize(
    ("mesh", "micro_batches", "told"),
    [
        ({"fsdp": 8}, 1, "takes 8 chips, v5e:4x4 has 16; nearest: fsdp=16"),
        ({"fsdp": 8, "tensor": 2}, 64, "batch_size 1000 .* 512 parts .* nearest: 500"),
        ({"fsdp": 4, "tensor": 4}, 1, "mesh.tensor 4 does not divide encoder heads 2; nearest: 2"),
        ({"fsdp": 8, "expert": 2}, 1, "mesh.expert 2 does not divide experts 1; nearest: 1"),
    ],
)
def test_a_mesh_that_does_not_divide_is_told_with_the_nearest(tiny, mesh, micro_batches, told):
    config = tiny(training={"batch_size": 1000})
    with pytest.raises(UserError, match=told):
        aot.check_mesh(config, "v5e:4x4", MeshConfig(**mesh), micro_batches)


def test_without_the_tpu_compiler_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    with pytest.raises(UserError, match="make env"):
        aot.use_compiler()


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory, the total memory required for HLO temporaries "
            "(19.75G) exceeds available HBM (15.75G).",
            4 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: Used 17.00G of 15.75G hbm. Exceeded hbm capacity by 1.25G.",
            1.25 * 2**30,
        ),
        ("INVALID_ARGUMENT: something else", None),
    ],
)
def test_the_compilers_errors_say_how_much_memory_is_missing(message, missing):
    assert aot.missing_bytes(message) == missing


def test_what_is_left_to_the_device_is_told_for_tpus_and_not_asked_of_this_machine(tiny):
    training = aot.for_accelerators(tiny(), MeshConfig(fsdp=2), 2).training
    assert (training.layers, training.attention) == ("scanned", "chunked")
    assert (training.mesh.fsdp, training.micro_batches) == (2, 2)
    kept = aot.for_accelerators(tiny(training={"layers": "unrolled"}), MeshConfig(), 1)
    assert kept.training.layers == "unrolled"


def test_proposed_slices_hold_by_the_formula_and_smaller_ones_do_not():
    config = paper_sized(preset="6.4b")
    chip = CHIPS["v5e"]
    first = next(aot.proposals(config, chip))
    assert first.bytes_per_chip <= chip.hbm_bytes
    assert aot.check_mesh(config, first.topology, first.mesh, first.micro_batches) is None
    smaller = chip.topologies[: chip.topologies.index(first.topology)]
    for topology in smaller:
        mesh = MeshConfig(fsdp=chip_of(topology)[1])
        config_there = aot.for_accelerators(config, mesh, 512 // mesh.batch_shards)
        total = sum(costs.memory_per_chip(config_there).values())
        assert total > aot.ROOM * chip.hbm_bytes, topology


def test_experts_are_cut_and_not_only_gathered():
    config = paper_sized(kind="moe", preset="3b_moe", capacity_factor=1.25)
    proposal = next(aot.proposals(config, CHIPS["v5p"]))
    assert proposal.mesh.expert > 1
    assert config.language_model.experts % proposal.mesh.expert == 0


def test_larger_models_take_larger_slices():
    sizes = [
        chip_of(next(aot.proposals(paper_sized(preset=name), CHIPS["v5e"])).topology)[1]
        for name in ("1.2b", "2.9b", "6.4b", "30b")
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def attempt(config, topology, mesh, micro_batches, *, fits):
    return aot.Compilation(
        what="train",
        topology=topology,
        chips=mesh.devices,
        mesh=dict(mesh),
        micro_batches=micro_batches,
        tokens_per_step=1,
        model_flops=1.0,
        fits=fits,
    )


def test_at_most_three_programs_are_compiled_and_the_last_one_is_told():
    tried = []

    def none_fits(config, topology, mesh, micro_batches):
        tried.append((topology, micro_batches))
        return attempt(config, topology, mesh, micro_batches, fits=False)

    proposal, last = aot.fit(paper_sized(preset="1.2b"), "v5e", compile_one=none_fits)
    assert not last.fits
    assert len(tried) == 3
    assert len(set(tried)) == 3
    assert (proposal.topology, proposal.micro_batches) == tried[-1]


def test_the_first_that_fits_is_proposed_as_lines_for_a_recipe():
    fits = functools.partial(attempt, fits=True)
    proposal, _ = aot.fit(paper_sized(preset="1.2b"), "v5e", compile_one=fits)
    first = next(aot.proposals(paper_sized(preset="1.2b"), CHIPS["v5e"]))
    assert proposal == first
    assert f"mesh: {{data: 1, fsdp: {proposal.mesh.fsdp}, tensor: 1" in proposal.as_yaml()


def test_a_model_that_no_slice_holds_is_told_with_the_other_chips():
    config = paper_sized(kind="moe", preset="7b_moe", experts=1024, capacity_factor=1.25)
    with pytest.raises(UserError, match=r"no slice up to v5e:16x16 .* other chips: v6e"):
        aot.fit(config, "v5e")


def test_memory_per_chip_falls_with_what_it_is_cut_by():
    config = paper_sized(preset="6.4b")

    def total(mesh, micro_batches=1):
        there = aot.for_accelerators(config, mesh, micro_batches)
        return sum(costs.memory_per_chip(there).values())

    chips = [total(MeshConfig(fsdp=n)) for n in (16, 64, 256)]
    assert chips == sorted(chips, reverse=True)
    parts = [total(MeshConfig(fsdp=64), n) for n in (2, 4, 8)]
    assert parts == sorted(parts, reverse=True)
    assert total(MeshConfig(data=4, fsdp=16)) > total(MeshConfig(fsdp=64))


# GiB a chip of recipes/mm1_1b.yaml as libtpu 0.0.52 compiled it, minutes each.
COMPILED = [("v5e:2x2", 128, 12.09), ("v5e:16x16", 1, 4.64)]


@pytest.mark.parametrize(("topology", "micro_batches", "gibibytes"), COMPILED)
def test_the_memory_formula_is_near_what_was_compiled(topology, micro_batches, gibibytes):
    config = Recipe.model_validate(
        yaml.safe_load((RECIPES / "mm1_1b.yaml").read_text(encoding="utf-8"))
    )
    mesh = MeshConfig(fsdp=chip_of(topology)[1])
    there = aot.for_accelerators(config, mesh, micro_batches)
    formula = sum(costs.memory_per_chip(there).values()) / 2**30
    assert gibibytes / 1.1 < formula < 1.35 * gibibytes


# -- with the TPU compiler -----------------------------------------------------------------------

SMALL = {
    "encoder": {"image_size": 64, "patch_size": 8, "width": 256, "layers": 4, "heads": 2},
    "language_model": {"width": 512, "layers": 4, "heads": 4, "kv_heads": 2, "mlp_width": 1536},
    "data": {"text_tokens": 480, "images": 8, "vocabulary": 2048},
    "training": {"batch_size": 8, "compute_dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def scanned(tiny):
    return aot.compile_train(tiny(**SMALL), "v5e:2x2", MeshConfig(fsdp=4))


@pytest.mark.slow
def test_a_training_step_compiles_for_a_slice_and_its_parts_add_up(tiny, scanned):
    assert scanned.fits
    assert scanned.bytes_per_chip == sum(scanned.memory.values())
    state = scanned.memory["weights"] + scanned.memory["moments"]
    count = sum(costs.parameters(tiny(**SMALL)).values())
    # A quarter of weights and two moments, and whole norms and biases.
    assert 12 * count / 4 <= state <= 1.1 * 12 * count / 4
    assert "all-gather" in scanned.collectives
    assert scanned.roofline_seconds == max(
        scanned.compute_seconds, scanned.hbm_seconds, scanned.ici_seconds
    )
    assert 0 < scanned.mfu_ceiling < 1


@pytest.mark.slow
def test_a_scanned_step_counts_as_the_same_step_without_loops(tiny, scanned, monkeypatch):
    # Every scan of the step, over layers and over chunks, is written out.
    plain = jax.lax.scan
    monkeypatch.setattr(jax.lax, "scan", functools.partial(plain, unroll=True))
    written_out = aot.compile_train(tiny(**SMALL), "v5e:2x2", MeshConfig(fsdp=4))
    assert scanned.flops_per_chip == pytest.approx(written_out.flops_per_chip, rel=0.02)


@pytest.mark.slow
def test_flops_of_the_program_are_those_of_the_formula_and_one_more_forward_pass(tiny, scanned):
    formula = sum(costs.flops_per_step(tiny(**SMALL)).values())
    assert formula < scanned.flops_per_step < 1.45 * formula


@pytest.mark.slow
def test_what_does_not_fit_says_by_how_much(tiny):
    config = tiny(**{**SMALL, "training": {"batch_size": 8192, "layers": "unrolled"}})
    made = aot.compile_train(config, "v5e:2x2", MeshConfig(fsdp=4))
    assert not made.fits
    assert made.missing_bytes > 0
    assert made.bytes_per_chip > CHIPS["v5e"].hbm_bytes


@pytest.mark.slow
def test_generation_reads_the_weights_once_for_a_token(tiny):
    config = tiny(**SMALL)
    prefill, decode = aot.compile_generation(config, "v5e:2x2", MeshConfig(fsdp=4))
    assert prefill.fits
    assert decode.fits
    assert decode.memory["cache"] > 0
    assert prefill.flops_per_step > 100 * decode.flops_per_step
    assert [dataclasses.asdict(made)["what"] for made in (prefill, decode)] == ["prefill", "decode"]


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5p:2x2x1", "v6e:2x2"])
def test_every_kind_of_chip_is_known_to_the_compiler(topology):
    chip, count = chip_of(topology)
    assert len(aot.devices_of(topology)) == count
    largest = chip.topologies[-1]
    assert len(aot.devices_of(largest)) == chip_of(largest)[1]


@pytest.mark.slow
def test_a_slice_that_the_compiler_refuses_is_told():
    with pytest.raises(UserError, match=r"v5e:3x3.*slices: v5e:1x1"):
        aot.devices_of("v5e:3x3")
