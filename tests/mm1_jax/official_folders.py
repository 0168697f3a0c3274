"""Tiny folders in the official file formats of benchmarks, made by us, each with a result file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as arrow
from PIL import Image
from pyarrow import parquet


def picture(colour: str) -> bytes:
    """A PNG of one colour."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(content, "PNG")
    return content.getvalue()


def write_json(path: Path, content: Any) -> Path:
    """Write one JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Write one JSON value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows; bytes become an image column as on the Hugging Face hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {k: {"bytes": v, "path": None} if isinstance(v, bytes) else v for k, v in row.items()}
        for row in rows
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    return path


def _people(*answers: str) -> list[dict[str, Any]]:
    return [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number}
        for number, answer in enumerate(answers, start=1)
    ]


def _vqa(folder: Path, before: str) -> Path:
    questions = [
        {"image_id": 42, "question": "Is there a dog?", "question_id": 420},
        {"image_id": 42, "question": "How many dogs are there?", "question_id": 421},
        {"image_id": 73, "question": "What is the dog wearing?", "question_id": 730},
    ]
    answers = [_people(*["yes"] * 10), _people(*["2"] * 7, *["two dogs"] * 3)]
    answers.append(_people(*["t-shirt"] * 5, *["a shirt"] * 2, "hat", "red", "none"))
    types = [("is there a", "yes/no"), ("how many", "number"), ("what is the", "other")]
    annotations = [
        {
            "question_id": question["question_id"],
            "image_id": question["image_id"],
            "question_type": question_type,
            "answer_type": answer_type,
            "multiple_choice_answer": own[0]["answer"],
            "answers": own,
        }
        for question, own, (question_type, answer_type) in zip(
            questions, answers, types, strict=True
        )
    ]
    subtype = {"data_subtype": "val2014"}
    name = f"{before}OpenEnded_mscoco_val2014_questions.json"
    write_json(folder / name, {**subtype, "questions": questions})
    name = f"{before}mscoco_val2014_annotations.json"
    write_json(folder / name, {**subtype, "annotations": annotations})
    said = {420: "Yes.", 421: "Two", 730: "shirt"}
    rows = [{"question_id": item, "answer": text} for item, text in said.items()]
    return write_json(folder / "results.json", rows)


def vqav2(folder: Path) -> Path:
    """Three questions; the result file is right about the second and in part about the third."""
    return _vqa(folder, "v2_")


def ok_vqa(folder: Path) -> Path:
    """The same in OK-VQA's names."""
    return _vqa(folder, "")


def textvqa(folder: Path) -> Path:
    """Two questions about text."""
    rows = [
        {
            "question_id": 34602 + number,
            "question": question,
            "image_id": f"00{number}fd",
            "image_classes": ["Bottle"],
            "flickr_original_url": "",
            "image_width": 8,
            "image_height": 8,
            "answers": answers,
            "set_name": "val",
        }
        for number, (question, answers) in enumerate(
            [("what brand is it?", ["Coca-Cola"] * 10), ("what year?", ["1999"] * 2 + ["99"] * 8)]
        )
    ]
    write_json(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})
    said = [
        {"question_id": 34602, "answer": "coca-cola."},
        {"question_id": 34603, "answer": "1999"},
    ]
    return write_json(folder / "results.json", said)


def vizwiz(folder: Path) -> Path:
    """One question that can be answered and one that cannot."""
    rows = [
        {
            "image": f"VizWiz_val_0000000{number}.jpg",
            "question": "what is this?",
            "answers": [{"answer": text, "answer_confidence": "yes"} for text in answers],
            "answer_type": answer_type,
            "answerable": int(answer_type != "unanswerable"),
        }
        for number, (answers, answer_type) in enumerate(
            [
                (["soup"] * 8 + ["unanswerable"] * 2, "other"),
                (["unanswerable"] * 9 + ["box"], "unanswerable"),
            ]
        )
    ]
    write_json(folder / "val.json", rows)
    said = [{"image": row["image"], "answer": "Unanswerable"} for row in rows]
    return write_json(folder / "results.json", said)


