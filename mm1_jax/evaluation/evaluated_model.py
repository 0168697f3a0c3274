"""A model as tasks ask it: prompts become batches over all devices, answers come back as text.

The whole model or a language model alone, ours or imported; a task does not see which. On a mesh
weights lie as in training, and each part of the mesh takes its own rows of a batch; axis `data`
alone means a copy of the weights on every device (`evaluation_mesh`).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ablations.timeline import doing
from mm1_jax.data.batches.images import image_views, view_slots
from mm1_jax.data.batches.packing import Packed, lay_out, lay_out_texts
from mm1_jax.data.tokenizer import END, Tokenizer
from mm1_jax.images.sub_images import ImageViews
from mm1_jax.model.generation import cut, generate_text, generate_with_scores
from mm1_jax.model.language_model import LanguageModel
from mm1_jax.model.multimodal import MultimodalModel, take_rows
from mm1_jax.scale.sharding import BATCH, batch_sharding, place, tree_shardings

Batch = dict[str, Any]  # arrays by name


class Pictures(Protocol):
    """Where the pixels behind the image ids of a prompt come from."""

    def views(self, image_ids: np.ndarray, which: np.ndarray, seen: ImageViews) -> np.ndarray:
        """Views of images: int [...] and int [...] → uint8 [..., size, size, 3]; -1 is black."""
        ...

    def in_views(
        self, sequence: Packed, seen: ImageViews, slots: int, sharp: int | None = None
    ) -> Packed:
        """A sequence whose images, the last `sharp` of them, stand as all their views."""
        ...


class EvaluatedModel:
    """A trained model and its tokenizer.

    `ends` are the tokens that end an answer, `template` stands around the turns of conversations,
    `views` are what an encoder is shown of an image, each `view_tokens` long; with `sharp_images`
    only the last so many images of a prompt are shown in all their views. `begin` stands before
    every prompt that is answered; `as_one`: the texts of a prompt that follow each other are
    encoded together, as transformers does, and not apart, as our own models were trained. Weights
    that are not on the `mesh` yet are moved there.
    """

    def __init__(
        self,
        model: MultimodalModel | LanguageModel,
        words: Tokenizer,
        *,
        ends: tuple[int, ...] = (END,),
        template: str = "plain",
        view_tokens: int = 0,
        views: ImageViews | None = None,
        sharp_images: int | None = None,
        begin: tuple[int, ...] = (),
        as_one: bool = False,
        mesh: Mesh | None = None,
    ):
        self.words, self.ends, self.template = words, ends, template
        self.begin, self.as_one = begin, as_one
        self.view_tokens, self.views, self.sharp_images = view_tokens, views, sharp_images
        if mesh is not None:
            graphdef, state = nnx.split(model)
            weights = nnx.to_pure_dict(state)
            placed = jax.device_put(weights, tree_shardings(weights, mesh))
            nnx.replace_by_pure_dict(state, placed)
            model = nnx.merge(graphdef, state)
        self.mesh, self.model = mesh, model

    @property
    def sees_images(self) -> bool:
        """Whether a prompt may have images."""
        return self.views is not None

    def batch_rows(self, wanted: int) -> int:
        """The next number of rows that can be cut evenly over the mesh."""
        shares = 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in BATCH)
        return -(-wanted // shares) * shares

    @doing("data")
    def batch(self, rows: Sequence[Packed], pictures: Pictures | None) -> Batch:
        """Rows of equal static sizes, laid out; reads the images."""
        if self.views is None:
            return dict(lay_out_texts(rows))
        if pictures is not None:
            slots = view_slots(len(rows[0].image_ids), self.views.most, self.sharp_images)
            rows = [pictures.in_views(row, self.views, slots, self.sharp_images) for row in rows]
        batch: Batch = dict(lay_out(rows, self.view_tokens))
        del batch["sources"]
        image_ids, which = image_views(rows)
        if pictures is None:
            pixels = (self.views.size, self.views.size, 3)
            batch["images"] = np.zeros((*image_ids.shape, *pixels), np.uint8)
        else:
            batch["images"] = pictures.views(image_ids, which, self.views)
        return batch

    @doing("evaluation")
    def answers(self, batch: Batch, longest: int, stops: Sequence[str] = ()) -> list[str]:
        """The most likely text of at most `longest` tokens after each row, up to a stop string."""
        lengths = (batch["segments"] > 0).sum(axis=1).astype(np.int32)
        with self._on_devices(batch | {"lengths": lengths}) as placed:
            lengths = placed.pop("lengths")
            if isinstance(self.model, MultimodalModel):
                tokens, _ = generate_with_scores(
                    self.model, placed, lengths, longest, ends=self.ends
                )
            else:
                tokens, _ = generate_text(
                    *(self.model.language_model, placed["tokens"], lengths, longest),
                    form=self.model.form,
                    dtype=str(self.model.dtype),
                    ends=self.ends,
                )
        return [
            cut(row, self.words.decode, ends=self.ends, stops=stops)[1].strip()
            for row in np.asarray(tokens).tolist()
        ]

    @doing("evaluation")
    def likelihoods(self, batch: Batch, ends: np.ndarray, counts: np.ndarray) -> Any:
        """Log-probability (nats) of each row's last tokens, and whether each is the likeliest.

        `ends` int [B] says how many text tokens a row has, `counts` int [B] how many of its last
        ones are asked for. Gives float64 [B] and bool [B].
        """
        longest = int(counts.max())
        from_the_end = np.arange(longest)[None, :]
        places = np.maximum(ends[:, None] - 1 - from_the_end, 0)
        asked = {
            "places": places.astype(np.int32),
            "asked": from_the_end < counts[:, None],
            "targets": np.take_along_axis(batch["tokens"], places, axis=1),
        }
        graphdef, state = nnx.split(self.model)
        with self._on_devices(batch | asked) as placed:
            logprobs, likeliest = _likelihoods(graphdef, state, placed)
        return np.asarray(logprobs, np.float64), np.asarray(likeliest)

    @doing("evaluation")
    def token_losses(self, batch: Batch) -> np.ndarray:
        """Cross-entropy in nats of each text token, float32 [B, T]."""
        rows = len(batch["tokens"])
        missing = self.batch_rows(rows) - rows
        full = {name: np.concatenate([x, x[:1].repeat(missing, 0)]) for name, x in batch.items()}
        graphdef, state = nnx.split(self.model)
        with self._on_devices(full) as placed:
            return np.asarray(_token_losses(graphdef, state, placed))[:rows]

    @contextlib.contextmanager
    def _on_devices(self, batch: Batch) -> Any:
        if self.mesh is None:
            yield dict(batch)
        else:
            with jax.set_mesh(self.mesh):
                yield place(batch, dict.fromkeys(batch, batch_sharding(self.mesh)))


@functools.partial(jax.jit, static_argnums=0)
def _token_losses(graphdef: nnx.GraphDef, state: Any, batch: Batch) -> jax.Array:
    return nnx.merge(graphdef, state).token_losses(batch)


@functools.partial(jax.jit, static_argnums=0)
def _likelihoods(graphdef: nnx.GraphDef, state: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Only the asked tokens' scores are made: those of all would not fit beside a large model."""
    model = nnx.merge(graphdef, state)
    scores = model.language_model.logits(take_rows(model.hidden(batch)[0], batch["places"]))
    own = jnp.take_along_axis(scores, batch["targets"][..., None], axis=-1)[..., 0]
    logprobs = jnp.where(batch["asked"], own - jax.nn.logsumexp(scores, axis=-1), 0.0)
    likeliest = jnp.where(batch["asked"], jnp.argmax(scores, axis=-1) == batch["targets"], True)
    return logprobs.sum(axis=1), likeliest.all(axis=1)
