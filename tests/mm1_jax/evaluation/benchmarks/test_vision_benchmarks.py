from __future__ import annotations

import json

import pytest
from official_folders import FOLDERS, picture, write_json, write_lines, write_parquet

from ablations.errors import UserError
from mm1_jax.evaluation.benchmarks.mathvista import extracted
from mm1_jax.evaluation.benchmarks.vqav2 import _tell_few
from mm1_jax.evaluation.official.catalogue import official_task
from mm1_jax.evaluation.official.published_files import image_bytes, read_json
from mm1_jax.evaluation.official.task import Question

# What the result files of official_folders.py score, worked out by hand.
EXPECTED = {
    # "Yes." is not "yes" where all agree; "2" is "two"; five of "t shirt" are not "shirt", two are.
    "vqav2": {
        "accuracy": pytest.approx(160 / 3),
        "accuracy/answer_type:yes/no": 0,
        "accuracy/answer_type:number": 100,
        "accuracy/question_type:what is the": pytest.approx(60),
    },
    "ok_vqa": {
        "accuracy": pytest.approx(260 / 3),
        "accuracy_vqa_rule": pytest.approx(160 / 3),
    },
    "textvqa": {"accuracy": pytest.approx(80)},
    "vizwiz": {
        "accuracy": pytest.approx(80),
        "accuracy/answer_type:other": pytest.approx(60),
        "unanswerable": 100,
        "accuracy_of_unanswerable": pytest.approx(80),
    },
    "gqa": {
        "accuracy": 50,
        "accuracy/structural:verify": 100,
        "accuracy/structural:query": 0,
        "accuracy/semantic:rel": 0,
    },
    "scienceqa": {"accuracy": 50, "unparsed": 50, "accuracy/grade:grade2": 50},
    "mmmu": {
        "accuracy": 50,
        "unparsed": 50,
        "accuracy/subject:Basic_Medical_Science": 100,
        "accuracy/question_type:open": 100,
    },
    "mathvista": {
        "accuracy": pytest.approx(200 / 3),
        "unparsed": pytest.approx(100 / 3),
        "accuracy/question_type:multi_choice": 100,
    },
    # artwork: 100 + 100; color: 3 of 4 right, 1 of 2 images.
    "mme": {
        "accuracy": pytest.approx(500 / 6),
        "perception": 325,
        "cognition": 0,
        "score/category:color": 125,
        "unparsed": pytest.approx(100 / 6),
    },
    "pope": {
        "accuracy": 50,
        "precision": 50,
        "recall": 50,
        "f1": 50,
        "yes_ratio": 50,
        "accuracy/split:random": 50,
        "f1/split:popular": 0,
        "unparsed": 25,
        "strict_accuracy": 50,
        "strict_precision": 100,
    },
    "seed_bench": {
        "accuracy": 50,
        "unparsed": 0,
        "accuracy/question_type:Scene Understanding": 100,
    },
    "mmbench": {
        "accuracy": 50,
        "accuracy_single": pytest.approx(200 / 3),
        "accuracy/category:colour": 100,
        "accuracy/l2_category:attribute_reasoning": 50,
        "unparsed": 0,
    },
    "docvqa": {"anls": pytest.approx(87.5 / 2)},
    "chartqa": {
        "relaxed_accuracy": pytest.approx(200 / 3),
        "relaxed_accuracy/split:human": 100,
        "relaxed_accuracy/split:augmented": 50,
    },
    "ai2d": {"accuracy": 50, "unparsed": 0},
}
PROMPTS = {
    "vqav2": "Is there a dog?\nAnswer the question using a single word or phrase.",
    "textvqa": "What brand is it?\nAnswer the question using a single word or phrase.",
    "scienceqa": (
        "Context: Ice is cold.\nIs ice solid?\nA. solid\nB. liquid\nC. gas\n"
        "Answer with the option's letter from the given choices directly."
    ),
    "mathvista": (
        "How long is AB?\nA. 12 cm\nB. 15 cm\n"
        "Answer with the option's letter from the given choices directly."
    ),
    "mme": "Is it blue? Please answer yes or no.",
    "mmbench": (
        "What is left?\nA. None\nB. a dog\n"
        "Answer with the option's letter from the given choices directly."
    ),
}
IMAGES = {
    "vqav2": "COCO_val2014_000000000042.jpg",
    "textvqa": "000fd.jpg",
    "vizwiz": "VizWiz_val_00000000.jpg",
    "gqa": "n161313.jpg",
    "scienceqa": "test/4/image.png",
    "mme": "color/0001.png",
    "docvqa": "documents/pybv0228_81.png",
    "ai2d": "images/0.png",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_result_file_scores_what_it_scores_by_hand(name, tmp_path):
    results = FOLDERS[name](tmp_path)
    task = official_task(name)
    asked = task.read(tmp_path)
    given = task.predictions(results)
    assert set(given) == {question.item_id for question in asked}
    answers = [given[question.item_id] for question in asked]
    scored = task.score(asked, answers)
    assert {metric: scored.metrics[metric] for metric in EXPECTED[name]} == EXPECTED[name]
    assert len(scored.items) == len(asked)
    # What a model says first counts as the file's answer does.
    assert task.score(asked, [task.answer(text) for text in answers]).items == scored.items


@pytest.mark.parametrize("name", FOLDERS)
def test_right_answers_score_a_hundred(name, tmp_path):
    FOLDERS[name](tmp_path)
    task = official_task(name)
    asked = task.read(tmp_path)
    scored = task.score(asked, [question.references[0] for question in asked])
    people = {"vqav2", "ok_vqa", "textvqa", "vizwiz"}  # two of ten agree in part
    if name not in people:
        assert set(scored.items) == {100.0}
    assert next(iter(scored.metrics.values())) == pytest.approx(
        sum(scored.items) / len(scored.items)
    )


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_those_of_the_field(name, tmp_path):
    FOLDERS[name](tmp_path)
    asked = official_task(name).read(tmp_path)
    assert PROMPTS[name] in [question.prompt for question in asked]


@pytest.mark.parametrize("name", IMAGES)
def test_questions_name_their_images(name, tmp_path):
    FOLDERS[name](tmp_path)
    assert official_task(name).read(tmp_path)[0].images == (IMAGES[name],)


def test_images_in_the_cells_of_tables_are_found(tmp_path):
    for name in ("mmmu", "mmbench"):
        (tmp_path / name).mkdir()
        FOLDERS[name](tmp_path / name)
    first = official_task("mmmu").read(tmp_path / "mmmu")[0]
    found = [image_bytes(tmp_path / "mmmu", image) for image in first.images]
    assert found == [picture("red"), picture("green")]
    one, rotated, other = official_task("mmbench").read(tmp_path / "mmbench")
    assert one.images == rotated.images != other.images  # a rotated question may name an index
    assert image_bytes(tmp_path / "mmbench", one.images[0]) == picture("red")
    with pytest.raises(UserError, match="no image nowhere"):
        image_bytes(tmp_path, "nowhere.jpg")


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("", "row 1: image is empty"),
        ("17 is the index of another", "row 1: image is '17 is the index of another', no image"),
        ("12345", "row 1: image is '12345', no image"),
    ],
)
def test_a_cell_of_text_that_holds_no_image_is_told(cell, told, tmp_path):
    (tmp_path / "a.tsv").write_text(f"index\timage\n1\t{cell}\n", encoding="utf-8")
    with pytest.raises(UserError, match=told):
        image_bytes(tmp_path, "a.tsv#0.image")
    with pytest.raises(UserError, match="row 1: photo is empty"):
        image_bytes(tmp_path, "a.tsv#0.photo")


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("a.jpg", "row 1: image is 'a.jpg', no image"),
        (3, "row 1: image is 3, no image"),
        (None, "row 1: image is empty"),
        ({"path": "a.jpg"}, "row 1: image is empty"),
        ({"bytes": "a", "path": "a.jpg"}, "row 1: image is 'a', no image"),
    ],
)
def test_a_cell_of_a_table_that_holds_no_image_is_told(cell, told, tmp_path):
    write_parquet(tmp_path / "a.parquet", [{"index": 1, "image": cell}])
    with pytest.raises(UserError, match=told):
        image_bytes(tmp_path, "a.parquet#0.image")
    with pytest.raises(UserError, match="has no column image_1, which images are due in"):
        image_bytes(tmp_path, "a.parquet#0.image_1")


