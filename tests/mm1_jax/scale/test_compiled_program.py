"""What is read from a compiled program, against shapes, XLA's own count, and unrolled programs."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from mm1_jax.config.language_model import DenseConfig
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.layers import Form
from mm1_jax.scale.compiled_program import UnknownTripCountError, read_program

# The form of program that is read, whatever flags the tests are run with.
AS_EVERYWHERE = {"xla_cpu_use_fusion_emitters": True}


def compiled(function, *shapes):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*shapes).compile(AS_EVERYWHERE)


def test_products_and_convolutions_of_a_loop_free_program_are_those_xla_counts():
    def program(x, w, pixels, kernel):
        y = jnp.einsum("bsd,df->bsf", x, w)
        scores = jnp.einsum("bsf,btf->bst", y, y)
        strided = jax.lax.conv_general_dilated(pixels, kernel, (2, 2), "SAME")
        grouped = jax.lax.conv_general_dilated(
            strided, kernel[:1].repeat(4, 0), (1, 1), "VALID", feature_group_count=1
        )
        return scores.sum() + grouped.sum()

    made = compiled(program, (4, 64, 32), (32, 48), (2, 3, 31, 31), (3, 3, 5, 5))
    # XLA adds an operation for every number that is summed or added.
    assert read_program(made.as_text()).flops == pytest.approx(
        made.cost_analysis()["flops"], rel=0.02
    )


def test_padding_and_holes_are_no_products():
    def program(pixels, kernel):
        return jax.lax.conv_general_dilated(
            pixels, kernel, (1, 1), [(2, 2), (0, 0)], lhs_dilation=(3, 1)
        )

    made = compiled(program, (1, 8, 4, 1), (8, 8, 3, 1))
    # Along the first axis 4 inputs with 2 holes between; each meets every one of 3 kernel rows.
    assert read_program(made.as_text()).flops == 2 * 8 * 8 * 4 * 3


def loop(turns, start=0):
    def program(x, w):
        def body(i, x):
            return jnp.tanh(x @ w)

        return jax.lax.fori_loop(start, start + turns, body, x)

    return program


@pytest.mark.parametrize("start", [0, 3])
def test_a_loops_body_counts_as_often_as_it_runs(start):
    def flops(turns):
        text = compiled(loop(turns, start), (16, 64), (64, 64)).as_text()
        return read_program(text).flops

    assert flops(7) == 7 * 2 * 16 * 64 * 64
    # XLA itself counts it once, or our figures would have no reason.
    once = compiled(loop(7), (16, 64), (64, 64)).cost_analysis()["flops"]
    assert once < 2 * 2 * 16 * 64 * 64


def test_nested_loops_multiply():
    def program(x, w):
        def outer(x, _):
            def inner(x, _):
                return jnp.tanh(x @ w), None

            return jax.lax.scan(inner, x, None, length=5)[0], None

        return jax.lax.scan(outer, x, None, length=3)[0]

    text = compiled(program, (16, 64), (64, 64)).as_text()
    assert read_program(text).flops == 15 * 2 * 16 * 64 * 64


def test_a_loop_that_does_not_say_how_often_it_runs_is_an_error():
    def program(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 1.0, lambda x: jnp.tanh(x @ w), x)

    with pytest.raises(UnknownTripCountError, match="while"):
        read_program(compiled(program, (16, 64), (64, 64)).as_text())


def test_a_program_that_copies_moves_its_bytes_twice():
    text = compiled(lambda x: x * 2.0, (1024, 256)).as_text()
    assert read_program(text).hbm_bytes == 2 * 4 * 1024 * 256


def test_of_a_stack_that_a_loop_slices_each_turn_reads_its_slice():
    def program(x, stack):
        return jax.lax.scan(lambda x, w: (x + w, None), x, stack)[0]

    moved = read_program(compiled(program, (4096,), (64, 4096)).as_text()).hbm_bytes
    stack = 4 * 64 * 4096
    # The slice, x read and x written, and little else.
    assert 3 * stack <= moved < 4.5 * stack


DECODER = DenseConfig(width=64, layers=4, heads=4, kv_heads=2, mlp_width=192)


def decoder_gradient(form: Form):
    graphdef, state = nnx.split(Decoder(DECODER, 256))

    def loss(state, tokens):
        decoder = nnx.merge(graphdef, state)
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        x = decoder.embed(tokens, jnp.float32)
        hidden, _ = decoder(x, places, jnp.ones_like(tokens), form)
        return decoder.logits(hidden).sum()

    lowered = jax.jit(jax.grad(loss)).lower(state, jax.ShapeDtypeStruct((4, 32), jnp.int32))
    return lowered.compile(AS_EVERYWHERE)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_scanned_decoder_counts_as_the_unrolled_one(remat, monkeypatch):
    scanned = decoder_gradient(Form("scanned", remat))
    # The same with every turn written out, and so with the same work done twice.
    monkeypatch.setattr(jax.lax, "scan", functools.partial(jax.lax.scan, unroll=True))
    written_out = decoder_gradient(Form("scanned", remat))
    counted = read_program(written_out.as_text()).flops
    assert "while(" not in written_out.as_text()
    assert read_program(scanned.as_text()).flops == pytest.approx(counted, rel=0.02)
    # XLA's own count has norms, softmax and sums too.
    assert counted < written_out.cost_analysis()["flops"] < 1.2 * counted


HEADER = """HloModule m, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