def gqa(folder: Path) -> Path:
    """Two questions of different types."""
    write_json(
        folder / "testdev_balanced_questions.json",
        {
            "201307251": {
                "question": "Is it overcast?",
                "imageId": "n161313",
                "answer": "no",
                "fullAnswer": "No, it is clear.",
                "isBalanced": True,
                "types": {"structural": "verify", "semantic": "attr", "detailed": "weatherVerify"},
            },
            "201640614": {
                "question": "Who is wearing the dress?",
                "imageId": "n235859",
                "answer": "woman",
                "fullAnswer": "The woman is wearing a dress.",
                "isBalanced": True,
                "types": {"structural": "query", "semantic": "rel", "detailed": "relS"},
            },
        },
    )
    said = [
        {"questionId": "201307251", "prediction": "No."},
        {"questionId": "201640614", "prediction": "man"},
    ]
    return write_json(folder / "results.json", said)


def scienceqa(folder: Path) -> Path:
    """Two questions with an image, one without, and one of another split."""

    def problem(question: str, answer: int, image: str | None, hint: str = "") -> dict[str, Any]:
        choices = ["solid", "liquid", "gas"]
        facts = {"grade": "grade2", "subject": "natural science", "split": "test", "lecture": ""}
        own = {"question": question, "choices": choices, "answer": answer, "hint": hint}
        return {**own, "image": image, **facts}

    write_json(
        folder / "problems.json",
        {
            "4": problem("Is ice solid?", 0, "image.png", "Ice is cold."),
            "5": problem("Is steam a gas?", 2, "image.png"),
            "6": problem("Is oil liquid?", 1, None),
            "7": problem("Is air a gas?", 2, "image.png")
            | {"split": "train", "solution": "It fills\nits room."},
        },
    )
    write_json(folder / "pid_splits.json", {"train": ["7"], "test": ["4", "5", "6"]})
    return write_json(folder / "results.json", {"outputs": {"4": "A. solid", "5": "gas"}})


def mmmu(folder: Path) -> Path:
    """A multiple-choice question of one subject and an open one of another."""
    rows = [
        {
            "id": "validation_Accounting_1",
            "question": "<image 1> What is the cost?",
            "options": "['$6', '$7', 'as in <image 2>']",
            "explanation": "",
            "image_1": picture("red"),
            "image_2": picture("green"),
            "answer": "B",
            "question_type": "multiple-choice",
            "subfield": "Managerial Accounting",
        },
        {
            "id": "validation_Basic_Medical_Science_12",
            "question": "Which bone does <image 1> show?",
            "options": "[]",
            "explanation": "",
            "image_1": picture("blue"),
            "image_2": None,
            "answer": "['femur', 'thigh bone']",
            "question_type": "open",
            "subfield": "Anatomy",
        },
    ]
    for row in rows:
        subject = row["id"].removeprefix("validation_").rsplit("_", 1)[0]
        write_parquet(folder / subject / "validation-00000-of-00001.parquet", [row])
    said = {rows[0]["id"]: "I am not sure", rows[1]["id"]: "The answer is the thigh bone."}
    return write_json(folder / "results.json", said)


def mathvista(folder: Path) -> Path:
    """A question with choices, one for an integer, one for a number with two decimals."""

    def problem(question: str, answer: str, answer_type: str, **own: Any) -> dict[str, Any]:
        fields = {"question": question, "image": "images/1.jpg", "choices": None, "unit": None}
        fields |= {"precision": None, "answer": answer, "question_type": "free_form"}
        return fields | {"answer_type": answer_type, "metadata": {"task": "geometry"}} | own

    choices = {"choices": ["12 cm", "15 cm"], "question_type": "multi_choice"}
    write_json(
        folder / "testmini.json",
        {
            "1": problem("How long is AB?", "15 cm", "text", **choices),
            "2": problem("How many cubes?", "4", "integer"),
            "3": problem("How heavy is it?", "1.25", "float", precision=2.0, unit="kg"),
        },
    )
    said = {"1": "The answer is (B).", "2": "There are 4 of them", "3": "about a kilogram"}
    return write_json(folder / "results.json", said)


