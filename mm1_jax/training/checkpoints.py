"""Weights on disk, in Orbax's format: what a stage has trained, and a training's progress.

The folder of a stage has `config.json`, {"kind": …, "config": …}, and `checkpoint/`, a tree whose
first keys are the parts' names. Orbax writes beside the target and commits it last, so what a kill
leaves half-written is never listed and never loaded. The layout does not depend on how layers are
run: a model trained with scanned layers is read by an unrolled one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh

from ablations.errors import UserError
from ablations.timeline import doing
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.scale.sharding import tree_shardings
from mm1_jax.weights.json_object import read_object, stating
from mm1_jax.weights.weights_folder import CHECKPOINT_FOLDER, CONFIG_FILE

StageConfig = TrainConfig | EncoderStageConfig | LanguageModelStageConfig
Configured = TypeVar("Configured", TrainConfig, EncoderStageConfig, LanguageModelStageConfig)
Module = TypeVar("Module", bound=nnx.Module)
Tree = dict[Any, Any]  # of arrays
_PATTERN = re.compile(r"[*?\[\\]")

KINDS: dict[str, type[StageConfig]] = {
    "multimodal": TrainConfig,
    "encoder": EncoderStageConfig,
    "language_model": LanguageModelStageConfig,
}

# Orbax tells every save at INFO and its choice of defaults at WARNING.
logging.getLogger("absl").setLevel(logging.ERROR)


@contextlib.contextmanager
def _plain(folder: Path) -> Generator[Path]:
    """A folder by a path that Orbax and TensorStore take as it is written.

    Orbax looks for the files that it has just written by a glob of their whole path, and where
    that finds none, the checkpoint has no weights, without a word.
    """
    folder = folder.absolute()
    if not _PATTERN.search(str(folder)):
        yield folder
        return
    top = tempfile.gettempdir()
    if _PATTERN.search(top):
        raise UserError(f"TMPDIR {top} has one of the signs * ? [ \\; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mm1-checkpoint-") as place:
        link = Path(place) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def save_part(folder: Path, config: StageConfig, module: nnx.Module) -> None:
    """Write `config.json` and `checkpoint/` into the folder of a training stage.

    The module's attributes are the parts: `encoder`, `language_model`, …
    """
    save_tree(folder, config, nnx.to_pure_dict(nnx.state(module)))


@doing("save")
def save_tree(folder: Path, config: StageConfig, weights: Tree) -> None:
    """As `save_part`, of a tree of arrays."""
    kind = next(kind for kind, known in KINDS.items() if type(config) is known)
    stated = {"kind": kind, "config": config.model_dump(mode="json")}
    folder.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        (folder / CONFIG_FILE).write_text(json.dumps(stated, indent=2), encoding="utf-8")
    with _plain(folder) as plain, ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(plain / CHECKPOINT_FOLDER, weights, force=True)


def load_config(folder: Path) -> StageConfig:
    """The config of what a training stage's folder holds.

    Raises `UserError` where the folder holds no finished checkpoint.
    """
    if not (folder / CONFIG_FILE).is_file() or not (folder / CHECKPOINT_FOLDER).is_dir():
        raise UserError(f"{folder} holds no trained model ({CONFIG_FILE}, {CHECKPOINT_FOLDER}/)")
    stated = read_object(folder / CONFIG_FILE)
    with stating(folder / CONFIG_FILE):
        return KINDS[stated["kind"]].model_validate(stated["config"])


@doing("start")
def load_part(
    folder: Path,
    expected: type[Configured],
    build: Callable[[Configured], Module],
    mesh: Mesh | None = None,
) -> tuple[Configured, Module]:
    """The config and the trained module of a training stage's folder.

    `build` makes the module from shapes alone. On a mesh each device reads only what lies on it;
    without one all is read onto one device, whatever mesh it was saved from. Raises `UserError`
    where the folder holds no finished checkpoint, or one of another kind than `expected`.
    """
    config = load_config(folder)
    if not isinstance(config, expected):
        kinds = {known: kind for kind, known in KINDS.items()}
        raise UserError(
            f"{folder} holds a checkpoint of kind {kinds[type(config)]}, not {kinds[expected]}"
        )
    graphdef, state = nnx.split(build(config))
    with _plain(folder) as plain, ocp.StandardCheckpointer() as checkpointer:
        shapes = nnx.to_pure_dict(state)
        if mesh is None:
            one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            places = jax.tree.map(lambda _: one, shapes)
        else:
            places = tree_shardings(shapes, mesh)
        wanted = jax.tree.map(
            lambda x, there: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), shapes, places
        )
        weights = checkpointer.restore(plain / CHECKPOINT_FOLDER, wanted)
    nnx.replace_by_pure_dict(state, weights)
    return config, nnx.merge(graphdef, state)


@doing("start")
def load_subtree(folder: Path, part: str) -> tuple[StageConfig, Tree]:
    """The config, and one part's weights (float32 arrays on the host) with paths below the part.

    Nothing else is read. Raises `UserError` where the checkpoint has no such part.
    """
    config = load_config(folder)
    with _plain(folder) as plain, ocp.PyTreeCheckpointer() as checkpointer:
        path = plain / CHECKPOINT_FOLDER
        there = checkpointer.metadata(path).item_metadata.tree
        if part not in there:
            raise UserError(f"{folder} has no {part}; it holds {', '.join(sorted(there))}")
        wanted = {part: there[part]}
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
            partial_restore=True,
        )
        return config, checkpointer.restore(path, args=arguments)[part]


def shapes_of(folder: Path) -> Tree:
    """Part → tree of what stands for each array of a checkpoint: its shape and dtype."""
    load_config(folder)  # says so where there is none
    with _plain(folder) as plain, ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.metadata(plain / CHECKPOINT_FOLDER).item_metadata.tree


class Progress:
    """The newest states of a training that goes on, kept in a scratch folder.

    A state is a dict of lists of arrays; `notes` is JSON beside it. Kept are the last `keep_last`
    and, if asked, the one with the lowest loss. Writing goes on while the training does; a state
    is listed when all of it is on disk, so one that a kill has torn is never loaded.
    """

    def __init__(self, folder: Path, *, keep_last: int = 1, keep_best: bool = False):
        keep = ocp.checkpoint_managers.LatestN(keep_last)
        if keep_best:
            lowest = ocp.checkpoint_managers.BestN(
                n=1, reverse=True, get_metric_fn=lambda metrics: metrics["loss"]
            )
            keep = ocp.checkpoint_managers.AnyPreservationPolicy([keep, lowest])
        self._held = contextlib.ExitStack()
        self._manager = ocp.CheckpointManager(
            self._held.enter_context(_plain(folder)),
            options=ocp.CheckpointManagerOptions(
                create=True,
                preservation_policy=keep,
                best_fn=(lambda metrics: metrics["loss"]) if keep_best else None,
                best_mode="min",
            ),
        )

    def latest_step(self) -> int | None:
        """The step of the newest complete state, None where there is none."""
        self._manager.wait_until_finished()
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the state with the lowest loss, None where there is none."""
        self._manager.wait_until_finished()
        return self._manager.best_step()

    @doing("save")
    def save(
        self, step: int, state: Mapping[str, Any], notes: Any, loss: float | None = None
    ) -> None:
        """Begin to write the state after `step`; what is not to be kept goes when it is complete.

        `loss`, of the steps since the state before, says which one is best.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(dict(state)), notes=ocp.args.JsonSave(notes)
            ),
            metrics=None if loss is None else {"loss": loss},
        )

    @doing("start")
    def load(self, step: int, like: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """The state and notes saved after `step`.

        `like` has the tree, the shapes and where the arrays are to lie: another mesh than they
        were saved on, if it says so.
        """
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), dict(like)
        )
        saved = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes), notes=ocp.args.JsonRestore()
            ),
        )
        return saved["state"], saved["notes"]

    def load_newest(self, like: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """As `load`, of the newest complete state, of which there is one."""
        step = self.latest_step()
        assert step is not None
        return self.load(step, like)

    @doing("save")
    def close(self) -> None:
        """Wait until all is written, and release what Orbax holds."""
        self._manager.close()
        self._held.close()
