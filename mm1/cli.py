"""The command line. Heavy packages are imported inside the command that needs them.

Exit codes: 0 done, 1 some trials failed, 2 the user's mistake, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import click

from ablations import strict_json
from ablations.errors import UserError, nearest
from ablations.no_collection import no_more_collection
from ablations.shown_text import visible, without_secrets
from mm1 import api
from mm1.aot_command import aot
from mm1.cluster_command import cluster
from mm1.control_commands import add, cancel, pause, resume
from mm1.data_commands import data
from mm1.evaluate_command import evaluate
from mm1.export_command import export
from mm1.fsck_command import fsck
from mm1.gc_command import gc
from mm1.generate_command import generate
from mm1.job_commands import attach, stop, submit
from mm1.logs_command import logs
from mm1.notebook_command import notebook
from mm1.options import (
    data_option,
    json_option,
    machine_of,
    machine_option,
    mlflow_option,
    price_option,
    priority_option,
    store_option,
    worker_count,
    workers_option,
    yes_option,
)
from mm1.play_command import play
from mm1.promote_command import promote
from mm1.registration_commands import audit, register
from mm1.report_command import report
from mm1.reproduce_command import reproduce
from mm1.score_command import score
from mm1.table_command import rendered, study_of, table, table_of, table_options
from mm1.terminal import say
from mm1.timeline_command import timeline
from mm1.train_command import train
from mm1.try_command import try_study
from mm1.utf8_mode import enter_utf8_mode
from mm1.watch_command import watch
from mm1.weights_commands import encode, weights
from sweeps.plain_signs import use_plain_signs

FIRST_STEPS = """\
mm1 runs ablation studies of multimodal LLM pre-training.

What to do first:

  mm1 plan ablations/studies/demo.yaml     what would run, and what it costs
  mm1 run ablations/studies/demo.yaml      run it (again: go on where it stopped)
  mm1 dashboard                            watch it in the browser
  mm1 compare demo                         effects and verdicts in the terminal
  mm1 report demo                          the same as one HTML file

mm1 --help lists every command; each has an example in its own --help.
"""


class _Commands(click.Group):
    """Unknown commands name the nearest one; a user's mistake is one line and exit code 2."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise UserError(f"no command {name!r}{nearest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of a study's life, not of the alphabet


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="mm1")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Ablation studies of multimodal LLM pre-training: plan, run, compare."""
    if ctx.invoked_subcommand is None:
        click.echo(FIRST_STEPS, nl=False)


@cli.command()
@click.argument("study")
@store_option
@workers_option
@machine_option
@price_option
@yes_option
@click.option("--show", "arm", default=None, help="Print this arm's resolved config and no more.")
@json_option
def plan(
    study: str,
    store: str,
    workers: int | None,
    machine: str | None,
    price: float | None,
    yes: bool,
    arm: str | None,
    as_json: bool,
) -> None:
    """Show what a study would run, and what it costs. Runs nothing.

    `--show ARM` prints the complete config of one arm; `mm1 train` takes that of a recipe.
    `--on MACHINE` says of each arm whether it fits there, how long it takes and what it costs.

    \b
    Example: mm1 plan ablations/studies/demo.yaml --show encoder.image_size=16
    Example: mm1 plan ablations/studies/demo.yaml --on a100-8
    """
    from mm1 import plan_text

    named = machine_of(machine, price)
    made = api.plan(study, store=store, many=yes)
    if arm is not None:
        click.echo(plan_text.resolved(made, arm), nl=False)
        return
    finished = api.finished_stages(made, store)
    known = made, worker_count(workers), finished, api.measured_seconds(made, finished, store)
    new = api.new_stages(made, finished, store)
    start = api.start_seconds(made, store)
    on = None
    if named is not None:
        from mm1.plan_on import on_machine

        ran = api.measured_seconds(made, finished, store, named)
        on = on_machine(made, named, finished, ran, workers, start)
    if as_json:
        figures = plan_text.summary(*known, new=new, start_seconds=start)
        if on is not None:
            figures["on"] = on.summary()
        click.echo(strict_json.dumps({**figures, "store": api.store_place(store)}, indent=2))
    else:
        plan_text.show(*known, new=new, store=api.store_place(store), on=on, start_seconds=start)


cli.add_command(try_study)


@cli.command()
@click.argument("study")
@store_option
@data_option
@workers_option
@click.option("--cluster", default=None, help="Address of a running Ray cluster. [embedded Ray]")
@priority_option
@machine_option
@mlflow_option
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=None,
    metavar="MINUTES",
    help="End a stage of which nothing is heard for so long, if that is 20 times what is usual. "
    "0: never. [30]",
)
@click.option(
    "--rerun",
    type=click.Choice(["failed"]),
    default=None,
    help="Run the trials that have failed, and no others.",
)
@yes_option
@click.option(
    "--notify",
    multiple=True,
    metavar="URL|COMMAND",
    help="Tell it when the study ends, stalls or reaches a verdict. [$MM1_NOTIFY]",
)
@click.option(
    "--smoke",
    is_flag=True,
    help="Only try each program of the study: two steps, one batch, save and restore.",
)
@json_option
def run(
    study: str,
    store: str,
    data: Path | None,
    workers: int | None,
    cluster: str | None,
    priority: float,
    machine: str | None,
    mlflow_uri: str | None,
    patience: float | None,
    rerun: str | None,
    yes: bool,
    notify: tuple[str, ...],
    smoke: bool,
    as_json: bool,
) -> int:
    """Run what is missing of a study, then print effects, verdicts and the report's path.

    Interrupted, it goes on where it was; finished trials are never run again. Exit code 0 when
    every trial is there, 1 when some failed, 130 when interrupted. Each stage holds what it needs
    of the cluster's cores and accelerators; `--on simulated-8` tries a mesh on a laptop.

    \b
    Example: mm1 run ablations/studies/demo.yaml
    """
    if smoke:
        return _smoke(study, store, data, workers, cluster, yes, as_json)
    code = api.run(
        study,
        store=store,
        data=data,
        workers=workers,
        cluster=cluster,
        on=machine,
        mlflow_uri=mlflow_uri,
        many=yes,
        quiet=as_json,
        notify=notify,
        patience_minutes=patience,
        failed_only=rerun == "failed",
        priority=priority,
    )
    if code == 130:
        return code
    if as_json:
        click.echo(api.compare(study, store=store, form="json"))
        return code
    click.echo()
    click.echo(api.compare(study, store=store, color=sys.stdout.isatty()))
    click.echo(f"report: {api.report(study, store=store)}")
    return code


cli.add_command(cluster)
cli.add_command(submit)
cli.add_command(attach)
cli.add_command(stop)


@cli.command()
@click.argument("study", required=False)
@store_option
@json_option
def status(study: str | None, store: str, as_json: bool) -> None:
    """Show how far the studies of a store are.

    \b
    Example: mm1 status
    """
    from mm1 import status_text

    figures = status_text.summaries(study, store)
    if as_json:
        click.echo(strict_json.dumps(figures, indent=2))
    else:
        status_text.show(figures, store)


def _smoke(
    study: str,
    store: str,
    data: Path | None,
    workers: int | None,
    cluster: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Try every compile class, and print a line for each; 1 where one failed."""
    found = api.smoke(
        study, store=store, data=data, workers=workers, cluster=cluster, many=yes, quiet=as_json
    )
    if as_json:
        click.echo(strict_json.dumps([vars(one) for one in found], indent=2))
    else:
        for one in found:
            sign, color = ("ok    ", "green") if one.ok else ("FAILED", "red")
            click.secho(sign, fg=color, nl=False)
            of = f"{one.stages} stage" + ("s" if one.stages != 1 else "")
            say(f"  {one.what} ({of}): {one.told}")
        failed = sum(not one.ok for one in found)
        say(f"{len(found)} programs tried, {failed} failed; nothing of it is kept")
    return int(not all(one.ok for one in found))