def mme(folder: Path) -> Path:
    """One image of a subtask with a folder for images, two of a subtask without."""
    asks = "Please answer yes or no."
    (folder / "artwork" / "images").mkdir(parents=True)
    (folder / "artwork" / "questions_answers_YN").mkdir()
    (folder / "color").mkdir()
    (folder / "artwork" / "images" / "10002.jpg").write_bytes(picture("red"))
    texts = folder / "artwork" / "questions_answers_YN" / "10002.txt"
    texts.write_text(
        f"Is it a painting? {asks}\tYes\nIs it of glass? {asks}\tNo\n", encoding="utf-8"
    )
    results = folder / "results"
    results.mkdir()
    said = [f"Is it a painting? {asks}\tYes\tYes, it is.", f"Is it of glass? {asks}\tNo\tno"]
    (results / "artwork.txt").write_text(
        "".join(f"10002.jpg\t{line}\n" for line in said), encoding="utf-8"
    )
    lines = []
    for name in ("0001", "0002"):
        (folder / "color" / f"{name}.png").write_bytes(picture("blue"))
        texts = folder / "color" / f"{name}.txt"
        texts.write_text(f"Is it blue? {asks}\tYes\nIs it green? {asks}\tNo\n", encoding="utf-8")
        lines.append(f"{name}.png\tIs it blue? {asks}\tYes\tYes\n")
        answer = "No" if name == "0001" else "I think so"
        lines.append(f"{name}.png\tIs it green? {asks}\tNo\t{answer}\n")
    (results / "color.txt").write_text("".join(lines), encoding="utf-8")
    return results


def pope(folder: Path) -> Path:
    """Two splits of two questions, as JSON lines."""
    for split, thing in (("popular", "chair"), ("random", "snowboard")):
        rows = [
            {
                "question_id": number,
                "image": "COCO_val2014_000000310196.jpg",
                "text": f"Is there a {own} in the image?",
                "label": label,
            }
            for number, (own, label) in enumerate([(thing, "yes"), ("dog", "no")], start=1)
        ]
        write_lines(folder / f"coco_pope_{split}.json", rows)
        said = ["yes", "Maybe"] if split == "random" else ["no", "no"]
        answers = [{"question_id": n, "answer": text} for n, text in enumerate(said, start=1)]
        write_lines(folder / "results" / f"{split}.jsonl", answers)
    return folder / "results"


def seed_bench(folder: Path) -> Path:
    """Two questions about images and one about a video."""
    rows = [
        {
            "answer": answer,
            "choice_a": "One",
            "choice_b": "Two",
            "choice_c": "Three",
            "choice_d": "Four",
            "data_id": f"image_{number}",
            "data_type": "image" if kind < 10 else "video",
            "question": "How many towels are there?",
            "question_id": str(101669 + number),
            "question_type_id": kind,
        }
        for number, (answer, kind) in enumerate([("A", 1), ("D", 5), ("B", 10)])
    ]
    kinds = {"Scene Understanding": 1, "Instances Counting": 5, "Action Recognition": 10}
    write_json(folder / "SEED-Bench.json", {"questions": rows, "question_type": kinds})
    said = [{"question_id": "101669", "prediction": "a. One"}]
    said += [{"question_id": "101670", "prediction": "The fourth"}]
    return write_lines(folder / "results.jsonl", said)


