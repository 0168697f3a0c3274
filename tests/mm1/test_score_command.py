"""`mm1 score` from the shell, on files of our own in the official forms."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

REFERENCES = {
    1: ["A man riding a wave on top of a surfboard.", "A surfer rides a large wave."],
    2: ["A plate of food with broccoli and rice.", "Broccoli and rice on a white plate."],
    3: ["Two dogs play in the snow.", "Two dogs run through deep snow."],
}
PREDICTED = {
    1: "a man riding a wave on a surfboard",
    2: "a plate of broccoli",
    3: "two dogs play in the snow",
}


@pytest.fixture
def score(mm1, tmp_path):
    """`mm1 score --task coco_caption` of these predictions."""
    annotations = {
        "images": [{"id": image, "file_name": f"{image}.jpg"} for image in REFERENCES],
        "annotations": [
            {"image_id": image, "caption": text, "id": 10 * image + number}
            for image, captions in REFERENCES.items()
            for number, text in enumerate(captions)
        ],
    }
    (tmp_path / "captions_val.json").write_text(json.dumps(annotations), encoding="utf-8")

    def call(predicted, *more: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "results.json").write_text(json.dumps(predicted), encoding="utf-8")
        return mm1(
            *("score", "--task", "coco_caption", "--annotations", "captions_val.json"),
            *("--predictions", "results.json", *more),
        )

    return call


def rows(predicted: dict[int, str]) -> list[dict[str, object]]:
    return [{"image_id": image, "caption": text} for image, text in predicted.items()]


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2, result
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_json_has_the_official_scores_and_their_standard_errors(score):
    result = score(rows(PREDICTED), "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["cider"] == pytest.approx(3.834776, abs=5e-7)
    assert found["bleu_4"] == pytest.approx(0.76749941, abs=5e-9)
    assert found["rouge_l"] == pytest.approx(0.83343152, abs=5e-9)
    assert found["items"] == 3
    # of 3.620292, 2.009035, 5.875: document frequencies stay those of all images
    assert found["standard_errors"]["cider"] == pytest.approx(1.121149, abs=5e-6)
    assert set(found["standard_errors"]) == {"cider", "rouge_l"}  # BLEU is of the corpus
    assert "× 100" in found["variant"]


def test_annotations_without_file_names_score_the_same(score, mm1, tmp_path):
    before = score(rows(PREDICTED), "--json").stdout
    content = json.loads((tmp_path / "captions_val.json").read_text(encoding="utf-8"))
    content["images"] = [{"id": image["id"]} for image in content["images"]]
    (tmp_path / "captions_val.json").write_text(json.dumps(content), encoding="utf-8")
    files = ("--annotations", "captions_val.json", "--predictions", "results.json", "--json")
    assert mm1("score", "--task", "coco_caption", *files).stdout == before != ""


def test_text_has_a_line_per_metric(score):
    result = score(list(reversed(rows(PREDICTED))))
    assert "cider        3.835 ± 1.121" in result.stdout.splitlines()
    assert "bleu_4       0.767" in result.stdout.splitlines()


def test_predictions_that_do_not_match_are_counted_and_named(score):
    assert refused(score(rows({1: "a", 3: "b"}))) == (
        "mm1: results.json: 1 of 3 items are not predicted (2) in captions_val.json; "
        "--subset scores the others"
    )
    more = dict.fromkeys(range(3, 13), "x")
    assert refused(score(rows(more))) == (
        "mm1: results.json: 2 of 3 items are not predicted (1, 2); "
        "9 predictions are of no item (4, 5, 6, 7, 8, …) in captions_val.json"
    )
    assert len(refused(score([{"image_id": "9" * 5_000, "caption": "x"}]))) < 300
    twice = [*rows(PREDICTED), *rows({2: "again"})]
    assert "row 4: a second answer to 2" in refused(score(twice))


def test_a_subset_is_scored_as_a_split_of_its_own(score):
    found = json.loads(score(rows({1: PREDICTED[1], 2: PREDICTED[2]}), "--subset", "--json").stdout)
    assert found["items"] == 2
    assert found["cider"] == pytest.approx(2.765356, abs=5e-6)
    assert "the result file is empty" in refused(score([], "--subset"))
    assert "1 predictions are of no item (9)" in refused(score(rows({9: "x"}), "--subset"))


def test_files_of_another_form_and_unknown_tasks_are_one_line(score, mm1, tmp_path):
    assert "expected image_id, and caption; row 1 has question_id" in refused(
        score([{"question_id": 1}])
    )
    null = score([{"image_id": 1, "caption": None}])
    assert "results.json: row 1: caption is null" in refused(null)
    assert "results.json: the result file is empty" in refused(score([]))
    files = ("--annotations", "captions_val.json", "--predictions", "results.json")
    assert "did you mean 'coco_caption'?" in refused(
        mm1("score", "--task", "coco_caption5", *files)
    )
    assert "did you mean 'coco_caption'?" in refused(mm1("score", "--task", "coco", *files))
    (tmp_path / "results.json").write_bytes(b"\xff\xfe[")
    line = refused(mm1("score", "--task", "coco_caption", *files))
    assert "results.json" in line
    assert "UTF-8" in line


def test_vqa_is_scored_by_answer_type_and_question_type(mm1, tmp_path):
    kinds = {1: ("yes/no", "is the"), 2: ("number", "how many"), 3: ("other", "what is")}
    agreed = {1: ["yes"] * 10, 2: ["2"] * 2 + ["3"] * 8, 3: ["red"] * 10}
    annotations = [
        {
            "question_id": number,
            "image_id": 9 if number < 3 else 10,
            "answer_type": kinds[number][0],
            "question_type": kinds[number][1],
            "multiple_choice_answer": agreed[number][-1],
            "answers": [{"answer": text, "answer_id": n} for n, text in enumerate(agreed[number])],
        }
        for number in kinds
    ]
    content = {"data_subtype": "val2014", "annotations": annotations}
    (tmp_path / "v2_mscoco_val2014_annotations.json").write_text(
        json.dumps(content), encoding="utf-8"
    )
    answers = [{"question_id": n, "answer": a} for n, a in {1: "yes", 2: "two", 3: "blue"}.items()]
    (tmp_path / "results.json").write_text(json.dumps(answers), encoding="utf-8")
    result = mm1(
        *("score", "--task", "vqav2", "--annotations", "v2_mscoco_val2014_annotations.json"),
        *("--predictions", "results.json", "--json"),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["accuracy"] == pytest.approx((100 + 60 + 0) / 3)
    assert found["by_answer_type"]["number"]["accuracy"] == pytest.approx(60.0)
    assert found["by_question_type"]["is the"]["accuracy"] == pytest.approx(100.0)
    # the image is what might have been another: questions 1 and 2 are of one
    assert found["standard_errors"]["accuracy"] == pytest.approx(320 / 9)


def test_scoring_imports_neither_jax_nor_other_heavy_packages(tmp_path):
    code = (
        "import sys; from mm1.cli import cli; from mm1_jax.evaluation.official.catalogue import *\n"
        "[official_task(name) for name in OFFICIAL]\n"
        "heavy = {'jax', 'flax', 'ray', 'mlflow', 'scipy', 'pyarrow', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