@pytest.mark.parametrize("name", FOLDERS)
def test_another_folder_is_refused_with_what_was_expected_and_found(name, tmp_path):
    (tmp_path / "holiday.txt").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=rf"{name}: expected .* found holiday\.txt"):
        official_task(name).read(tmp_path)


@pytest.mark.parametrize("name", sorted(set(FOLDERS) - {"mme"}))
def test_another_file_is_refused_with_the_fields_it_lacks(name, tmp_path):
    suffix = {"mmmu": "jsonl", "mmbench": "jsonl", "ai2d": "json"}.get(name, "json")
    other = write_lines(tmp_path / f"other.{suffix}", [{"colour": "red"}])
    with pytest.raises(UserError, match="expected") as told:
        official_task(name).read(other)
    assert "colour" in str(told.value) or "found a str" in str(told.value)


@pytest.mark.parametrize(
    ("name", "file", "answer", "hidden"),
    [
        ("mmbench", "mmbench_dev_en.tsv", "\tA\tcounting", "\t\tcounting"),
        ("mathvista", "testmini.json", '"answer": "4"', '"answer": ""'),
        ("seed_bench", "SEED-Bench.json", '"answer": "D"', '"answer": "?"'),
        ("pope", "coco_pope_random.json", '"label": "no"', '"label": ""'),
        ("docvqa", "val_v1.0.json", '"answers": ["Apple"]', '"answers": []'),
    ],
)
def test_a_split_without_answers_is_refused(name, file, answer, hidden, tmp_path):
    FOLDERS[name](tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert answer in text
    (tmp_path / file).write_text(text.replace(answer, hidden), encoding="utf-8")
    with pytest.raises(UserError, match=r"a split without (answers|them)\?"):
        official_task(name).read(tmp_path)


def test_the_hidden_answers_of_mmmu_are_refused(tmp_path):
    row = {"id": "test_Art_1", "question": "?", "options": "['a', 'b']", "answer": "?"}
    file = write_lines(tmp_path / "t.jsonl", [{**row, "question_type": "multiple-choice"}])
    with pytest.raises(UserError, match="row 1: answer is '\\?', not one of A, B; a split without"):
        official_task("mmmu").read(file)


def test_a_vqa_folder_without_its_questions_is_refused_but_the_file_can_be_scored(tmp_path):
    FOLDERS["vqav2"](tmp_path)
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").unlink()
    with pytest.raises(UserError, match="expected v2_OpenEnded_mscoco_val2014_questions"):
        official_task("vqav2").read(tmp_path)
    asked = official_task("vqav2").read(tmp_path / "v2_mscoco_val2014_annotations.json")
    assert [question.prompt for question in asked] == ["", "", ""]


def test_a_rule_by_which_few_answers_cannot_score_100_is_told(tmp_path, caplog):
    _tell_few.cache_clear()
    FOLDERS["textvqa"](tmp_path)
    file = tmp_path / "TextVQA_0.5.1_val.json"
    task, content = official_task("textvqa"), read_json(file)
    task.score(task.read(tmp_path), ["Coca-Cola", "99"])
    assert not caplog.records
    rows = [{**row, "answers": row["answers"][-1:]} for row in content["data"]]
    write_json(file, {**content, "data": rows})
    found = task.score(task.read(tmp_path), ["Coca-Cola", "99"])
    assert found.metrics["accuracy"] == 0
    assert "2 of 2 questions have fewer than 4 answers" in caplog.text


def test_an_image_of_mme_with_one_question_is_refused(tmp_path):
    FOLDERS["mme"](tmp_path)
    asked = official_task("mme").read(tmp_path)
    with pytest.raises(UserError, match=r"artwork/10002\.jpg has 1 questions, expected 2"):
        official_task("mme").score(asked[:-1], ["yes"] * (len(asked) - 1))


def test_mme_reads_the_table_form_and_rows_of_results(tmp_path):
    rows = [
        {
            "question_id": "color/0001.png",
            "image": picture("blue"),
            "question": f"Is it {colour}? Please answer yes or no.",
            "answer": answer,
            "category": "color",
        }
        for colour, answer in (("blue", "Yes"), ("red", "No"))
    ]
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    said = [
        {
            "question_id": row["question_id"],
            "prompt": row["question"] + "\nOne word.",
            "text": "Yes",
        }
        for row in rows
    ]
    task = official_task("mme")
    asked = task.read(tmp_path)
    given = task.predictions(write_lines(tmp_path / "said.jsonl", said))
    metrics = task.score(asked, [given[question.item_id] for question in asked]).metrics
    assert metrics["perception"] == 50
    assert asked[0].images == asked[1].images


def test_scienceqa_and_ai2d_read_the_table_form(tmp_path):
    science = {"question": "Which?", "choices": ["ice", "tea"], "answer": 1, "hint": ""}
    rows = [{**science, "image": picture("red")}, {**science, "image": None}]
    asked = official_task("scienceqa").read(write_parquet(tmp_path / "s.parquet", rows))
    assert [(question.item_id, question.references) for question in asked] == [("0", ("B",))]
    assert image_bytes(tmp_path, asked[0].images[0]) == picture("red")
    row = {"question": "Which?", "options": ["ice", "tea"], "answer": "1", "image": picture("red")}
    asked = official_task("ai2d").read(write_parquet(tmp_path / "a.parquet", [row]))
    assert asked[0].references == ("B",)


@pytest.mark.parametrize(("name", "others"), [("seed_bench", {"101671"}), ("scienceqa", {"6"})])
def test_what_is_not_of_the_task_may_be_answered(name, others, tmp_path):
    FOLDERS[name](tmp_path)
    task = official_task(name)
    assert task.left_out(tmp_path) == others
    assert not others & {question.item_id for question in task.read(tmp_path)}


@pytest.mark.parametrize(("name", "ids"), [("scienceqa", ["7"]), ("ai2d", ["7.png-0", "7.png-1"])])
def test_demonstrations_come_from_the_training_split_of_the_same_files(name, ids, tmp_path):
    FOLDERS[name](tmp_path)
    read_training = official_task(name).read_training
    assert read_training is not None
    assert [question.item_id for question in read_training(tmp_path)] == ids


@pytest.mark.parametrize(
    ("name", "asked", "training"),
    [
        ("textvqa", "TextVQA_0.5.1_val.json", "TextVQA_0.5.1_train.json"),
        ("vizwiz", "val.json", "train.json"),
        ("docvqa", "val_v1.0.json", "train_v1.0_withQT.json"),
        ("gqa", "testdev_balanced_questions.json", "train_balanced_questions.json"),
    ],
)
def test_a_folder_of_the_training_split_is_read_as_such(name, asked, training, tmp_path):
    FOLDERS[name](tmp_path)
    before = official_task(name).read(tmp_path)
    (tmp_path / asked).rename(tmp_path / training)
    assert official_task(name).read(tmp_path) == before


def test_mathvista_reads_the_table_form_with_its_images(tmp_path):
    FOLDERS["mathvista"](tmp_path)
    task = official_task("mathvista")
    problems = json.loads((tmp_path / "testmini.json").read_text(encoding="utf-8"))
    rows = [{"pid": pid, "decoded_image": picture("red"), **row} for pid, row in problems.items()]
    file = write_parquet(tmp_path / "data" / "testmini-00000-of-00001.parquet", rows)
    from_table = task.read(file)
    assert [q.prompt for q in from_table] == [q.prompt for q in task.read(tmp_path)]
    assert [q.choices for q in from_table] == [q.choices for q in task.read(tmp_path)]
    assert image_bytes(file.parent, from_table[0].images[0]) == picture("red")


def test_mathvista_takes_the_extraction_of_a_result_file(tmp_path):
    FOLDERS["mathvista"](tmp_path)
    said = {"1": {"response": "long", "extraction": "15 cm"}, "2": {"response": "4"}}
    task = official_task("mathvista")
    given = task.predictions(write_json(tmp_path / "official.json", said))
    assert given == {"1": "15 cm", "2": "4"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[{"question_id": 1}]', "expected question_id, and answer or text; row 1 has question_id"),
        ('[{"question_id": 1, "answer": "a"}, {"question_id": 1, "answer": "b"}]', "row 2: a sec"),
        ("[1]", "expected an object per row, row 1 is '1'"),
        ("[", "not JSON"),
    ],
)
def test_a_file_that_holds_no_results_is_refused(content, told, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        official_task("vqav2").predictions(file)


def test_results_may_be_one_object_or_rows_in_any_form(tmp_path):
    predictions = official_task("vqav2").predictions
    assert predictions(write_json(tmp_path / "a.json", {"1": "x"})) == {"1": "x"}
    row = {"question_id": "1", "answer": "x"}
    assert predictions(write_json(tmp_path / "b.json", [row])) == {"1": "x"}
    assert predictions(write_lines(tmp_path / "c.json", [row])) == {"1": "x"}
    assert predictions(write_lines(tmp_path / "d.jsonl", [row])) == {"1": "x"}
    assert predictions(write_parquet(tmp_path / "e.parquet", [row])) == {"1": "x"}
    (tmp_path / "f.tsv").write_text("question_id\tanswer\n1\tNA\n", encoding="utf-8")
    assert predictions(tmp_path / "f.tsv") == {"1": "NA"}
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8")) == row


@pytest.mark.parametrize(
    ("text", "answer_type", "found"),
    [
        ('So 3. The answer is "17".', "integer", "17"),
        ("2 + 2 = 4", "integer", "4"),
        ("about 1,234.5 m", "float", "1234.5"),
        ("it falls by -0.5", "float", "-0.5"),
        ("none", "float", "none"),
        ("first [1, 2], then [2, 1]", "list", "[2, 1]"),
    ],
)
def test_mathvista_answers_are_extracted_by_rules(text, answer_type, found):
    asked = Question("1", (), "", ("",), facts={"answer_type": answer_type})
    assert extracted(text, asked) == found


def test_mathvista_takes_a_letter_or_an_option_as_it_is():
    asked = Question("1", (), "", ("",), choices=("A 12", "15"), facts={"answer_type": "text"})
    assert extracted("The answer is B", asked) == "(B)"
    assert extracted("A 12", asked) == "A 12"
    assert extracted("fifteen", asked) == "fifteen"