def mmbench(folder: Path) -> Path:
    """Two questions, the first in two rotations; an option is called None, others are empty."""
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category"]
    columns += ["image", "source", "l2-category", "comment", "split"]
    image = base64.b64encode(picture("red")).decode()
    tail = [image, "made up", "attribute_reasoning", "", "dev"]
    rows = [
        ["1", "What is left?", "", "None", "a dog", "", "", "A", "counting", *tail],
        ["1000001", "What is left?", "", "a dog", "None", "", "", "B", "counting", *tail],
        ["2", "Which is red?", "Look.", "sky", "rose", "sea", "", "B", "colour", *tail],
    ]
    text = "".join("\t".join(row) + "\n" for row in [columns, *rows])
    (folder / "mmbench_dev_en.tsv").write_text(text, encoding="utf-8")
    said = ["index\tprediction", "1\tA", "1000001\tA", "2\tIt is the rose."]
    results = folder / "results" / "said.tsv"
    results.parent.mkdir()
    results.write_text("\n".join(said) + "\n", encoding="utf-8")
    return results


def docvqa(folder: Path) -> Path:
    """Two questions about one page."""
    rows = [
        {
            "questionId": 49153 + number,
            "question": question,
            "image": "documents/pybv0228_81.png",
            "docId": 14465,
            "ucsf_document_id": "pybv0228",
            "ucsf_document_page_no": "81",
            "answers": answers,
            "data_split": "val",
        }
        for number, (question, answers) in enumerate(
            [("What is the weight?", ["1250 kg", "1250"]), ("Which firm?", ["Apple"])]
        )
    ]
    write_json(folder / "val_v1.0.json", {"dataset_name": "docvqa", "data": rows})
    said = [{"questionId": 49153, "answer": "1,250 kg"}, {"questionId": 49154, "answer": "Acme"}]
    return write_json(folder / "results.json", said)


def chartqa(folder: Path) -> Path:
    """A question by people and two equal ones by the machine."""
    human = {"imgname": "1.png", "query": "How many bars?", "label": "20"}
    machine = {"imgname": "2.png", "query": "What is the share?", "label": "57%"}
    write_json(folder / "test_human.json", [human])
    write_json(folder / "test_augmented.json", [machine, machine])
    said = [{**machine, "prediction": "0.58"}, {**machine, "prediction": "75%"}]
    said.append({**human, "prediction": "20.9"})
    return write_json(folder / "results.json", said)


def ai2d(folder: Path) -> Path:
    """A diagram with two questions, and one that is not in the test split."""
    for name in ("0", "7"):
        questions = {
            f"What is below the sun in {name}?": ["grass", "a cow", "a fox", "a wolf"],
            f"What does the cow eat in {name}?": ["a fox", "grass", "sun", "a wolf"],
        }
        content = {
            text: {
                "abcLabel": False,
                "answerTexts": answers,
                "correctAnswer": answers.index("grass"),
                "questionId": f"{name}.png-{number}",
            }
            for number, (text, answers) in enumerate(questions.items())
        }
        write_json(folder / "questions" / f"{name}.png.json", {"questions": content})
    (folder / "ai2d_test_ids.csv").write_text("0\n", encoding="utf-8")
    said = [{"question_id": "0.png-0", "text": "A. grass"}, {"question_id": "0.png-1", "text": "A"}]
    return write_lines(folder / "results.jsonl", said)


FOLDERS: dict[str, Callable[[Path], Path]] = {
    make.__name__: make
    for make in (
        *(vqav2, ok_vqa, textvqa, vizwiz, gqa, scienceqa, mmmu, mathvista),
        *(mme, pope, seed_bench, mmbench, docvqa, chartqa, ai2d),
    )
}


