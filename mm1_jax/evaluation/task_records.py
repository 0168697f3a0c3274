"""Every task, one record each: what it asks of, its forms, its items and what it measures.

Planning knows no more of a task than this; how it is asked and scored is its own module.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablations.errors import UserError
from ablations.workload import INTACT, TRAINING, Asked, Goal, Metric, Task, check_metric
from mm1_jax.config.questions import MOST_SHOTS
from mm1_jax.evaluation.official.catalogue import OFFICIAL

MULTIMODAL, ENCODER, LANGUAGE_MODEL = "multimodal", "encoder", "language_model"
SHUFFLED = (INTACT, "shuffled", "no_image")
MISLEADING = (*SHUFFLED, "wrong_demonstrations")


@dataclass(frozen=True)
class TaskRecord:
    """What there is to know of a task before it is asked.

    measured   metrics and forms
    part       whose checkpoint it scores
    items      of the test split, about; for the planned cost only
    asks       groups of `data.embedded` that must ask for what it asks
    seconds    that it takes beside asking, about
    captions   whether images are compared with captions, which not every encoder was trained by
    """

    measured: Task
    items: int
    part: str = MULTIMODAL
    asks: tuple[str, ...] = ()
    seconds: float = 0.0
    captions: bool = False

    @property
    def one_form(self) -> bool:
        """Whether it asks no questions: no demonstrations, no images to shuffle."""
        return self.measured.most_shots == 0


# What a number of this name is, in whatever task: goal, worst value, unit.
_SHARE = ("maximise", 0.0, "%")
_POINTS = ("maximise", 0.0, "")
_NEITHER = (None, None, "%")
_KNOWN: dict[str, tuple[Goal | None, float | None, str]] = {
    **dict.fromkeys(
        (
            *("accuracy", "accuracy_bytes", "accuracy_norm", "accuracy_of_unanswerable"),
            *("accuracy_single", "accuracy_vqa_rule", "anls", "bleu_4", "colour_accuracy"),
            *("exact_match", "f1", "kind_accuracy", "precision", "recall", "recall_at_1"),
            *("recall_at_5", "relaxed_accuracy", "rouge_l"),
        ),
        _SHARE,
    ),
    **dict.fromkeys(("cider", "cognition", "perception", "score"), _POINTS),
    **dict.fromkeys(("unanswerable", "yes_ratio"), _NEITHER),
    "bits_per_byte": ("minimise", None, "bits"),
    "loss": ("minimise", None, "nats"),
    "perplexity": ("minimise", None, ""),
    "unparsed": ("minimise", None, "%"),
}


def score(name: str) -> Metric:
    """A number that the model scores."""
    goal, worst, unit = _KNOWN[name]
    return Metric(name=name, goal=goal, worst=worst, unit=unit)


def baseline(by: str, of: str, name: str = "") -> Metric:
    """The same number of an answerer without the model, such as `blind`."""
    goal, _, unit = _KNOWN[of]
    return Metric(
        name=name or f"{by}_{of}",
        goal=goal,
        unit=unit,
        role="baseline",
        of=of,
        by=by,
        beaten=by != "oracle",
    )


def control(by: str, of: str) -> Metric:
    """The same number of a model that has learnt nothing."""
    return baseline(by, of).model_copy(update={"role": "control"})


def _scores(*names: str) -> tuple[Metric, ...]:
    return tuple(map(score, names))


# Of official formats: what rows may tell beside, by the field's rule or by a stricter reading.
_BESIDE = (
    *map(score, _KNOWN),
    *(score(name).model_copy(update={"name": f"strict_{name}", "worst": None}) for name in _KNOWN),
)


def _asked(
    *metrics: Metric, conditions: tuple[str, ...] = SHUFFLED, beside: tuple[Metric, ...] = ()
) -> Task:
    return Task(metrics=metrics, conditions=conditions, most_shots=MOST_SHOTS, beside=beside)


_BLIND = baseline("blind", "accuracy")
_CHANCE = baseline("chance", "accuracy")
_KINDS = _scores("accuracy", "kind_accuracy")
TASKS: dict[str, TaskRecord] = {
    "easy_vqa": TaskRecord(
        _asked(score("accuracy"), _BLIND, baseline("oracle", "accuracy")), 9_673
    ),
    "emoji_caption": TaskRecord(_asked(score("cider"), baseline("blind", "cider")), 214),
    "emoji_languages": TaskRecord(  # in four languages
        _asked(*_KINDS, _BLIND, conditions=MISLEADING),
        2_928,
        asks=("language_documents", "drawings"),
    ),
    "emoji_attributes": TaskRecord(
        _asked(*_KINDS, _BLIND, conditions=MISLEADING), 242, asks=("language_documents",)
    ),
    "fast_binding": TaskRecord(
        _asked(*_KINDS, _CHANCE, conditions=MISLEADING), 500, asks=("binding_documents",)
    ),
    "emoji_glossary": TaskRecord(
        _asked(*_scores("accuracy", "colour_accuracy"), _CHANCE, conditions=MISLEADING),
        500,
        asks=("glossary_documents",),
    ),
    "emoji_questions": TaskRecord(_asked(score("accuracy"), _BLIND), 856),
    "held_out_text": TaskRecord(Task(metrics=_scores("perplexity", "bits_per_byte")), 311),
    "pretrained_text": TaskRecord(
        Task(
            metrics=(
                *_scores("perplexity", "bits_per_byte"),
                baseline("ngram", "perplexity"),
                baseline("ngram", "bits_per_byte"),
            )
        ),
        311,
        part=LANGUAGE_MODEL,
        seconds=10.0,  # the n-gram counts the training texts
    ),
    "emoji_retrieval": TaskRecord(
        Task(
            metrics=(
                *_scores("recall_at_1", "recall_at_5"),
                baseline("chance", "recall_at_1", "chance_at_1"),
                baseline("chance", "recall_at_5", "chance_at_5"),
            )
        ),
        214,
        part=ENCODER,
        captions=True,
    ),
    "emoji_probe": TaskRecord(
        Task(
            metrics=(
                score("accuracy"),
                control("untrained", "accuracy"),
                baseline("majority", "accuracy"),
            )
        ),
        214,
        part=ENCODER,
    ),
} | {
    name: TaskRecord(
        _asked(
            *_scores(*official.metrics),
            *(() if official.text else (baseline("blind", m) for m in official.metrics)),
            conditions=(INTACT,) if official.text else SHUFFLED,
            beside=_BESIDE,
        ),
        official.items,
    )
    for name, official in OFFICIAL.items()
}
CURVES = Task(metrics=(score("loss"),))
MEASURED: dict[str, Task] = {name: one.measured for name, one in TASKS.items()} | {TRAINING: CURVES}


# Those that are asked in the data that a model was trained on, in no folder of the user's.
OF_OUR_DATA = tuple(name for name in TASKS if name not in OFFICIAL)


def part_of(task: str) -> str:
    """Whose checkpoint a task scores; of a task that is not known, the whole model's."""
    return TASKS[task].part if task in TASKS else MULTIMODAL


def reads_captions(task: str) -> bool:
    """Whether a task compares images with captions; one that is not known does not."""
    return task in TASKS and TASKS[task].captions


def check_task_metric(task: str, metric: str) -> None:
    """Raise `UserError` if there is no such task or metric."""
    check_metric({name: one for name, one in MEASURED.items() if name != TRAINING}, task, metric)


def check_form(asked: Asked) -> None:
    """Raise `UserError` for a form of a task that the task cannot have."""
    task, shots, condition = asked
    if shots > MOST_SHOTS:
        raise UserError(f"{shots:,} shots of {task}: at most {MOST_SHOTS:,}")
    known = TASKS.get(task)
    if known is None:
        return
    if known.one_form and (shots or condition != INTACT):
        raise UserError(f"{task} asks no questions: no images to shuffle, no demonstrations")
    if condition in known.measured.conditions:
        return
    if condition == "wrong_demonstrations" and known.measured.conditions != (INTACT,):
        misled = [name for name, one in TASKS.items() if condition in one.measured.conditions]
        raise UserError(
            f"{task} has one kind of answer, so no demonstrations are wrong; condition "
            f"{condition} is for {', '.join(misled)}"
        )
    raise UserError(f"{task} asks about no images: condition {condition}")
