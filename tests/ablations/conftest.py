"""Study files for tests: a small recipe and a study on it, with any key replaced."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from ablations.plan import make_plan
from mm1.studies import load_study

RECIPE = {
    "data": {
        "mixture": {"easy_vqa": 0.7, "emoji_captions": 0.15, "interleaved": 0.1, "text": 0.05}
    },
    "training": {"steps": 100, "batch_size": 4},
    "evaluation": {
        "easy_vqa": {"conditions": ["intact", "shuffled"]},
        "emoji_caption": {},
        "held_out_text": {},
    },
}
STUDY = {
    "study": "test",
    "question": "Does it work?",
    "base": "recipe.yaml",
    "design": {"one_at_a_time": {"encoder.image_size": [32, 16]}},
    "seeds": 3,
    "primary_metric": "easy_vqa.accuracy",
}


class Studies:
    """Writes studies into a folder, and plans them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.recipe = copy.deepcopy(RECIPE)

    def write(self, text: str | None = None, **changes) -> Path:
        """A study file: the given text, or the standard study with some keys changed."""
        (self.folder / "recipe.yaml").write_text(
            yaml.safe_dump(self.recipe, sort_keys=False), encoding="utf-8"
        )
        path = self.folder / "study.yaml"
        study = {**copy.deepcopy(STUDY), **changes}
        path.write_text(
            text if text is not None else yaml.safe_dump(study, sort_keys=False), encoding="utf-8"
        )
        return path

    def load(self, text: str | None = None, **changes):
        return load_study(self.write(text, **changes))

    def plan(self, text: str | None = None, *, many: bool = False, **changes):
        return make_plan(self.load(text, **changes), many=many)


@pytest.fixture
def studies(tmp_path) -> Studies:
    return Studies(tmp_path)
