"""Whatever stands in a recipe or a study: one line or a plan, in seconds, and never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from ablations.errors import UserError
from ablations.plan import make_plan
from ablations.yaml_files import MOST_BYTES, MOST_LEVELS, YamlDocument, as_model, load_yaml
from mm1.studies import load_study
from mm1_jax.config.recipe import Recipe

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(n + 1)}: &{chr(n + 1)} [{', '.join([f'*{chr(n)}'] * 10)}]\n" for n in range(97, 122)
)
ALIASES = f"a: &a [{', '.join(['x'] * 2000)}]\nb: [{', '.join(['*a'] * 30000)}]\n"
LONG = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS, "5: more than about 62,500 values"),
        (ALIASES, "2: more than about 62,500 values"),
        (LONG, "2: more than about 62,500 values"),
        ("a: [" + "x," * 400_000 + "]", "1: more than about 62,500 values"),
        ("a: " + "[" * 10_000, f"1: more than {MOST_LEVELS} mappings and lists"),
        ("".join(" " * n + "a:\n" for n in range(1000)), "50: more than 50 mappings and lists"),
        ("a: 1\nb: \0", "2: the character U+0000, which is no text, is in the file"),
        ("a: 1\nb: \x1b[2J", "2: the character U+001B, which is no text, is in the file"),
        ('a: 1\nb: "\\0"', "2: the character U+0000, which is no text, is in a value"),
        ('a: 1\nb: "\\ud800"', "2: the character U+D800, which is no text, is in a value"),
        ("a: 1".encode("utf-16"), "1: cannot be read: UTF-16 text; save it as UTF-8"),
        (b"a: 1\nb: \xff", "2: cannot be read: not UTF-8 text"),
        ("a: 1\nb: &x [1, [*x]]", "2: *x: a value contains itself"),
        ("a: 1\nb: !!python/object/apply:os.system [x]", "2: tags are not read; leave out !!pyth"),
        ("a: !!int '3'", "1: tags are not read; leave out !!int"),
        ("a: 1\n[b]: 2", "2: a key must be a plain word"),
        ("a: 1\n--- \nb: 2", "2: not valid YAML: but found another document"),
        ("a: *nothing", "1: not valid YAML: found undefined alias 'nothing'"),
        ("a: " + "x" * MOST_BYTES, " cannot be read: 1,000,003 bytes, more than the 1,000,000"),
    ],
    ids=range(19),
)
def test_a_file_that_no_study_needs_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        load_yaml(path)
    assert str(error.value).removeprefix(f"{path}:").startswith(message)
    assert len(str(error.value)) < len(str(path)) + 300


def test_the_mark_of_utf_8_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert load_yaml(tmp_path / "x.yaml").value == {"a": 1}


def test_an_alias_is_its_value(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &x {b: [1]}\nc: *x", encoding="utf-8")
    assert load_yaml(tmp_path / "x.yaml").value == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", "/dev/zero"):
        with pytest.raises(UserError, match="not a file with an end"):
            load_yaml(path)
    with pytest.raises(UserError, match="it is a folder"):
        load_yaml(tmp_path)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


VALUES = [
    None,
    [],
    {},
    "",
    "x",
    "x" * 100_000,
    -1,
    0,
    2**31 - 1,
    10**12,
    10**300,
    1e308,
    1e-308,
    float("inf"),
    True,
    [[]],
    [{}],
    {"kind": []},
    {"x": {"x": 1}},
    nested(40),
]


def fields(model: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in model.items():
        yield (*at, key)
        if isinstance(value, dict) and value:
            yield from fields(value, (*at, key))


WHOLE = Recipe.model_validate(
    {
        "encoder_pretraining": {},
        "language_model_pretraining": {},
        "sft": {},
        "language_model": {"kind": "moe", "rope_scaling": {"kind": "llama3"}},
        "connector": {"kind": "c_abstractor"},
        "data": {
            "kinds": {"conversations": 1},
            "mixture_changes": [{"from_step": 3, "mixture": {"text": 1, "easy_vqa": 1}}],
        },
        "evaluation": {"easy_vqa": {}, "held_out_text": {}, "mesh": {}},
    }
).model_dump(mode="json")


def changed(tree: Any, at: tuple[str, ...], value: Any) -> Any:
    if not at:
        return value
    return {**tree, at[0]: changed(tree[at[0]], at[1:], value)}


def one_line(error: UserError, folder: object = "x.yaml") -> None:
    said = str(error).replace(str(folder), "")
    assert len(said) < 700, said
    assert said.isprintable()


@pytest.mark.parametrize("part", sorted(WHOLE))
def test_any_value_in_any_field_of_a_recipe_is_told_in_one_line_or_is_fine(part):
    for at in fields({part: WHOLE[part]}):
        for value in VALUES:
            tree = changed(WHOLE, at, value)
            try:
                as_model(YamlDocument("x.yaml", "", tree, {(): 1}), Recipe)
            except UserError as error:
                one_line(error)


STUDY = {
    "study": "test",
    "question": "Does it work?",
    "base": "recipe.yaml",
    "overrides": {"training.steps": 90},
    "design": {"one_at_a_time": {"encoder.image_size": [32, 16]}},
    "seeds": 2,
    "primary_metric": "easy_vqa.accuracy",
    "claims": {"a": "score(base) > 1", "b": {"claim": "score(base) > 2", "min_effect": 1}},
    "alpha": 0.05,
    "null_arms": 0,
    "runners": {},
    "labels": {"base": "as it is"},
}
LEVELS = {str(steps): {"training.steps": steps} for steps in range(100)}
DESIGNS = [
    {"factorial": {f"factor{n}": LEVELS for n in range(6)}},
    {"factorial": {f"factor{n}": [0, 1] for n in range(2000)}},
    {"one_at_a_time": {"x" * 5000: [1, 2]}},
    {"arms": {"a\u202eb": {"encoder.width": 32}}},
    {"arms": {"a": {"encoder": {"kind": []}}}},
    {"arms": {"a": {"encoder": {"preset": {"x": 1}}}}},
]


@pytest.mark.parametrize("field", sorted(STUDY))
def test_any_value_in_any_field_of_a_study_is_told_in_one_line_or_is_planned(field, studies):
    path = studies.write()
    more = DESIGNS if field == "design" else ["score(base) > " + "1" * 3000, [0] * 5000]
    for at in fields({field: STUDY[field]}):
        for value in VALUES + more:
            text = json.dumps(changed(STUDY, at, value)).replace("Infinity", "1e999")
            path.write_text(text, encoding="utf-8")
            try:
                make_plan(load_study(path))
            except UserError as error:
                one_line(error, studies.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "x" * 129}, "should have at most 128 characters"),
        ({"claims": {"a\tb": "score(base) > 1"}}, "is no name"),
        ({"claims": {"a": "score(base) > 1 and " * 1000}}, "a claim has at most 4,000 characters"),
        ({"claims": {"a": "score(base) > 1e300"}}, "got '1e300' at column"),
        ({"claims": {f"c{n}": "score(base) > 1" for n in range(1001)}}, "claims: 1,001, more than"),
        ({"design": DESIGNS[0]}, "this design has about 3,000,000,000,000 trials"),
        ({"design": DESIGNS[1]}, "more than 10¹⁵ trials"),
        ({"null_arms": 10**9}, "null_arms: 1000000000 is out of range; it must be at most 1000"),
        ({"design": {"arms": {"x" * 201: {"encoder.width": 32}}}}, "a name has at most 200"),
        ({"overrides": {"evaluation.easy_vqa.shots": [100_000]}}, "it must be at most 1024"),
        ({"overrides": {"encoder.image_size": 8_000_000_000}}, "a whole number is at most"),
        ({"overrides": {"encoder.image_size": 800_000_000}}, "it must be at most 16384"),
        ({"labels": {"base": "a", "encoder.image_size=16": "a"}}, "are both called 'a'"),
        ({"labels": {"base": "encoder.image_size=16"}}, "the name of another"),
    ],
    ids=range(14),
)
def test_what_would_eat_the_machine_is_refused_with_its_bound(studies, changes, message):
    with pytest.raises(UserError) as error:
        studies.plan(many=True, **changes)
    assert message in str(error.value)
    one_line(error.value, studies.folder)
