"""What the data packages hold, read once for all sources that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mm1_jax.config.data import DataConfig
from mm1_jax.config.embedded_sources import EmbeddedConfig
from mm1_jax.data.sources import easy_vqa, emoji, wikipedia
from mm1_jax.data.sources.easy_vqa import Question
from mm1_jax.data.sources.emoji import Emoji
from mm1_jax.data.sources.wikipedia import Lead
from mm1_jax.data.templates import Template, template_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PackageContents:
    """Facts of all images and texts; an image is named by its row in the image table.

    asked      questions of easy-VQA, by split
    drawn      Twemoji's drawings; `redrawn` the same by OpenMoji, where that is asked for
    colours    of each drawing by its name, in plain words
    leads      of Wikipedia
    template   words around the turns of a conversation
    embedded   what the sources are asked for
    images     uint8 [height, width, 3] by name, in the order of their rows
    """

    asked: Mapping[easy_vqa.Split, list[Question]]
    drawn: list[Emoji]
    redrawn: list[Emoji]
    colours: Mapping[str, tuple[str, ...]]
    leads: list[Lead]
    template: Template
    embedded: EmbeddedConfig
    images: Mapping[str, np.ndarray]

    def drawn_in(self, split: emoji.Split) -> list[Emoji]:
        """The drawings of a split."""
        return [item for item in self.drawn if item.split == split]

    def redrawn_in(self, split: emoji.Split) -> list[Emoji]:
        """The drawings of a split in the second style."""
        return [item for item in self.redrawn if item.split == split]

    def leads_in(self, split: wikipedia.Split) -> list[Lead]:
        """The lead sections of a split."""
        return [lead for lead in self.leads if lead.split == split]


def read_packages(config: DataConfig, progress: Progress) -> PackageContents:
    """Read every package that `config` asks for. UserError if one is missing."""
    shapes = {split: easy_vqa.image_names(split) for split in ("train", "test")}
    first = {"train": 0, "test": len(shapes["train"])}
    shape_names = shapes["train"] + shapes["test"]
    drawn = emoji.read_all(first_row=len(shape_names))
    redrawn: list[Emoji] = []
    if config.embedded.drawings.lacking is None:
        redrawn = emoji.in_second_style(drawn, first_row=len(shape_names) + len(drawn))
    images: dict[str, np.ndarray] = {}
    colours: dict[str, tuple[str, ...]] = {}
    names = [*shape_names, *(item.name for item in (*drawn, *redrawn))]
    for name in names:
        if len(images) % 500 == 0:
            progress("images", len(images), len(names))
        if name.startswith("easy_vqa/"):
            images[name] = easy_vqa.read_image(name)
        else:
            drawing = emoji.read_drawing(name)
            images[name] = emoji.on_background(drawing, config.background)
            colours[name] = emoji.colours(drawing)
    progress("images", len(names), len(names))
    return PackageContents(
        asked={
            "train": easy_vqa.questions("train", first["train"]),
            "test": easy_vqa.questions("test", first["test"]),
        },
        drawn=drawn,
        redrawn=redrawn,
        colours=colours,
        leads=wikipedia.read_all(),
        template=template_of(config.template),
        embedded=config.embedded,
        images=images,
    )
