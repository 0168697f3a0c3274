"""Options that are not there: the others keep their letters in prompt, gold and answer."""

from __future__ import annotations

import pytest
from official_folders import write_json, write_lines, write_parquet

from ablations.errors import UserError
from mm1_jax.evaluation.metrics.likelihood import chosen
from mm1_jax.evaluation.official.catalogue import official_task

OPTIONS = ["", "a dog", " ", "a cow"]  # B and D
TASKS = ["ai2d", "mmbench", "mmmu", "scienceqa", "seed_bench"]


def written(name: str, folder, options: list[str], right: int):
    """One question in a task's own form."""
    letter = "ABCD"[right]
    if name == "mmbench":
        cells = ["1", "What?", *options, letter, "c"]
        lines = ["index\tquestion\tA\tB\tC\tD\tanswer\tcategory", "\t".join(cells)]
        (folder / "a.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder / "a.tsv"
    if name == "seed_bench":
        row = {f"choice_{x}": text for x, text in zip("abcd", options, strict=True)}
        row |= {"question_id": 1, "data_id": "1", "question": "What?", "answer": letter}
        row |= {"question_type_id": 1, "data_type": "image"}
        return write_json(folder / "a.json", {"questions": [row], "question_type": {"k": 1}})
    if name == "scienceqa":
        row = {"question": "What?", "choices": options, "answer": right, "hint": ""}
        return write_parquet(folder / "a.parquet", [{**row, "image": b"x"}])
    if name == "ai2d":
        row = {"question": "What?", "options": options, "answer": right, "image": b"x"}
        return write_parquet(folder / "a.parquet", [row])
    row = {"id": "t_1", "question": "What?", "options": repr(options), "answer": letter}
    return write_lines(folder / "a.jsonl", [{**row, "question_type": "multiple-choice"}])


@pytest.mark.parametrize("name", TASKS)
def test_the_others_keep_their_letters(name, tmp_path):
    task = official_task(name)
    (asked,) = task.read(written(name, tmp_path, OPTIONS, 3))
    lines = asked.prompt.splitlines()
    assert lines[lines.index("What?") + 1 :][:2] == ["B. a dog", "D. a cow"]
    assert asked.references == ("D",)
    assert task.score([asked], ["D"]).items == [100]
    assert task.score([asked], ["B"]).items == [0]
    (first_two,) = task.read(written(name, tmp_path, ["a dog", "a cow", "", ""], 1))
    assert "A. a dog\nB. a cow\n" in first_two.prompt
    assert "C." not in first_two.prompt


@pytest.mark.parametrize("name", TASKS)
def test_a_right_option_that_is_empty_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"row 1: answer is (A|0), an option that is empty"):
        official_task(name).read(written(name, tmp_path, OPTIONS, 0))


def test_an_answer_in_the_words_of_an_option_is_its_letter(tmp_path):
    task = official_task("mmbench")
    (asked,) = task.read(written("mmbench", tmp_path, ["red", "", "apple", "grass"], 2))
    assert task.score([asked], ["apple"]).items == [100]
    assert task.score([asked], ["grass"]).items == [0]


def test_a_place_beyond_the_options_is_refused(tmp_path):
    row = {"question": "What?", "options": ["a", "b"], "answer": 2, "image": b"x"}
    with pytest.raises(UserError, match="row 1: answer is 2, but there are 2 options, from 0"):
        official_task("ai2d").read(write_parquet(tmp_path / "a.parquet", [row]))


def test_an_empty_choice_is_not_the_likeliest(tmp_path):
    assert chosen([(-1.0, True), (-2.0, False), (-3.0, False)], ["", "a", "b"]) == (1, 1, 1)
    row = {"goal": "g", "sol1": "", "sol2": "b", "label": 0}
    with pytest.raises(UserError, match="row 1: the right choice, 1 of 2, is empty"):
        official_task("piqa").read(write_lines(tmp_path / "a.jsonl", [row]))


def test_an_empty_cell_of_mmbench_in_parquet_is_the_text_nan(tmp_path):
    row = {"index": 1, "question": "What?", "hint": "nan", "answer": "B", "category": "c"}
    row |= {"A": "nan", "B": "a dog", "C": "a cow", "D": "nan", "image": b"x"}
    (asked,) = official_task("mmbench").read(write_parquet(tmp_path / "a.parquet", [row]))
    assert asked.prompt.startswith("What?\nB. a dog\nC. a cow\nAnswer")
