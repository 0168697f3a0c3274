"""`mm1 data`: prepare data, and look at what the model gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ablations import strict_json
from ablations.errors import UserError
from mm1 import api
from mm1.options import data_option, json_option, store_option, worker_count, workers_option
from mm1.terminal import say


@click.group()
def data() -> None:
    """Prepare the data, or look at what the model gets."""


@data.command("prepare")
@click.argument("config")
@click.option("--out", default=None, help="Folder or URL for data of one's own.")
@workers_option
@store_option
@data_option
def prepare(
    config: str, out: str | None, workers: int | None, store: str, data: Path | None
) -> None:
    """Prepare the data that a recipe needs, or with --out one's own files as CONFIG says.

    Done once, then a no-op; interrupted, the same command goes on (docs/data.md).

    \b
    Example: mm1 data prepare my-captions.yaml --out /data/my-captions
    """
    from ablations.yaml_files import load_model, load_yaml
    from mm1.local import prepare_data
    from mm1_jax.workload import load_recipe

    root = api.data_folder(store, data)
    if out is None:
        document = load_yaml(config)
        own = [key for key in ("format", "urls") if key in document.value]
        if own:
            document.fail(f"{own[0]!r} is of data of one's own, which needs --out FOLDER", own[:1])
        click.echo(prepare_data([load_recipe(config).data], root))
        return
    from mm1.local import progress_bars
    from mm1_jax.data.own.inspection import inspect
    from mm1_jax.data.own.shard_preparation import PreparationSpec, prepare_own

    spec = load_model(config, PreparationSpec)
    with progress_bars() as progress:
        prepare_own(spec, out, root, worker_count(workers), progress)
    _say(inspect(out), as_json=False)


@data.command("inspect")
@click.argument("folder")
@json_option
def inspect_folder(folder: str, as_json: bool) -> None:
    """Say what is in a folder of prepared data, and what was dropped and why.

    Of the folder with the data of packages (.mm1/data), what each recipe's has.

    \b
    Example: mm1 data inspect /data/my-captions
    """
    from mm1_jax.data.own.inspection import inspect, inspect_packages

    packaged = inspect_packages(Path(folder))
    if not packaged:
        _say(inspect(folder), as_json)
    elif as_json:
        click.echo(strict_json.dumps(packaged, indent=2))
    else:
        for number, one in enumerate(packaged):
            click.echo("\n" if number else "", nl=False)
            documents = {name: n["documents"] for name, n in one["documents"].items()}
            _say(one | {"documents": documents}, as_json=False)


@data.command("stats")
@click.argument("folder")
@json_option
def stats(folder: str, as_json: bool) -> None:
    """Lengths of the documents and their images, from the index.

    \b
    Example: mm1 data stats /data/my-captions
    """
    from mm1_jax.data.own.inspection import statistics

    _say(statistics(folder), as_json)


@data.command("validate")
@click.argument("folder")
@click.option("--recipe", default=None, help="Also compare its tokenizer with this recipe's.")
@store_option
@data_option
@json_option
def validate_folder(
    folder: str, recipe: str | None, store: str, data: Path | None, as_json: bool
) -> int:
    """Compare every file with its checksum. Exit code 0 if all is well, 1 if something is damaged.

    \b
    Example: mm1 data validate /data/my-captions --recipe ablations/recipes/mini.yaml
    """
    from mm1.local import prepare_data, progress_bars
    from mm1_jax.data.own.inspection import validate

    tokenizer = None
    if recipe is not None:
        from mm1_jax.data.sources.prepared_packages import open_prepared
        from mm1_jax.data.tokenizer import tokenizer_file
        from mm1_jax.workload import load_recipe

        root = api.data_folder(store, data)
        config = load_recipe(recipe).data
        prepare_data([config], root)
        tokenizer = tokenizer_file(open_prepared(config, root).folder).read_bytes()
    with progress_bars() as progress:
        found = validate(folder, tokenizer, lambda done, of: progress("shards", done, of))
    if as_json:
        click.echo(
            strict_json.dumps([{"file": one.file, "what": one.what} for one in found], indent=2)
        )
    elif not found:
        say(f"{folder}: every file is as the manifest says")
    else:
        for one in found:
            say(f"{one.file} {one.what}")
    return 1 if found else 0


@data.command("show")
@click.argument("config")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--sequences", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("data.html"), show_default=True
)
@store_option
@data_option
def show(config: str, seed: int, sequences: int, out: Path, store: str, data: Path | None) -> None:
    """Write a page with what the model really gets: images, text, tokens and masks.

    CONFIG is a recipe, or a folder of prepared data: then all sequences are of that folder.

    \b
    Example: mm1 data show ablations/recipes/mini.yaml --out data.html
    """
    from mm1.local import prepare_data
    from mm1_jax.data.batches.batch_page import show as write_page

    train_config = _of_folder(config) if _is_folder(config) else _of_recipe(config)
    root = api.data_folder(store, data)
    prepare_data([train_config.data], root)
    write_page(train_config, root, seed, sequences, out)
    click.echo(out)


def _is_folder(config: str) -> bool:
    return "://" in config or Path(config).is_dir()


def _of_recipe(path: str) -> Any:
    from mm1_jax.workload import load_recipe

    return load_recipe(path).train_config()


def _of_folder(folder: str) -> Any:
    """The default model, on one folder alone."""
    from mm1_jax.config.data import DataConfig, MixtureConfig, SourceConfig
    from mm1_jax.config.train_config import TrainConfig
    from mm1_jax.data.own.manifest import read_manifest

    manifest = read_manifest(folder)
    vocabulary = manifest.settings.get("vocabulary")
    if not isinstance(vocabulary, int):
        raise UserError(f"{folder}: the manifest names no vocabulary")
    source = SourceConfig(folder=folder, kind=manifest.kind)
    mixture = MixtureConfig.model_validate({"own": 1.0})
    data = DataConfig(sources={"own": source}, mixture=mixture, vocabulary=vocabulary)
    return TrainConfig(data=data)


def _say(found: Mapping[str, Any], as_json: bool) -> None:
    """One line a value; what is nested, in a line; not what only programs read."""
    if as_json:
        click.echo(strict_json.dumps(found, indent=2))
        return
    values = {key: value for key, value in found.items() if key != "settings"}
    if "provenance" in values:
        provenance = dict(values["provenance"])
        files = provenance.pop("inputs", {}).get("files", [])
        values["provenance"] = {"files": len(files), **provenance}
    width = max(map(len, values))
    for name, value in values.items():
        if isinstance(value, dict):
            value = "  ".join(f"{k} {v}" for k, v in value.items()) or "none"
        elif isinstance(value, int):
            value = f"{value:,}"
        say(f"{name.replace('_', ' '):<{width}}  {value}")
