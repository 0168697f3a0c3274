"""`mm1 aot`: what a config comes to on a TPU slice that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ablations import strict_json
from ablations.errors import UserError
from mm1.options import mesh_of
from mm1_jax.scale.chips import CHIPS

if TYPE_CHECKING:
    from mm1_jax.scale.aot import Compilation


@click.command()
@click.argument("config")
@click.option("--topology", default=None, help="A slice: v5e:16x16, v5p:4x4x8, …")
@click.option("--mesh", default=None, help="data=1,fsdp=32,tensor=1,expert=8. [the config's]")
@click.option("--micro-batches", type=click.IntRange(1), default=None, help="[the config's]")
@click.option("--fit", is_flag=True, help="Propose the smallest slice that holds it, and a mesh.")
@click.option(
    "--chip", type=click.Choice(list(CHIPS)), default=None, help="With --fit. [the first that can]"
)
@click.option("--only", type=click.Choice(["train", "generation"]), default=None)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def aot(
    config: str,
    topology: str | None,
    mesh: str | None,
    micro_batches: int | None,
    fit: bool,
    chip: str | None,
    only: str | None,
    as_json: bool,
) -> int:
    """Compile training step and generation for a TPU slice, without one: memory, FLOPs, time.

    Generation reads queries of 9 images and 512 text tokens, one for each part into which the mesh
    cuts a batch, and then goes on by one token. Exit code 1 where the training step does not fit.

    \b
    Example: mm1 aot ablations/recipes/mm1_3b.yaml --fit --chip v5e
    """
    from mm1_jax.scale import aot as ahead
    from mm1_jax.workload import load_recipe

    if fit == (topology is not None):
        raise UserError("either --topology NAME or --fit; topologies: v5e:16x16, v5p:4x4x8, …")
    if chip is not None and not fit:
        raise UserError("--chip goes with --fit; --topology names the chip itself")
    recipe = load_recipe(config).train_config()
    made: list[Compilation] = []
    proposal = None
    if fit:
        if mesh is not None or micro_batches is not None or only == "generation":
            raise UserError("--fit proposes mesh and micro-batches for training; write neither")
        proposal, step = ahead.fit(
            recipe, chip, say=lambda line: click.echo(line, err=True) if not as_json else None
        )
        made.append(step)
        topology, on = proposal.topology, proposal.mesh
    else:
        assert topology is not None
        on = recipe.training.mesh if mesh is None else mesh_of(mesh)
        parts = micro_batches or recipe.training.micro_batches
        ahead.check_mesh(recipe, topology, on, parts)
        if only != "generation":
            made.append(ahead.compile_train(recipe, topology, on, parts))
    if only != "train" and all(step.fits for step in made):
        made += ahead.compile_generation(recipe, topology, on)
    if as_json:
        told = {**made[0].as_json(), "programs": [one.as_json() for one in made]}
        if proposal is not None:
            told["proposal"] = proposal.as_yaml()
        click.echo(strict_json.dumps(told, indent=2))
    else:
        for one in made:
            show(one)
        if proposal is not None and made[0].fits:
            click.echo(proposal.as_yaml())
    return 0 if made[0].fits else 1


def show(made: Compilation) -> None:
    """Print one program's figures."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in made.mesh.items() if size > 1)
    parts = f", {made.micro_batches} micro-batches" if made.micro_batches > 1 else ""
    head = f"{made.what} on {made.topology} ({made.chips} chips; {mesh or 'one'}{parts})"
    if not made.fits:
        click.echo(f"{head}: does not fit, by {made.missing_bytes / 2**30:.2f} GiB a chip")
        return
    click.echo(f"{head}: fits, compiled in {made.compile_seconds:.0f} s")
    kinds = ", ".join(f"{kind} {size / 2**30:.2f}" for kind, size in made.memory.items())
    click.echo(f"  GiB a chip   {made.bytes_per_chip / 2**30:.2f}: {kinds}")
    click.echo(
        f"  FLOPs        {made.flops_per_step:.3e} a step on all chips, "
        f"{made.model_flops:.3e} by the model's formula"
    )
    click.echo(f"  HBM          {made.hbm_bytes:.3e} bytes a chip")
    for kind, figures in made.collectives.items():
        click.echo(
            f"  {kind:<20} {figures['count']:>7,.0f} of together {figures['bytes']:.3e} bytes, "
            f"{figures['sent_bytes']:.3e} sent a chip"
        )
    click.echo(
        f"  roofline     {made.roofline_seconds:.3g} s (arithmetic {made.compute_seconds:.3g}, "
        f"HBM {made.hbm_seconds:.3g}, links {made.ici_seconds:.3g}; "
        f"one after the other {made.pessimistic_seconds:.3g})"
    )
    click.echo(f"  MFU ceiling  {100 * made.mfu_ceiling:.1f} %")
    if made.not_counted:
        click.echo(f"  not counted  {', '.join(made.not_counted)}")
