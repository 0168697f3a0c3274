"""The caption tasks on files of our own in their official forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import UserError
from mm1_jax.evaluation.benchmarks import coco_caption, nocaps, textcaps
from mm1_jax.evaluation.metrics.captions import bleu, cider_d, rouge_l
from mm1_jax.evaluation.official import caption_tasks

CAPTIONS = {
    391895: ["A man rides a motorcycle.", "A motorcycle on a dirt road."],
    522418: ["A woman cuts a cake.", "A woman with a large white cake."],
    184613: ["A child holds an umbrella.", "A boy isn't getting wet."],
}
PREDICTED = ["a man on a motorcycle", "a woman cuts a large cake", "a child with an umbrella"]


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def coco_file(path: Path, **facts: list[str]) -> Path:
    images = [
        {"id": image, "file_name": f"{image:012d}.jpg"}
        | {name: values[number] for name, values in facts.items()}
        for number, image in enumerate(CAPTIONS)
    ]
    annotations = [
        {"id": 10 * image + number, "image_id": image, "caption": caption}
        for number in range(2)
        for image, captions in CAPTIONS.items()
        for caption in captions[number : number + 1]
    ]
    return written(path, {"images": images, "annotations": annotations})


def karpathy_file(path: Path, splits: Sequence[str] = ("test", "restval", "test")) -> Path:
    images = [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{image:012d}.jpg",
            "cocoid": image,
            "imgid": number,
            "split": split,
            "sentences": [{"raw": text, "tokens": text.split()} for text in captions],
        }
        for number, (split, (image, captions)) in enumerate(
            zip(splits, CAPTIONS.items(), strict=True)
        )
    ]
    return written(path, {"dataset": "coco", "images": images})


def test_coco_reads_one_item_per_image_with_all_its_captions(tmp_path):
    items = coco_caption.read(coco_file(tmp_path / "captions_val2014.json"))
    assert {item.item_id: list(item.references) for item in items} == {
        str(image): captions for image, captions in CAPTIONS.items()
    }
    assert items[0].images == ("000000391895.jpg",)
    assert items[0].prompt == caption_tasks.PROMPT


def test_of_karpathys_file_the_test_split_counts(tmp_path):
    karpathy_file(tmp_path / "dataset_coco.json")
    items = coco_caption.read(tmp_path)
    assert [item.item_id for item in items] == ["391895", "184613"]
    assert items[0].images == ("val2014/COCO_val2014_000000391895.jpg",)
    assert items[1].references == tuple(CAPTIONS[184613])
    training = coco_caption.read_training(tmp_path)
    assert [item.item_id for item in training] == ["522418"]


def test_a_split_that_karpathys_file_lacks_is_said(tmp_path):
    file = karpathy_file(tmp_path / "dataset_coco.json", splits=["test", "val", "test"])
    with pytest.raises(UserError, match="no images of split train or restval; found test, val"):
        coco_caption.read_training(file)


def test_scores_are_the_metrics_times_a_hundred(tmp_path):
    items = coco_caption.read(coco_file(tmp_path / "captions_val2014.json"))
    references = list(CAPTIONS.values())
    scored = coco_caption.TASK.score(items, PREDICTED)
    assert scored.metrics == {
        "cider": pytest.approx(100 * cider_d(PREDICTED, references).mean()),
        "bleu_4": pytest.approx(100 * bleu(PREDICTED, references)[3]),
        "rouge_l": pytest.approx(100 * rouge_l(PREDICTED, references).mean()),
    }
    assert scored.items == pytest.approx(100 * cider_d(PREDICTED, references))
    assert 0 < scored.metrics["bleu_4"] < scored.metrics["rouge_l"] < 100


def test_nocaps_scores_each_domain_as_a_split_of_its_own(tmp_path):
    domains = ["in-domain", "out-domain", "out-domain"]
    file = coco_file(tmp_path / "nocaps_val_4500_captions.json", domain=domains)
    items = nocaps.read(file)
    metrics = nocaps.score(items, PREDICTED).metrics
    outside = caption_tasks.score(items[1:], PREDICTED[1:]).metrics
    assert metrics["cider/domain:out-domain"] == outside["cider"]
    assert metrics["rouge_l/domain:out-domain"] == outside["rouge_l"]
    assert metrics["cider"] == caption_tasks.score(items, PREDICTED).metrics["cider"]
    assert metrics["cider/domain:in-domain"] == 0.0  # one image alone
    without = nocaps.read(coco_file(tmp_path / "nocaps_val.json"))
    assert set(nocaps.score(without, PREDICTED).metrics) == {"cider", "bleu_4", "rouge_l"}


def test_textcaps_has_one_item_per_image_of_several_rows(tmp_path):
    rows = [
        {"image_id": image, "caption_str": caption, "reference_strs": captions}
        for image, captions in {
            "b4d0": ["A sign reads STOP.", "A red sign."],
            "0a1c": ["x"],
        }.items()
        for caption in captions
    ]
    file = written(tmp_path / "TextCaps_0.1_val.json", {"data": rows})
    items = textcaps.read(file)
    assert [(i.item_id, i.images, i.references) for i in items] == [
        ("b4d0", ("b4d0.jpg",), ("A sign reads STOP.", "A red sign.")),
        ("0a1c", ("0a1c.jpg",), ("x",)),
    ]


def test_textcaps_keeps_the_captions_that_only_some_rows_have(tmp_path):
    given = [["x", "y", "y"], ["z"], ["y", "x"]]
    rows = [{"image_id": "0a1c", "reference_strs": captions} for captions in given]
    (item,) = textcaps.read(written(tmp_path / "TextCaps_0.1_val.json", {"data": rows}))
    assert item.references == ("x", "y", "y", "z")
    rows[1]["reference_strs"] = [None]
    with pytest.raises(UserError, match="row 2: reference_strs, 1: is null"):
        textcaps.read(written(tmp_path / "TextCaps_0.1_val.json", {"data": rows}))


def test_of_a_folder_with_both_splits_each_reader_takes_its_own(tmp_path):
    rows = [{"image_id": "a", "reference_strs": ["x"]}, {"image_id": "b", "reference_strs": ["y"]}]
    written(tmp_path / "TextCaps_0.1_val.json", {"data": rows[:1]})
    written(tmp_path / "TextCaps_0.1_train.json", {"data": rows[1:]})
    assert [item.item_id for item in textcaps.read(tmp_path)] == ["a"]
    assert [item.item_id for item in textcaps.read_training(tmp_path)] == ["b"]
    coco_file(tmp_path / "captions_val2014.json")
    coco_file(tmp_path / "captions_train2014.json", split=["train"] * 3)
    assert coco_caption.read(tmp_path)[0].facts.get("split") is None
    assert coco_caption.read_training(tmp_path)[0].facts["split"] == "train"


def test_the_answer_is_the_first_line():
    assert caption_tasks.answer(" a dog\ncaption: a cat") == "a dog"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "images missing; found annotations"),
        ([1], "not coco_caption: expected images"),
        ({"images": [{"id": 1, "file_name": "a"}], "annotations": []}, "image 1 has no captions"),
        (
            {"images": [], "annotations": [{"image_id": 7, "caption": "a"}]},
            "a caption of image 7, which is not among the images",
        ),
        (
            {"images": 2 * [{"id": 1, "file_name": "a"}], "annotations": []},
            "image 1 is there twice",
        ),
        ({"images": [{"id": 1}]}, "expected split, cocoid, filename, sentences"),
    ],
)
def test_a_file_of_another_form_is_said(tmp_path, content, message):
    file = written(tmp_path / "captions.json", content)
    with pytest.raises(UserError, match=message):
        coco_caption.read(file)
