"""Scoring a model on an official task: the files as published, the metric of the field."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ablations.errors import UserError
from ablations.stage import Context
from mm1_jax.data.batches.images import sharp_views
from mm1_jax.data.batches.packing import Packed
from mm1_jax.evaluation.asking import ask, likelihoods
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.evaluation.evaluation_stage import EvaluationStage, Example
from mm1_jax.evaluation.official import likelihood_tasks
from mm1_jax.evaluation.official.few_shot_prompts import (
    check_shots,
    concluded,
    drawn_for,
    few_shot_prompt,
    majority,
    questions_of,
    task_in,
)
from mm1_jax.evaluation.official.image_record import ImageFacts, digest, facts_of, write_images
from mm1_jax.evaluation.official.published_files import image_bytes, in_a_table
from mm1_jax.evaluation.official.task import Question, standard_errors
from mm1_jax.evaluation.official.task_folder import OfficialFolder, open_official
from mm1_jax.evaluation.tasks import prompts
from mm1_jax.evaluation.tasks.prompts import Prompt
from mm1_jax.images.pictures import LIMIT_BYTES, WHITE, Colour, PictureError, upright_rgb
from mm1_jax.images.sub_images import ImageViews

_KEPT_IMAGES = 1_024  # in all their views, in memory
_READERS = 4  # threads that decode images


def evaluate_official(
    stage: EvaluationStage, model: EvaluatedModel, context: Context
) -> tuple[list[Example], dict[str, float], dict[str, float]]:
    """Examples, metrics, and the standard errors of the metrics that are means of items' scores.

    UserError where the folder is not the task's, where there are fewer training examples than
    shots, or where the task cannot have the condition.
    """
    settings = stage.official
    assert settings is not None
    task = task_in(settings.module)
    folder = open_official(stage.task, settings)
    if folder.content != settings.content:
        raise UserError(f"{stage.task}: the files in {settings.folder} are not the planned ones")
    everything, training = questions_of(settings.module, folder)
    check_shots(stage.task, stage.shots, len(training))
    questions = prompts.subset(everything, stage.items, stage.seed, stage.task)
    drawn = [drawn_for(q, training, stage.shots, stage.seed, stage.task) for q in questions]
    shown = _shown(stage, questions)
    if any(shown) and not model.sees_images:
        raise UserError(f"{stage.task} asks about images, and this is a language model alone")
    if task.by_likelihood and settings.reasoning:
        raise UserError(f"{stage.task}: reasoning: its choices are ranked, nothing is generated")
    if task.by_likelihood:
        asked, predictions = _by_likelihood(stage, model, questions, drawn, context)
    else:
        pictures = Pictures(folder)
        asked = [
            few_shot_prompt(
                stage.task, settings, question, images, own, pictures.number, model.template
            )
            for question, images, own in zip(questions, shown, drawn, strict=True)
        ]
        if stage.condition == "no_image":
            asked = [prompts.without_images(prompt) for prompt in asked]
        predictions = ask(
            model,
            asked,
            pictures=pictures,
            longest=settings.longest_answer,
            stops=settings.stop,
            batch_size=stage.batch_size,
            context=context,
            hashed=pictures.digest,
        )
        if shown_files := pictures.files:
            write_images(shown_files, context.output)
            context.record({"images": digest(shown_files)})
    said = [concluded(text) for text in predictions] if settings.reasoning else predictions
    score = task.score(questions, [task.answer(text) for text in said])
    metrics = dict(score.metrics)
    if training and not task.by_likelihood:
        blind_said = majority(stage.task, settings, questions, training)
        blind = task.score(questions, [task.answer(text) for text in blind_said])
        metrics |= {f"blind_{name}": value for name, value in blind.metrics.items()}
    examples = [
        Example(
            item_id=question.item_id,
            image_id=-1,
            prompt=prompts.as_text(prompt),
            prediction=prediction,
            references=list(question.references),
            score=value,
            image_file=images[0] if images else "",
        )
        for question, images, prompt, prediction, value in zip(
            questions, shown, asked, predictions, score.items, strict=True
        )
    ]
    return examples, metrics, standard_errors(questions, score)


def _shown(stage: EvaluationStage, questions: Sequence[Question]) -> list[tuple[str, ...]]:
    """The images of each question under the stage's condition."""
    images = [question.images for question in questions]
    if stage.condition == "intact":
        return images
    if not any(images):
        raise UserError(f"{stage.task} asks about no images: condition {stage.condition}")
    if stage.condition == "no_image":
        return [()] * len(images)
    if stage.condition != "shuffled":
        raise UserError(f"condition {stage.condition}: {stage.task} has one kind of answer only")
    distinct = list(dict.fromkeys(filter(None, images)))
    number = {own: place for place, own in enumerate(distinct)}
    other = prompts.derangement(list(number.values()), stage.seed, stage.task)
    return [distinct[other[number[own]]] if own else own for own in images]


