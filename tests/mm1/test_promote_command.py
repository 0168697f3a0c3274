"""An arm that has run, as a recipe and as files that others read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from ablations.errors import UserError
from ablations.plan import Plan, make_plan
from ablations.stage import ResultRow
from ablations.yaml_files import load_yaml
from mm1.promote_command import promote, promoted
from mm1.studies import load_study
from mm1_jax.config.recipe import Recipe
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data import tokenizer
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.checkpoints import load_subtree, save_part
from mm1_jax.weights.public_weights import import_folder
from sweeps.store import Store

ARM = "connector.tokens=4"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_study) -> tuple[Path, Plan]:
    """A store in which the small study has run, but for one trial; nothing was trained for it."""
    folder = tmp_path_factory.mktemp("promoted")
    plan = make_plan(load_study(write_study(folder)))
    store = Store(folder / "store")
    store.register(plan)
    for trial in plan.trials:
        if (trial.arm, trial.seed) == (ARM, plan.seeds[1]):
            continue
        for stage in trial.stages.values():
            if store.is_done(stage):
                continue
            attempt = store.begin(plan.stages[stage])
            condition = plan.stages[stage].config.get("condition", "")
            rows = [ResultRow("easy_vqa", "accuracy", 60.0 + trial.seed, "test", 0, condition)]
            if stage == plan.main(trial):
                recipe = Recipe.model_validate(plan.arm(trial.arm).config)
                config = TrainConfig.model_validate(
                    {**recipe.model_dump(include={"encoder", "connector", "language_model"})}
                    | {"data": {"vocabulary": 300}}
                )
                save_part(attempt.output, config, initialise(MultimodalModel(config), trial.seed))
                tokenizer.train([f"red {n}" for n in range(999)], 300).save(attempt.output)
                rows = [ResultRow("training", "loss", 1.0, step=1)]
            store.finish(attempt, rows, {"seconds": 1.0})
    return folder / "store", plan


def test_an_arm_becomes_a_recipe_and_files_of_its_parts(trained, tmp_path):
    store, plan = trained
    said = [ARM, "--store", str(store), "--out", str(tmp_path / "out"), "--json"]
    told = json.loads(CliRunner().invoke(promote, said, catch_exceptions=False).stdout)
    assert (told["study"], told["arm"], told["seed"]) == ("miniature", ARM, plan.seeds[0])
    assert set(told["parts"]) == {"encoder", "connector", "language_model"}
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "connector", "encoder", "language_model", "recipe.yaml", "trained",
    ]  # fmt: skip
    again = Recipe.model_validate(load_yaml(out / "recipe.yaml").value)
    assert again.model_dump(mode="json") == plan.arm(ARM).config
    for part in ("encoder", "language_model"):  # what others read is what was trained
        import_folder(out / part, tmp_path / part)
        assert equal(load_subtree(tmp_path / part, part)[1], part, out)
    assert load_file(out / "connector" / "model.safetensors")
    assert (out / "language_model" / "tokenizer.json").is_file()


def equal(tree: dict, part: str, out: Path) -> bool:
    if part == "language_model":  # its embeddings are written scaled
        tree = {key: value for key, value in tree.items() if key not in ("embedding", "head")}
    expected = load_subtree(out / "trained", part)[1]
    return all(same(value, expected[key]) for key, value in tree.items())


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one.shape == other.shape and (one == other).all()


def test_the_card_says_which_seed_and_what_all_seeds_came_to(trained, tmp_path):
    store, plan = trained
    promoted("base", study="miniature", store=str(store), seed=plan.seeds[1], out=tmp_path / "b")
    card = (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    first, second = (60.0 + seed for seed in plan.seeds)
    line = next(line for line in card.splitlines() if line.startswith("| easy_vqa.accuracy |"))
    assert f"| {second:.1f} | {(first + second) / 2:.1f} ± 0.7 | 2 |" in line
    assert plan.hash in card
    assert "not finished" in card


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"arm": "connector.tokens=5"}, "has an arm 'connector.tokens=5'.*connector.tokens=4"),
        ({"arm": ARM, "seed": 77}, "has no seed 77; there are: "),
        ({"arm": ARM, "study": "minature"}, "minature"),
    ],
)
def test_mistakes_are_told(trained, tmp_path, asked, told):
    with pytest.raises(UserError, match=told):
        promoted(**asked, store=str(trained[0]), out=tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_trial_that_is_not_there_is_not_promoted(trained, tmp_path):
    store, plan = trained
    with pytest.raises(UserError, match=f"seed {plan.seeds[1]} of arm {ARM}.*not there yet"):
        promoted(ARM, store=str(store), seed=plan.seeds[1], out=tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="is there already"):
        promoted(ARM, store=str(store), out=tmp_path / "there")
