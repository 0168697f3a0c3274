"""What is added to a study's file: the rest of its text stays, and nothing registered changes."""

from __future__ import annotations

import pytest

from ablations.additions import only_adds, with_level, with_more_seeds
from ablations.errors import UserError
from ablations.plan import make_plan
from ablations.study import load_study
from ablations.yaml_files import load_yaml
from mm1_jax.workload import RECIPE

TEXT = """\
# why: nobody knows
study: more
question: Is it more?
base: recipe.yaml
design:
  one_at_a_time:
    connector.tokens: [1, 4]  # of nine
    training.batch_size:
      - 2
      - 4  # twice
seeds: 2   # to begin with
primary_metric: easy_vqa.accuracy
claims:
  tokens: effect(connector.tokens, 1 -> 4) > 0
"""
RECIPE_TEXT = """
encoder: {image_size: 24, patch_size: 8, width: 16, layers: 1, heads: 2}
connector: {kind: average_pooling, tokens: 1}
language_model: {width: 16, layers: 1, heads: 2, kv_heads: 1, mlp_width: 32}
data: {mixture: {easy_vqa: 0.5, emoji_captions: 0.5}, text_tokens: 32, images: 2}
training: {steps: 6, batch_size: 2}
optimizer: {warmup_steps: 2, peak_lr: 0.01}
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE_TEXT, encoding="utf-8")

    def write(text):
        path = tmp_path / "more.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def plan_of(path):
    return make_plan(load_study(path, RECIPE))


def test_seeds_and_levels_are_added_and_the_rest_of_the_text_stays(write):
    text = with_more_seeds(load_yaml(write(TEXT)), 3)
    assert text == TEXT.replace("seeds: 2   #", "seeds: 5   #")
    text = with_level(load_yaml(write(text)), "connector.tokens=9")
    text = with_level(load_yaml(write(text)), "training.batch_size=8")
    old, new = plan_of(write(TEXT)), plan_of(write(text))
    assert "connector.tokens: [1, 4, 9]  # of nine" in text
    assert "- 4\n      - 8  # twice" in text
    assert [arm.name for arm in new.arms][-2:] == [
        "training.batch_size=4",
        "training.batch_size=8",
    ]
    assert only_adds(old, new) == "19 trials"  # 5 arms × 5 seeds, where 3 × 2 were
    listed = with_more_seeds(load_yaml(write(TEXT.replace("seeds: 2 ", "seeds: [3, 11] "))), 2)
    assert "seeds: [3, 11, 12, 13]" in listed


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds: 2", "seeds: 1", "leaves out base seed 1"),
        ("- 4  # twice", "- 8", "leaves out training.batch_size=4 seed 0"),
        ("seeds: 2", "overrides: {optimizer.peak_lr: 0.02}\nseeds: 2", "changes base seed 0"),
        ("(connector.tokens, 1 -> 4) > 0", "(connector.tokens, 1 -> 4) > 1", "the claim 'tokens'"),
        ("study: more", "study: less", "is study 'less', not 'more'"),
        ("# of nine", "# of ten", "nothing is added"),
    ],
)
def test_what_changes_or_leaves_out_is_no_addition(write, old, new, said):
    before = plan_of(write(TEXT))
    with pytest.raises(UserError, match=said):
        only_adds(before, plan_of(write(TEXT.replace(old, new))))


@pytest.mark.parametrize(
    ("text", "written", "said"),
    [
        (TEXT, "connector.token=9", "more.yaml:5: no factor 'connector.token'; did you mean"),
        (TEXT, "connector.tokens=4", "has the level 4 already"),
        (TEXT, "connector.tokens", "give a factor and a level"),
        (TEXT.replace("one_at_a_time", "factorial"), "connector.tokens=9", "one_at_a_time"),
    ],
)
def test_a_level_that_cannot_be_added_is_one_line(write, text, written, said):
    with pytest.raises(UserError, match=said):
        with_level(load_yaml(write(text)), written)


def test_drawn_seeds_cannot_be_added_to(write):
    text = TEXT.replace("seeds: 2", "seeds: {from: fresh, count: 2}")
    with pytest.raises(UserError, match=r"more.yaml:11: seeds: .*another name"):
        with_more_seeds(load_yaml(write(text)), 1)
