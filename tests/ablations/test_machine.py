import re

import pytest

from ablations import machine
from ablations.errors import UserError
from ablations.machine import load_machine, with_price

OWN = """\
like: v5e-16
topology: 8x8
hosts: 16
price: {hourly: 50, what: our contract}
"""


def refused(tmp_path, text):
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_machine(str(file))
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("name", machine.known())
def test_every_number_of_a_machine_that_comes_with_us_has_its_source(name):
    found = load_machine(name)
    assert found.name == name
    assert found.what
    assert found.accelerator.source
    assert found.accelerator.memory
    assert found.host is None or found.host.source
    if found.price is not None:
        assert found.price.source.startswith("https://")
        assert found.price.read
        assert found.price.what
    if found.kind != "cpu":
        assert found.peak_flops("bfloat16") > 1e14
        assert found.accelerator.source.startswith("https://")


def test_a_slice_has_the_chips_that_its_name_says():
    for name in machine.known():
        if re.match(r"v\de-", name):
            assert load_machine(name).devices == int(name.rpartition("-")[2])
        elif name.startswith("v5p-"):  # called by its cores, two a chip
            assert load_machine(name).devices * 2 == int(name.rpartition("-")[2])


def test_memory_and_peak_are_those_that_programs_are_compiled_for():
    from mm1_jax.scale.chips import CHIPS

    for name in machine.known():
        found = load_machine(name)
        if found.kind == "tpu":
            chip = CHIPS[found.accelerator.version]
            assert found.accelerator.memory == chip.hbm_bytes
            assert found.peak_flops("bfloat16") == chip.peak_flops
            assert found.topology in chip.slices


def test_an_own_file_says_only_what_differs_and_keeps_no_others_price(tmp_path):
    file = tmp_path / "ours.yaml"
    file.write_text(OWN, encoding="utf-8")
    found = load_machine(str(file))
    assert (found.name, found.devices, found.topology) == ("ours", 64, "8x8")
    assert found.accelerator == load_machine("v5e-16").accelerator
    assert found.price.hourly == 50
    assert found.price.source == ""
    (tmp_path / "more.yaml").write_text("like: ours.yaml\nslices: 2\n", encoding="utf-8")
    assert load_machine(str(tmp_path / "more.yaml")).slices == 2


def test_a_price_is_changed_and_one_that_is_none_is_refused():
    assert with_price(load_machine("h200-8"), 20).price.hourly == 20
    for price in (-1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--price"):
            with_price(load_machine("h200-8"), price)


def test_an_unknown_machine_names_the_nearest():
    with pytest.raises(UserError, match="no machine 'v5e-17'; did you mean 'v5e-1"):
        load_machine("v5e-17")
    with pytest.raises(UserError, match="no such file"):
        load_machine("./missing.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("like: v5e-16\nhosst: 2\n", ":2: unknown key 'hosst'; did you mean 'host"),
        ("like: v5e-16\nprice:\n  hourly: -3\n", ":3: price.hourly: -3 is out of range"),
        ("like: v5e-16\nprice: {hourly: 3, read: today}\n", "'today' is not a date"),
        ("like: v5e-16\ntopology: 4x8\n", "4x8 has 32 chips, and hosts · devices_per_host is 16"),
        ("like: v5e-16\ntopology: big\n", "'big' is not the shape of a slice"),
        ("like: v5e-61\n", ":1: like: no machine 'v5e-61'; did you mean"),
        ("like: own.yaml\n", ":1: like: 'own.yaml' is like this one itself"),
        ("like: 3\n", "like: 3 is not the name or the path"),
        ("like: a100-1\ntopology: 4x4\n", "only TPU slices have one"),
        ("like: laptop-core\ndevices_per_host: 2\n", "several need simulated: true"),
        ("like: a100-1\nsimulated: true\n", "devices are simulated on a cpu, not on a gpu"),
        ("like: a100-1\nname: x\n", ":2: unknown key 'name'"),
        ("accelerator: {kind: npu}\n", 'accelerator.kind: "npu" is not valid'),
        ("hosts: 1\n", "key 'accelerator' is missing"),
        ("like: a100-1\naccelerator: {memory: much}\n", "'much' is not a size such as 16 GB"),
        ("like: a100-1\naccelerator: {peak_tflops: {int4: 3}}\n", "int4"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path, text, told):
    assert told in refused(tmp_path, text)
