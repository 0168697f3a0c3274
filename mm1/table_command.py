"""`mm1 table` and `mm1 compare --table`: verdicts on numbers that were made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablations.errors import UserError
from mm1.options import json_option
from mm1.terminal import say

if TYPE_CHECKING:
    from analysis.tables.claims_file import ClaimsFile
    from analysis.tables.comparison import TableResults
    from analysis.tables.reading import Reading
    from analysis.tables.registration import Registered

_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "arm": (("--arm",), {"metavar": "COLUMN", "help": "The column that names the arms."}),
    "factors": (
        ("--factor",),
        {"metavar": "COLUMN", "multiple": True, "help": "A column that arms are made of."},
    ),
    "seed": (("--seed",), {"metavar": "COLUMN", "help": "The column of the seeds."}),
    "metric": (("--metric",), {"metavar": "COLUMN", "help": "The column that names the metric."}),
    "values": (
        ("--value",),
        {"metavar": "COLUMN", "multiple": True, "help": "A column of scores."},
    ),
    "task": (("--task",), {"metavar": "COLUMN", "help": "The column that names the task."}),
    "step_column": (("--step-column",), {"metavar": "COLUMN", "help": "Steps of curves."}),
    "item": (("--item",), {"metavar": "COLUMN", "help": "Items, which are averaged first."}),
    "time": (("--time",), {"metavar": "COLUMN", "help": "When each run began."}),
    "run": (("--run",), {"metavar": "COLUMN", "help": "The names of the runs."}),
    "ignore": (
        ("--ignore",),
        {"metavar": "COLUMN", "multiple": True, "help": "A column that tells nothing."},
    ),
    "across": (
        ("--columns",),
        {
            "type": click.Choice(["metrics", "seeds", "arms", "tasks"]),
            "help": "What the columns of numbers are.  [metrics]",
        },
    ),
    "names": (
        ("--names",),
        {"metavar": "PATTERN", "help": "What names of runs say: '{arm}-s{seed}'."},
    ),
    "primary": (("--primary",), {"metavar": "METRIC", "help": "What claims mean by default."}),
    "lower": (
        ("--lower",),
        {"metavar": "METRIC", "multiple": True, "help": "Lower is better."},
    ),
    "higher": (
        ("--higher",),
        {"metavar": "METRIC", "multiple": True, "help": "Higher is better."},
    ),
    "base": (("--base",), {"metavar": "ARM", "help": "What the others are compared with."}),
    "step": (("--step",), {"type": int, "help": "Of curves, this step.  [the last]"}),
    "repeats": (
        ("--repeats",),
        {
            "type": click.Choice(["mean", "first", "last"]),
            "help": "What counts of runs that are there several times.  [nothing]",
        },
    ),
    "as_is": (
        ("--as-is",),
        {"metavar": "METRIC", "multiple": True, "help": "It has one unit, though it looks not so."},
    ),
    "decimal": (("--decimal",), {"type": click.Choice([".", ","]), "help": "Of numbers."}),
    "exclude": (
        ("--exclude",),
        {"metavar": "'ARM seed N: WHY'", "multiple": True, "help": "A run that does not count."},
    ),
    "part": (
        ("--experiment", "--study", "--sheet"),
        {"metavar": "NAME", "help": "Of MLflow, Optuna or Excel, where there are several."},
    ),
}


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a table is to be read, by the names of `Reading`'s fields."""
    for field, (names, settings) in reversed(_OPTIONS.items()):
        command = click.option(*names, f"read_{field}", default=None, **settings)(command)
    return command