for command in (watch, pause, resume, cancel, add):
    cli.add_command(command)


cli.add_command(table)


@cli.command()
@click.argument("study", required=False)
@store_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "latex", "json"]),
    default="text",
    show_default=True,
)
@click.option(
    "--registration",
    type=click.Path(path_type=Path),
    help="File that `mm1 register` wrote: is it of what is shown?",
)
@table_options
@json_option
def compare(
    study: str | None,
    store: str,
    form: str,
    registration: Path | None,
    as_json: bool,
    **of_table: Any,
) -> None:
    """Print the effects and the verdict of each claim of a study that has run, or of a table.

    With `--table SOURCE` the numbers may be anybody's: a CSV, Parquet, JSON lines or Excel file,
    an export of W&B, an MLflow experiment, … `mm1 table SOURCE` tells what is understood.

    \b
    Example: mm1 compare demo --format latex
    Example: mm1 compare --table results.csv --claim "score(b) > score(a)"
    """
    chosen = "json" if as_json else form
    color = sys.stdout.isatty()
    if (of := table_of(study, of_table, store, registration)) is not None:
        click.echo(rendered(of, chosen, color=color))
        return
    name = study_of(study)
    click.echo(api.compare(name, store=store, form=chosen, color=color, registration=registration))


cli.add_command(report)
cli.add_command(reproduce)


@cli.command()
@store_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8050, show_default=True)
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="Another name that browsers call it by, behind a proxy. Unknown ones are refused.",
)
@click.option(
    "--actions",
    is_flag=True,
    help="Whoever has the token that is printed may pause, resume, cancel and write notes.",
)
def dashboard(store: str, host: str, port: int, allow: tuple[str, ...], actions: bool) -> int:
    """Serve every study of the store in the browser, live, without network (docs/dashboard.md).

    \b
    Example: mm1 dashboard --port 8050
    """
    from analysis.dashboard import serve
    from mm1.origin import ORIGIN
    from sweeps.store import Store

    return serve(Store(store), host=host, port=port, allowed=allow, origin=ORIGIN, actions=actions)


cli.add_command(notebook)
cli.add_command(export)
cli.add_command(train)
cli.add_command(evaluate)
cli.add_command(logs)
cli.add_command(timeline)
cli.add_command(register)
cli.add_command(audit)


cli.add_command(data)
cli.add_command(weights)
cli.add_command(encode)
cli.add_command(generate)
cli.add_command(play)
cli.add_command(promote)
cli.add_command(aot)
cli.add_command(score)
cli.add_command(fsck)
cli.add_command(gc)


def main() -> None:
    """Run the command line; tell a user's mistake in one line."""
    enter_utf8_mode()
    use_plain_signs()
    if sys.argv[1:2] in (["status"], ["compare"]):  # which make many records, answer and end
        no_more_collection()
    try:
        code = cli.main(standalone_mode=False)
    except UserError as error:
        code = _say(str(error))
    except click.ClickException as error:
        code = _say(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except OSError as error:
        place = error.filename or "?"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            code = _say(f"the disk is full ({place}); what was finished is kept, free some room")
        elif error.filename and error.strerror:  # of a place that the user gave, or its disk
            code = _say(f"{place}: {error.strerror}")
        else:
            raise
    sys.exit(code if isinstance(code, int) else 0)


def _say(message: str) -> int:
    click.echo(f"mm1: {visible(without_secrets(' '.join(message.split())))}", err=True)
    return 2


if __name__ == "__main__":
    main()