def arc(folder: Path, name: str = "ARC-Easy") -> None:
    """Two questions, one with digits as labels, as on the hub."""
    rows = [
        {
            "id": "Mercury_1",
            "question": "Which gas do plants take in?",
            "choices": {"text": ["oxygen", "carbon dioxide"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        {
            "id": "NYSEDREGENTS_2",
            "question": "What boils at 100 degrees?",
            "choices": {"text": ["water", "iron", "salt"], "label": ["1", "2", "3"]},
            "answerKey": "1",
        },
    ]
    write_parquet(folder / name / "test-00000-of-00001.parquet", rows)


def arc_original(folder: Path) -> Path:
    """The same two as the authors' JSON lines."""
    arc(folder)
    table = parquet.read_table(folder / "ARC-Easy" / "test-00000-of-00001.parquet").to_pylist()
    rows = []
    for row in table:
        pairs = zip(row["choices"]["text"], row["choices"]["label"], strict=True)
        choices = [{"text": text, "label": label} for text, label in pairs]
        stem = {"stem": row["question"], "choices": choices}
        rows.append({"id": row["id"], "question": stem, "answerKey": row["answerKey"]})
    return write_lines(folder / "ARC-V1" / "ARC-Easy-Test.jsonl", rows)


def piqa(folder: Path) -> None:
    """Two goals."""
    rows = [
        {"goal": "dry hands", "sol1": "use a towel", "sol2": "use a lake", "label": 0},
        {"goal": "cut paper", "sol1": "use soup", "sol2": "use scissors", "label": 1},
    ]
    write_parquet(folder / "plain_text" / "validation-00000-of-00001.parquet", rows)


def hellaswag(folder: Path) -> None:
    """One description from WikiHow, with its brackets."""
    row = {
        "ind": 4,
        "activity_label": "Food and Entertaining",
        "ctx_a": "[header] How to boil eggs [title] Get a pan.",
        "ctx_b": "then you",
        "ctx": "",
        "endings": ["fill it  with water. [substeps] Not too much.", "sing.", "fly.", "sleep."],
        "source_id": "wikihow~4",
        "split": "val",
        "label": "0",
    }
    write_parquet(folder / "validation-00000-of-00001.parquet", [row])


def winogrande(folder: Path) -> None:
    """One sentence with a blank."""
    row = {
        "sentence": "Sarah was a better surgeon than Maria so _ always got the easier cases.",
        "option1": "Sarah",
        "option2": "Maria",
        "answer": "2",
    }
    write_parquet(folder / "winogrande_xl" / "validation-00000-of-00001.parquet", [row])


def sciq(folder: Path) -> None:
    """One question with a passage."""
    row = {
        "question": "What pumps blood?",
        "distractor3": "the lung",
        "distractor1": "the skin",
        "distractor2": "the ear",
        "correct_answer": "the heart",
        "support": "\n The heart pumps blood.",
    }
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", [row])


def lambada(folder: Path) -> None:
    """Two passages."""
    rows = [{"text": "he gave the ring back to Mary"}, {"text": "she ate the whole cake"}]
    write_lines(folder / "lambada_test_en.jsonl", rows)


def webqs(folder: Path) -> None:
    """One question whose second answer begins with the first."""
    answers = ["Jamaican English", "Jamaican Creole English Language", "Jamaican"]
    row = {"url": "", "question": "what do jamaicans speak?", "answers": answers}
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", [row])


def triviaqa(folder: Path) -> Path:
    """Two questions with aliases."""
    rows = [
        {
            "question": "Which city is the capital of France?",
            "question_id": "tc_1",
            "answer": {"aliases": ["Paris", "City of Light"], "value": "Paris"},
        },
        {
            "question": "Who wrote Emma?",
            "question_id": "tc_2",
            "answer": {"aliases": ["Jane Austen"], "value": "Jane Austen"},
        },
    ]
    write_parquet(folder / "rc.nocontext" / "validation-00000-of-00001.parquet", rows)
    said = ["city of light!", "Austen"]
    samples = [{"doc_id": n, "filtered_resps": [text]} for n, text in enumerate(said)]
    return write_lines(folder / "samples_triviaqa.jsonl", samples)


TEXT_FOLDERS: dict[str, Callable[[Path], Any]] = {
    "arc_easy": arc,
    "arc_challenge": lambda folder: arc(folder, "ARC-Challenge"),
    **{
        make.__name__: make
        for make in (piqa, hellaswag, winogrande, sciq, lambada, webqs, triviaqa)
    },
}
