"""Whatever stands where a text is due: a text, or one line with file, row and id."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from official_folders import FOLDERS, TEXT_FOLDERS, write_json, write_lines, write_parquet

from ablations.errors import UserError
from mm1_jax.evaluation.official.catalogue import official_task
from mm1_jax.evaluation.official.few_shot_prompts import questions_of
from mm1_jax.evaluation.official.published_files import read_json, read_rows
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import questions_in
from mm1_jax.evaluation.official.task_folder import OfficialFolder

NO_TEXTS = [None, True, float("nan"), float("inf"), 2.0, ["x"], {"a": 1}, "a\ud800b"]


def row(value: Any) -> Row:
    return Row({"question_id": 7, "answer": value}, [], Path("a.json"), "t", 3, "question_id")


@pytest.mark.parametrize(
    ("value", "found"), [("2", "2"), ("", ""), ("é", "é"), (2, "2"), (-1, "-1"), (2.5, "2.5")]
)
def test_a_text_or_a_number_is_a_text(value, found):
    assert row(value).text("answer") == found


@pytest.mark.parametrize("value", NO_TEXTS)
def test_everything_else_is_told_with_file_row_and_id(value):
    with pytest.raises(UserError) as told:
        row(value).text("answer")
    assert str(told.value).startswith("a.json: row 3: answer ")
    assert str(told.value).endswith("(question_id 7)")
    str(told.value).encode()


@pytest.mark.parametrize("value", [1.0, True, None, "", ["x"], "\ud800"])
def test_an_id_is_a_text_or_a_whole_number(value):
    with pytest.raises(UserError, match="row 3: answer "):
        row(value).id("answer")


@pytest.mark.parametrize("value", [True, 1.0, -1, "1.0", " 1", "1_0", "٣", None, "9" * 5000])
def test_a_whole_number_is_one(value):
    with pytest.raises(UserError, match=r"not a whole number|is null"):
        row(value).whole("answer")
    assert row("12").whole("answer") == row(12).whole("answer") == 12


@pytest.mark.parametrize("value", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "", "a\0b"])
def test_an_image_lies_below_its_folder(value):
    with pytest.raises(UserError, match="below the images' folder"):
        row(value).image("answer")
    assert row("a/b#1.jpg").image("answer") == "a/b#1.jpg"


def fields(content: Any, before: tuple = ()) -> Iterator[tuple]:
    """Paths of what a JSON value holds; of lists what the first element does."""
    inner = content.items() if isinstance(content, dict) else enumerate(content[:1])
    for key, value in inner:
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from fields(value, (*before, key))


def changed(content: Any, path: tuple, value: Any) -> Any:
    content = inner = copy.deepcopy(content)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


@pytest.mark.parametrize("name", [*FOLDERS, *TEXT_FOLDERS])
def test_no_field_of_any_official_file_ends_in_a_traceback(name, tmp_path):
    task = official_task(name)
    made = ({**TEXT_FOLDERS, **FOLDERS})[name](tmp_path)
    results = made if isinstance(made, Path) and made.is_file() else None
    told = []
    task_files = [f for f in tmp_path.rglob("*") if f.suffix in (".json", ".jsonl", ".parquet")]
    for file in task_files:
        before = file.read_bytes()
        whole = file.suffix == ".json" and before.lstrip()[:1] in (b"{", b"[")
        try:
            content = read_json(file) if whole else read_rows(file)
        except UserError:
            content, whole = read_rows(file), False
        for path in fields(content):
            for value in NO_TEXTS:
                now = changed(content, path, value)
                try:
                    if file.suffix == ".parquet":
                        write_parquet(file, now)
                    else:
                        (write_json if whole else write_lines)(file, now)
                # No table holds that, or no JSON lines.
                except (AttributeError, TypeError, ValueError, OverflowError):
                    continue
                try:
                    asked = questions_in(task, tmp_path)
                    given = task.predictions(results) if results else {}
                    both = [question for question in asked if question.item_id in given]
                    if len(both) == len(asked):
                        task.score(asked, [given[question.item_id] for question in asked])
                except UserError as error:
                    told.append(str(error))
        file.write_bytes(before)
    assert not [message for message in told if "\n" in message or len(message) > 400]


PREDICTED = {"question_id": 1, "answer": "yes"}


@pytest.mark.parametrize("value", NO_TEXTS)
def test_a_prediction_that_is_no_text_is_told_in_every_form_of_file(value, tmp_path):
    predictions = official_task("vqav2").predictions
    rows = [PREDICTED, {"question_id": 2, "answer": value}]
    for file in (
        write_json(tmp_path / "a.json", rows),
        write_lines(tmp_path / "a.jsonl", rows),
        write_json(tmp_path / "object.json", {"1": "yes", "2": value}),
    ):
        with pytest.raises(UserError, match=rf"{file.name}: row 2: answer .*\(.*2\)"):
            predictions(file)


def twice(folder: Path, form: str) -> Path:
    rows = [PREDICTED, {"question_id": 1, "answer": "no"}]
    file = folder / f"twice.{form}"
    if form == "object.json":
        file.write_text('{"1": "yes", "1": "no"}', encoding="utf-8")
    elif form in ("tsv", "csv"):
        cells = [["question_id", "answer"], ["1", "yes"], ["1", "no"]]
        text = "\n".join({"tsv": "\t", "csv": ","}[form].join(row) for row in cells)
        file.write_text(text, encoding="utf-8")
    else:
        writer = {"json": write_json, "jsonl": write_lines, "parquet": write_parquet}[form]
        writer(file, rows)
    return file


@pytest.mark.parametrize("form", ["json", "object.json", "jsonl", "tsv", "csv", "parquet"])
def test_an_id_twice_is_an_error_in_every_form_of_file(form, tmp_path):
    with pytest.raises(UserError, match=r"twice|row 2: a second answer to 1"):
        official_task("vqav2").predictions(twice(tmp_path, form))


def test_one_and_its_text_are_the_same_id(tmp_path):
    rows = [PREDICTED, {"question_id": "1", "answer": "no"}]
    with pytest.raises(UserError, match="row 2: a second answer to 1"):
        official_task("vqav2").predictions(write_json(tmp_path / "a.json", rows))


@pytest.mark.parametrize(
    ("name", "rows", "told"),
    [
        ("lambada", [{"doc_id": 0, "filtered_resps": [[-1, True]]}] * 2, "second answer to 0"),
        ("lambada", [{"doc_id": 0, "filtered_resps": [["nan", "True"]]}], "a log-likelihood"),
        ("lambada", [{"doc_id": 0, "filtered_resps": [[-1, "yes"]]}], "a log-likelihood"),
        ("triviaqa", [{"doc_id": 0, "filtered_resps": ["a"]}] * 2, "second answer to 0"),
        ("mme", [{"question_id": "color/1", "question": "?", "answer": "a"}] * 2, "second answer"),
    ],
)
def test_rows_of_other_forms_are_held_to_the_same(name, rows, told, tmp_path):
    with pytest.raises(UserError, match=told):
        official_task(name).predictions(write_lines(tmp_path / "a.jsonl", rows))


def test_a_question_that_the_annotations_have_twice_is_told(tmp_path):
    FOLDERS["textvqa"](tmp_path)
    file = tmp_path / "TextVQA_0.5.1_val.json"
    content = read_json(file)
    write_json(file, {**content, "data": content["data"] * 2})
    with pytest.raises(UserError, match="textvqa: 34602 is there twice, as questions 1 and 3"):
        questions_in(official_task("textvqa"), file)


def test_vqa_annotations_are_known_by_their_content(tmp_path):
    FOLDERS["vqav2"](tmp_path)
    read = official_task("vqav2").read
    before = read(tmp_path)
    (tmp_path / "results.json").unlink()
    (tmp_path / "v2_mscoco_val2014_annotations.json").rename(tmp_path / "mine.json")
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").rename(tmp_path / "asked.json")
    assert read(tmp_path) == before
    assert [q.references for q in read(tmp_path / "mine.json")] == [q.references for q in before]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "[" * 10_000 + "]" * 10_000, "nested too deeply"),
        ("a.jsonl", '{"a": ' * 10_000 + "1" + "}" * 10_000, "nested too deeply"),
        ("a.json", '[{"question_id": ' + "9" * 5_000 + ', "answer": "x"}]', "Exceeds the limit"),
        ("a.json", '[{"question_id": 1, "answer": "x", "answer": "y"}]', "'answer' is there twice"),
        ("a.tsv", "question_id\tanswer\tanswer\n1\tx\ty\n", "column 'answer' is there twice"),
        ("a.csv", "question_id,answer\n1,x,y\n", "row 1: expected 2 cells .* found 3"),
        ("a.csv", 'question_id,answer\n1,"x\n2,y\n', "not a table"),
    ],
)
def test_a_broken_file_is_one_line(name, text, told, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=told) as error:
        official_task("vqav2").predictions(tmp_path / name)
    assert name in str(error.value)
    assert len(str(error.value)) < 300


def test_line_ends_inside_a_cell_and_marks_that_end_lines_elsewhere_stay(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'question_id,answer\r\n1,"a\r\nb"\r\n')
    assert official_task("vqav2").predictions(tmp_path / "a.csv") == {"1": "a\r\nb"}
    text = json.dumps({**PREDICTED, "answer": "a\u2028b\x85c"}, ensure_ascii=False) + "\n"
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    assert official_task("vqav2").predictions(tmp_path / "a.jsonl") == {"1": "a\u2028b\x85c"}


def test_annotations_without_their_questions_are_not_asked(tmp_path):
    FOLDERS["vqav2"](tmp_path)
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").unlink()
    file = tmp_path / "v2_mscoco_val2014_annotations.json"
    folder = OfficialFolder(annotations=file, train=None, images=(tmp_path,))
    with pytest.raises(UserError, match="vqav2: 420 has no question"):
        questions_of("mm1_jax.evaluation.benchmarks.vqav2", folder)


def test_what_macos_leaves_beside_files_is_not_read(tmp_path):
    FOLDERS["textvqa"](tmp_path)
    (tmp_path / "._TextVQA_0.5.1_val.json").write_bytes(b"\x00\x05\x16\x07")
    assert len(official_task("textvqa").read(tmp_path)) == 2


def test_files_that_are_read_beside_the_named_one_are_part_of_what_is_asked(tmp_path):
    FOLDERS["vqav2"](tmp_path)
    FOLDERS["scienceqa"](tmp_path)
    asked = "v2_OpenEnded_mscoco_val2014_questions.json"
    for name, beside in (
        ("v2_mscoco_val2014_annotations.json", asked),
        ("problems.json", "pid_splits.json"),
    ):
        folder = OfficialFolder(annotations=tmp_path / name, train=None, images=(tmp_path,))
        before = folder.content
        text = (tmp_path / beside).read_text(encoding="utf-8")
        (tmp_path / beside).write_text(text + "\n", encoding="utf-8")
        assert folder.content != before


def test_a_field_that_is_not_there_is_told():
    for read in (Row.text, Row.id, Row.whole, Row.items, Row.part, Row.image):
        with pytest.raises(UserError, match="row 3: no other; found answer, question_id"):
            read(row("2"), "other")


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("seed_bench", ("questions", 0, "data_type"), "Image", "not one of image, video"),
        ("seed_bench", ("questions", 0, "question_type_id"), 7, "which question_type does not"),
        ("seed_bench", ("question_type", "Scene Understanding"), 5, "are both 5"),
        ("mathvista", ("1", "question_type"), "multiple", "not one of multi_choice, free_form"),
        ("mathvista", ("2", "answer_type"), "int", "not one of text, integer, float, list"),
        ("mathvista", ("2", "metadata"), "", "metadata is '', not an object"),
    ],
)
def test_a_kind_that_a_task_does_not_know_is_told(name, path, value, told, tmp_path):
    FOLDERS[name](tmp_path)
    (file,) = (f for f in tmp_path.glob("*.json") if not f.name.startswith("results"))
    write_json(file, changed(read_json(file), path, value))
    with pytest.raises(UserError, match=told):
        questions_in(official_task(name), tmp_path)


@pytest.mark.parametrize("kind", ["multi-choice", "Multiple-choice", "", 7])
def test_mmmu_knows_two_kinds_of_questions(kind, tmp_path):
    FOLDERS["mmmu"](tmp_path)
    file = next(tmp_path.rglob("*.parquet"))
    write_parquet(file, [{**one, "question_type": kind} for one in read_rows(file)])
    with pytest.raises(UserError, match=r"question_type is .+, not one of multiple-choice, open"):
        questions_in(official_task("mmmu"), tmp_path)


def test_an_option_of_winogrande_is_not_empty(tmp_path):
    TEXT_FOLDERS["winogrande"](tmp_path)
    file = next(tmp_path.rglob("*.parquet"))
    write_parquet(file, [{**one, "option1": " "} for one in read_rows(file)])
    with pytest.raises(UserError, match="row 1: an option is empty"):
        questions_in(official_task("winogrande"), tmp_path)


def test_a_column_of_options_that_is_left_out_is_told(tmp_path):
    FOLDERS["mmbench"](tmp_path)
    (file,) = tmp_path.glob("*.tsv")
    text = file.read_text(encoding="utf-8").replace("\tC\tD\t", "\tthird\tD\t", 1)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="columns A, B, D, but none called C"):
        questions_in(official_task("mmbench"), tmp_path)


@pytest.mark.parametrize("name", ["mmbench", "mmmu", "pope"])
def test_right_answers_of_the_annotations_are_no_predictions(name, tmp_path):
    FOLDERS[name](tmp_path)
    patterns = ("*dev*.tsv", "*/validation-*.parquet", "coco_pope_*.json")
    file = next(file for pattern in patterns for file in tmp_path.glob(pattern))
    with pytest.raises(UserError, match="is the annotations' own, no prediction"):
        official_task(name).predictions(file)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mme", {"question_id": "color/1", "question": "?", "answer": "Yes", "category": "color"}),
        ("mathvista", {"pid": "1", "choices": None, "answer": "4"}),
        ("seed_bench", {"question_id": "1", "choice_a": "x", "answer": "A"}),
    ],
)
def test_rows_of_annotations_are_no_predictions(name, given, tmp_path):
    file = write_lines(tmp_path / "a.jsonl", [given])
    with pytest.raises(UserError, match="row 1: "):
        official_task(name).predictions(file)
    said = {"mme": "text", "mathvista": "response", "seed_bench": "prediction"}[name]
    file = write_lines(tmp_path / "a.jsonl", [{**given, said: "no"}])
    assert list(official_task(name).predictions(file).values()) == ["no"]
