"""MME (Fu et al., 2023): fourteen subtasks, two yes-or-no questions an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.yes_no import mme_reading
from mm1_jax.evaluation.official.published_files import (
    embedded,
    find,
    lines_of,
    one_each,
    read_rows,
    read_text,
    rows_with,
)
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = (
    *("commonsense_reasoning", "numerical_calculation"),
    *("text_translation", "code_reasoning"),
)
_FIELDS = ["question_id", "question", "answer", "category"]
_PICTURES = (".jpg", ".png", ".jpeg")


def _id(category: str, image: str, question: str) -> str:
    return f"{category}/{image}: {question.strip()}"


def read(path: Path) -> list[Question]:
    """The folder of the release (a folder a subtask), or Parquet with `question_id`, `category`.

    A subtask's folder holds, together or in `questions_answers_YN` and `images`, text files of
    `question<tab>answer` and the images of the same names. Not every subtask must be there.
    """
    subtasks = [name for name in (*PERCEPTION, *COGNITION) if (path / name).is_dir()]
    if subtasks:
        return [question for name in subtasks for question in _read_subtask(path, name)]
    expected = ("**/test-*.parquet", "existence/*.txt")
    questions = []
    names: dict[str, str] = {}  # both questions about an image name the first one's cell
    for file in find(path, "mme", *expected):
        for number, row in enumerate(rows_with(file, _FIELDS, "mme", "question_id")):
            row.one_of("category", (*PERCEPTION, *COGNITION))
            own = row.id("question_id")
            name = names.setdefault(own, embedded(path, file, number, "image"))
            questions.append(_question(row, own.rsplit("/", 1)[-1], name))
    return questions


def _read_subtask(path: Path, subtask: str) -> list[Question]:
    folder = path / subtask
    apart = folder / "questions_answers_YN"
    files = find(apart if apart.is_dir() else folder, "mme", "*.txt")
    images = folder / "images" if apart.is_dir() else folder
    questions = []
    for file in files:
        named = (images / (file.stem + suffix) for suffix in _PICTURES)
        image = next((picture for picture in named if picture.is_file()), None)
        if image is None:
            raise UserError(f"mme: no image {file.stem} in {images}", file=str(file))
        for number, line in enumerate(lines_of(read_text(file)), start=1):
            if not line.strip():
                continue
            text, tab, label = line.strip().rpartition("\t")
            if not tab:
                message = "expected question<tab>answer"
                raise UserError(message, file=str(file), line=number)
            fields = {"question": text, "answer": label, "category": subtask}
            row = Row(fields, [], file, "mme", number)
            questions.append(_question(row, image.name, str(image.relative_to(path))))
    return questions


def _question(row: Row, image: str, name: str) -> Question:
    category, text = row.text("category"), row.text("question")
    label = row.text("answer").lower().strip().replace(".", "")
    Row({"answer": label}, [], row.path, row.task, row.number).among("answer", ("yes", "no"))
    return Question(
        item_id=_id(category, image, text),
        images=(name,),
        prompt=text.strip(),
        references=(label,),
        facts={"question": text, "category": category, "image": f"{category}/{image}"},
    )


def predictions(path: Path) -> dict[str, str]:
    """The folder of the official evaluation tool, or rows of `question_id`, `question`, `answer`.

    In the folder each `<subtask>.txt` has lines of `image<tab>question<tab>answer<tab>prediction`.
    In rows `question_id` is `<subtask>/<image>`; the question may be called `prompt`, the answer
    `text`, as LLaVA writes.
    """
    given: list[tuple[Row, str, str]] = []
    if path.is_file():
        for number, content in enumerate(read_rows(path), start=1):
            row = Row(content, [], path, "mme", number, "question_id")
            text = "question" if "question" in row else "prompt"
            stated = "category" in row  # as in the annotations: the answer is the right one
            said = "answer" if "answer" in row and not stated else "text"
            if not all(name in row for name in ("question_id", text, said)):
                raise row.error("expected question_id, question, answer")
            category, _, image = row.id("question_id").rpartition("/")
            item_id = _id(category, image, row.text(text).split("\n")[0])
            given.append((row, item_id, row.text(said)))
        return one_each(given)
    for file in find(path, "mme", "*.txt"):
        for number, line in enumerate(lines_of(read_text(file)), start=1):
            if not line.strip():
                continue
            cells = line.split("\t")
            if len(cells) != 4:
                message = "expected image<tab>question<tab>answer<tab>prediction"
                raise UserError(message, file=str(file), line=number)
            row = Row({}, [], file, "mme", number)
            given.append((row, _id(file.stem, cells[0], cells[1]), cells[3]))
    return one_each(given)


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """The official sums `perception` (at most 2000) and `cognition` (800), read as lmms-eval does.

    A subtask has 100 × accuracy + 100 × share of images both of whose answers are right; `score/…`
    has each. The first metric, `accuracy`, is over all questions: the one with a standard error.
    UserError if an image has not two questions.
    """
    read = [mme_reading(text) for text in given]
    items = [100.0 * (a == q.references[0]) for q, a in zip(questions, read, strict=True)]
    images: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for question, value in zip(questions, items, strict=True):
        images[question.facts["category"]][question.facts["image"]].append(value)
    by_subtask = {}
    for category, of_images in images.items():
        for image, values in of_images.items():
            if len(values) != 2:
                raise UserError(f"mme: {image} has {len(values)} questions, expected 2")
        both = [100.0 * (min(values) == 100) for values in of_images.values()]
        halves = [sum(values) / 2 for values in of_images.values()]
        by_subtask[category] = (sum(both) + sum(halves)) / len(of_images)
    metrics = group_means("accuracy", items, {})
    for name, subtasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
        metrics[name] = sum(by_subtask.get(subtask, 0.0) for subtask in subtasks)
    metrics |= {f"score/category:{name}": value for name, value in by_subtask.items()}
    return Score(items, metrics | {"unparsed": 100 * read.count(None) / len(read)})


TASK = OfficialTask("mme", read, predictions, str.strip, score)