def reading_of(options: Mapping[str, Any]) -> Reading:
    """What the options said. Raises `UserError`."""
    from analysis.tables.reading import Reading

    said = {
        name.removeprefix("read_"): value
        for name, value in options.items()
        if name.startswith("read_") and value not in (None, ())
    }
    if "exclude" in said:
        said["exclude"] = dict(map(_exclusion, said["exclude"]))
    return Reading(**said)


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--table`, its claims, and how it is to be read."""
    command = reading_options(command)
    own: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (
            ("--table", "table_source"),
            {"metavar": "SOURCE", "help": "A table from elsewhere, instead of STUDY."},
        ),
        (
            ("--claims", "claims_file"),
            {"metavar": "FILE", "help": "What is claimed on the table (docs/tables.md)."},
        ),
        (
            ("--claim", "claim_texts"),
            {"metavar": "CLAIM", "multiple": True, "help": '"score(b) > score(a)"'},
        ),
        (
            ("--alpha", "alpha"),
            {
                "type": click.FloatRange(0, 0.5, min_open=True, max_open=True),
                "help": "Chance of any wrong verdict among --claim.  [0.05]",
            },
        ),
    ]
    for names, settings in reversed(own):
        command = click.option(*names, default=None, **settings)(command)
    return command


def table_of(
    study: str | None, options: Mapping[str, Any], store: str, registration: Path | None = None
) -> TableResults | None:
    """A table with its claims; None where a study is meant. Raises `UserError`."""
    source, path, texts = (options[n] for n in ("table_source", "claims_file", "claim_texts"))
    texts = texts or ()
    if source is None:
        odd = ["--claims"] * bool(path) + ["--claim"] * bool(texts) + given(options)
        if odd:
            raise UserError(f"{odd[0]} is of a table: say which with --table SOURCE")
        return None
    if study is not None:
        raise UserError(f"a study ({study}) or a table (--table {source}): say one")
    if path and texts:
        raise UserError("--claims FILE has all claims; put that of --claim into it")
    if path and options["alpha"] is not None:
        raise UserError("--alpha is of --claim; a claims file has its own `alpha`")
    from analysis.tables.claims_file import USUAL_ALPHA, inline_claims, load_claims
    from analysis.tables.comparison import table_results
    from analysis.tables.sources import read_source

    reading = reading_of(options)
    file = load_claims(path) if path else None
    if texts:
        file = inline_claims(texts, options["alpha"] or USUAL_ALPHA)
    part = reading.part or (file.table.part if file else "")
    record, notices = None, []
    if file is not None and path:
        record, notices = _on_record(file, store, registration)
    elif registration is not None:
        raise UserError("--registration is of --claims FILE: what is it of?")
    return table_results(
        read_source(source, part),
        reading,
        file,
        is_inline=bool(texts),
        registered=record,
        notices=notices,
    )


def _on_record(
    file: ClaimsFile, store: str, registration: Path | None
) -> tuple[Registered | None, list[str]]:
    """What the store knows of a claims file, and whether a published file is of it."""
    from analysis.tables.registration import registered
    from mm1.api import is_there
    from sweeps.store import Store

    record = registered(file, Store(store)) if is_there(store) else None
    if registration is None:
        return record, []
    try:
        published = json.loads(registration.read_text(encoding="utf-8"))
        claimed = str(published["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--registration {registration}: not a file that `mm1 register` wrote"
        ) from None
    if claimed != file.hash:
        return record, [
            f"registration {registration.name} does NOT match: it says {claimed}, the claims file "
            f"is {file.hash}"
        ]
    return record, [
        f"registration {registration.name} matches: {claimed}, of {published.get('registered_at')} "
        "as it says; when it was published tells more than a file can"
    ]


def register_claims(path: str, store: str, out: Path | None) -> None:
    """Put a claims file on record, and write the file to publish."""
    from ablations import strict_json
    from analysis.tables.claims_file import load_claims
    from analysis.tables.registration import register
    from sweeps.store import Store

    file = load_claims(path)
    record = register(file, Store(store))
    place = out or Path(path).with_name(f"{Path(path).stem}.registration.json")
    told = {"hash": record.hash, "registered_at": record.registered_at, **file.content}
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(strict_json.dumps(told, indent=2) + "\n", encoding="utf-8")
    say(f"{path} is registered as {record.hash}, {record.registered_at} ({place})")
    say("publish the hash before the runs: only that proves to others that it is older than they")


def is_claims_file(path: str) -> bool:
    """Whether a file holds claims on a table, and no study."""
    from ablations.study import is_file
    from ablations.yaml_files import load_yaml

    if not is_file(path):
        return False
    keys = load_yaml(path).value.keys()
    return "claims" in keys and not {"study", "base", "design"} & keys


def study_of(study: str | None) -> str:
    """The study that is meant. Raises `UserError` where neither it nor a table is named."""
    if study is None:
        raise UserError("say which STUDY, or --table SOURCE")
    return study


def rendered(results: TableResults, form: str, *, color: bool = False) -> str:
    """Effects and verdicts on a table as `text`, `markdown`, `latex` or `json`."""
    from analysis.compare import render_made
    from analysis.tables.comparison import table_comparison

    return render_made(table_comparison(results), form, color=color)


def given(options: Mapping[str, Any]) -> list[str]:
    """The options of a reading that were given, as they are written."""
    return [
        _OPTIONS[name.removeprefix("read_")][0][0]
        for name, value in options.items()
        if name.startswith("read_") and value not in (None, ())
    ]


def _exclusion(text: str) -> tuple[str, str]:
    run, sign, why = text.partition(":")
    if not sign or not why.strip():
        raise UserError(f"--exclude {text!r}: expected 'ARM seed N: WHY'")
    return run.strip(), " ".join(why.split())


@click.command()
@click.argument("source")
@reading_options
@json_option
def table(source: str, as_json: bool, **options: Any) -> None:
    """Tell what a table from elsewhere is understood as: roles, arms, seeds, metrics, what is odd.

    SOURCE is a CSV, Parquet, JSON lines or Excel file, `-`, a folder of W&B runs, TensorBoard logs
    or harness results, an MLflow tracking URI or an Optuna storage (docs/tables.md).

    \b
    Example: mm1 table results.csv --seed replicate --lower val/loss
    """
    from analysis.tables.sources import read_source
    from analysis.tables.told import summary, told
    from analysis.tables.understood import understand

    reading = reading_of(options)
    found = understand(read_source(source, reading.part), reading)
    if as_json:
        from ablations import strict_json

        click.echo(strict_json.dumps(summary(found), indent=2))
    else:
        say(told(found))