def _by_likelihood(
    stage: EvaluationStage,
    model: EvaluatedModel,
    questions: Sequence[Question],
    drawn: Sequence[Sequence[Question]],
    context: Context,
) -> tuple[list[Prompt], list[str]]:
    def measured(pairs: Sequence[likelihood_tasks.Pair]) -> list[tuple[float, bool]]:
        return likelihoods(
            model,
            [((before,), continuation) for before, continuation in pairs],
            pictures=None,
            batch_size=stage.batch_size,
            context=context,
        )

    asked: list[Prompt] = [
        (likelihood_tasks.pairs(question, own)[0][0],)
        for question, own in zip(questions, drawn, strict=True)
    ]
    return asked, likelihood_tasks.answers(questions, measured, drawn)


class Pictures:
    """The images of an official task, read when they are asked for; see `evaluated_model`."""

    def __init__(self, folder: OfficialFolder):
        self._folder = folder
        self._numbers: dict[tuple[str, bool], int] = {}
        self._names: list[tuple[str, bool]] = []
        self._seen: OrderedDict[tuple[int, ImageViews], np.ndarray] = OrderedDict()
        self._sizes: dict[int, tuple[int, int]] = {}
        self._facts: dict[int, ImageFacts] = {}

    def number(self, name: str, *, training: bool = False) -> int:
        """The image id of a name in `Question.images`, of a question that is asked or shown."""
        own = (name, training)
        if own not in self._numbers:
            self._numbers[own] = len(self._names)
            self._names.append(own)
        return self._numbers[own]

    @property
    def files(self) -> dict[str, ImageFacts]:
        """The image files that were read so far, by name; images in tables are annotations."""
        named = {self._names[number][0]: facts for number, facts in self._facts.items()}
        return {name: facts for name, facts in named.items() if not in_a_table(name)}

    def digest(self, image_ids: Sequence[int]) -> str:
        """Hash of what images hold, which are read if they have not been."""
        for number in image_ids:
            if number not in self._facts:
                self._content(number)
        return digest({str(number): self._facts[number] for number in image_ids})

    def views(self, image_ids: np.ndarray, which: np.ndarray, seen: ImageViews) -> np.ndarray:
        """As `ImageTable.views`. UserError, with its name, for an image that cannot be read."""
        wanted = [int(number) for number in np.unique(image_ids) if number >= 0]
        missing = [number for number in wanted if (number, seen) not in self._seen]
        with ThreadPoolExecutor(_READERS) as readers:
            read = readers.map(
                lambda number: seen.of(self._picture(number, seen.background)), missing
            )
            self._seen |= zip([(number, seen) for number in missing], read, strict=True)
        pixels = np.zeros((*image_ids.shape, seen.size, seen.size, 3), np.uint8)
        for number in wanted:
            self._seen.move_to_end((number, seen))
            own = image_ids == number
            pixels[own] = self._seen[number, seen][which[own]]
        while len(self._seen) > _KEPT_IMAGES:
            self._seen.popitem(last=False)
        return pixels

    def in_views(
        self, sequence: Packed, seen: ImageViews, slots: int, sharp: int | None = None
    ) -> Packed:
        """As `ImageTable.in_views`."""
        if seen.most == 1:
            return sequence
        sizes = [self._size(int(number)) for number in sequence.image_ids if number >= 0]
        return sharp_views(sequence, sizes, seen, slots, sharp)

    def _size(self, number: int) -> tuple[int, int]:
        if number not in self._sizes:
            self._sizes[number] = self._picture(number, WHITE).size
        return self._sizes[number]

    def _picture(self, number: int, background: Colour) -> Image.Image:
        name, _ = self._names[number]
        try:
            return upright_rgb(self._content(number), background)
        except (OSError, PictureError) as error:
            raise UserError(f"image {name} cannot be read: {error}") from None

    def _content(self, number: int) -> bytes:
        name, training = self._names[number]
        if in_a_table(name):
            content = image_bytes(self._folder.tables(training=training), name)
        else:
            path = self._folder.image_file(name)
            if path is None:
                places = self._folder.images
                looked = ", ".join(map(str, places))
                raise UserError(f"no image {name} in {looked} or the folders in {places[0]}")
            if path.stat().st_size > LIMIT_BYTES:
                raise UserError(f"image {name} cannot be read: more than {LIMIT_BYTES} bytes")
            content = path.read_bytes()
        facts = facts_of(content)
        if self._facts.setdefault(number, facts) != facts:
            raise UserError(f"image {name} was changed while it was asked about")
        return content
