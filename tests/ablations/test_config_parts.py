from __future__ import annotations

import json

import pytest

from ablations.config_parts import ConfigParts

BASE = {
    "encoder": {"kind": "vit", "image": {"size": 32, "mean": [0.5, {"of": "half"}]}},
    "steps": 1000,
    "name": None,
}


def read_back(parts: ConfigParts) -> ConfigParts:
    return ConfigParts.read(json.loads(json.dumps(parts.written)))


def test_configs_come_back_as_they_were_with_their_keys_in_order():
    parts = ConfigParts()
    other = {**BASE, "encoder": {**BASE["encoder"], "kind": "sam"}, "empty": {}}
    numbers = [parts.number(config) for config in (BASE, other, {})]
    for number, config in zip(numbers, (BASE, other, {}), strict=True):
        assert json.dumps(read_back(parts)[number]) == json.dumps(config)
        assert json.dumps(parts[number]) == json.dumps(config)


def test_what_configs_share_is_kept_once():
    parts = ConfigParts()
    arms = [{**json.loads(json.dumps(BASE)), "steps": steps} for steps in range(100)]
    shared = [parts[parts.number(arm)] for arm in arms]
    assert shared == arms
    assert len(parts.written) == 2 + 100
    assert len({id(arm["encoder"]) for arm in shared}) == 1
    assert parts.number(shared[7]) == parts.number(json.loads(json.dumps(arms[7])))
    assert len(parts.written) == 2 + 100


def test_a_config_in_the_place_of_one_that_is_gone_is_not_taken_for_it():
    parts = ConfigParts()
    for steps in range(3_000):  # each dead when the next is made
        assert parts[parts.number({"steps": steps})] == {"steps": steps}


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), (None, "null")])
def test_values_that_only_look_equal_stay_apart(one, other):
    parts = ConfigParts()
    configs = [{"group": {"value": value}} for value in (one, other)]
    found = [parts[parts.number(config)] for config in configs]
    assert [repr(config["group"]["value"]) for config in found] == [repr(one), repr(other)]


def test_a_mapping_of_ones_own_that_looks_like_a_number_of_a_part_is_none():
    parts = ConfigParts()
    config = {"part": {"part": 0}, "other": {"part": {"part": 7}}}
    number = parts.number(config)
    assert read_back(parts)[number] == config


@pytest.mark.parametrize("written", [[{"a": {"part": 3}}], [{"a": {"other": 0}}], [7], 7])
def test_what_nobody_wrote_is_an_error(written):
    with pytest.raises((LookupError, TypeError)):
        ConfigParts.read(written)