"""


def collectives(body, types="p: f32[128]"):
    text = f"{HEADER}ENTRY %main ({types}) -> f32[128] {{\n{body}\n}}\n"
    return read_program(text).collectives


@pytest.mark.parametrize(
    "groups", ["{{0,1,2,3},{4,5,6,7}}", "[2,4]<=[8]", "mesh['x'=2,'y'=4] {'y'}"]
)
def test_a_collectives_bytes_follow_from_its_shapes_and_group(groups):
    found = collectives(
        "  %p = f32[128]{0} parameter(0)\n"
        f"  %g = f32[512]{{0}} all-gather(%p), channel_id=1, replica_groups={groups}, "
        "dimensions={0}\n"
        f"  ROOT %r = f32[128]{{0}} all-reduce(%p), channel_id=2, replica_groups={groups}, "
        "to_apply=%add"
    )
    gathered, reduced = found["all-gather"], found["all-reduce"]
    assert (gathered.count, gathered.bytes, gathered.sent_bytes) == (1, 2048, 1536)
    assert (reduced.count, reduced.bytes, reduced.sent_bytes) == (1, 512, 768)


def test_an_asynchronous_collective_counts_once():
    found = collectives(
        "  %p = f32[128]{0} parameter(0)\n"
        "  %s = (f32[128]{0}, f32[512]{0}) all-gather-start(%p), channel_id=1, "
        "replica_groups=[1,4]<=[4], dimensions={0}\n"
        "  %d = f32[512]{0} all-gather-done(%s)\n"
        "  ROOT %r = f32[128]{0} slice(%d), slice={[0:128]}"
    )
    assert {kind: (c.count, c.bytes) for kind, c in found.items()} == {"all-gather": (1, 2048)}


@pytest.mark.skipif(jax.device_count() < 2, reason="needs simulated devices")
def test_collectives_of_a_sharded_product_are_found_with_their_bytes():
    mesh = jax.make_mesh((jax.device_count(),), ("x",))
    cut = jax.sharding.NamedSharding(mesh, P(None, "x"))
    rows = jax.sharding.NamedSharding(mesh, P("x", None))
    whole = jax.sharding.NamedSharding(mesh, P())
    shapes = [jax.ShapeDtypeStruct((64, 64), jnp.float32)] * 2
    made = jax.jit(jnp.matmul, in_shardings=(cut, rows), out_shardings=whole).lower(*shapes)
    found = read_program(made.compile().as_text()).collectives
    assert found["all-reduce"].bytes == 4 * 64 * 64
