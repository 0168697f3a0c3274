"""Copies of images: the same bytes, or perceptual hashes a few bits apart.

Of copies the first in the order of (file, index, part) is kept, so the result depends neither on
the order in which shards are read nor on the number of workers. Near copies are found without
comparing all pairs: a hash is cut into `blocks`, and of two hashes at most `distance` bits apart
at least `blocks` − `distance` blocks are equal; so sorting by every choice of that many blocks
brings them together (Manku, Jain and Das Sarma 2007).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa

_BITS = 64


def order(images: pa.Table) -> np.ndarray:
    """Row numbers in the order of (file, index, part): int [images]."""
    keys = {
        "file": images["file"].cast(pa.string()),
        "index": images["index"],
        "part": images["part"],
    }
    rows = pa.table({**keys, "row": np.arange(images.num_rows)})
    return rows.sort_by([(name, "ascending") for name in keys])["row"].to_numpy()


def same_bytes(images: pa.Table) -> np.ndarray:
    """A number for each distinct content, -1 for images without: int [images]."""
    codes = images["sha256"].combine_chunks().dictionary_encode().indices
    return codes.fill_null(-1).to_numpy(zero_copy_only=False)


def exact_copies(images: pa.Table, considered: np.ndarray) -> np.ndarray:
    """Row of the first image with the same bytes, -1 where that is the image itself: int [images].

    Images that are not `considered` (bool [images]) are neither copies nor copied.
    """
    rows = order(images)
    return _first_of_equals(same_bytes(images), rows[considered[rows]])


def _first_of_equals(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    copy_of = np.full(len(values), -1, np.int64)
    _, first, group = np.unique(values[rows], return_index=True, return_inverse=True)
    firsts = rows[first][group]
    copy_of[rows] = np.where(firsts == rows, -1, firsts)
    return copy_of


def near_copies(images: pa.Table, considered: np.ndarray, distance: int) -> np.ndarray:
    """Row of a kept image at most `distance` bits away, -1 for the kept ones: int [images].

    In their order, an image is kept unless one kept before it is that near. So no two kept images
    are near, and every copy is near the one it is called a copy of.
    """
    hashes = images["perceptual"].fill_null(0).to_numpy()
    rows = order(images)
    rows = rows[considered[rows]]
    copy_of = _first_of_equals(hashes, rows)
    # One node per distinct hash, in the order of their first images.
    nodes = rows[copy_of[rows] == -1]
    earlier, later = near_pairs(hashes[nodes], distance)
    by_later = np.lexsort((earlier, later))
    earlier, later = earlier[by_later], later[by_later]
    instead = [-1] * len(nodes)  # the node kept instead of this one
    for before, node in zip(earlier.tolist(), later.tolist(), strict=True):
        if instead[node] == -1 and instead[before] == -1:
            instead[node] = before
    kept_instead = np.array(instead, np.int64)
    moved = kept_instead >= 0
    copy_of[nodes[moved]] = nodes[kept_instead[moved]]
    # Images whose hash is that of a node follow the node.
    follows = rows[copy_of[rows] >= 0]
    onward = copy_of[copy_of[follows]]
    copy_of[follows] = np.where(onward >= 0, onward, copy_of[follows])
    return copy_of


def near_evaluation(images: pa.Table, evaluation: pa.Table, distance: int) -> np.ndarray:
    """Which images are an evaluation's, byte by byte or at most `distance` bits off: bool [images].

    Both tables have the columns of `image_survey.SCHEMA`.
    """
    known = set(evaluation["sha256"].to_pylist())
    same = np.array([digest in known for digest in images["sha256"].to_pylist()], bool)
    ours, group = np.unique(images["perceptual"].fill_null(0).to_numpy(), return_inverse=True)
    theirs = np.unique(evaluation["perceptual"].to_numpy())
    # A hash of both is one node twice: the pair of distance 0 is found too.
    first, second = near_pairs(np.concatenate([ours, theirs]), distance)
    crossing = (first < len(ours)) & (second >= len(ours))
    near = np.zeros(len(ours), bool)
    near[first[crossing]] = True
    return (same | near[group]) & images["bad"].is_null().to_numpy()


def near_pairs(hashes: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs i < j of hashes (uint64 [hashes]) at most `distance` bits apart: int [pairs] twice.

    Exact; ordered by (i, j).
    """
    # Neighbouring bits of a hash say similar things (the empty margin of drawings is a run of
    # zeros): mixed among blocks, few hashes share a block by chance.
    mixed = _mixed(hashes)
    found: list[np.ndarray] = []
    count = np.int64(max(len(hashes), 1))
    for mask in _masks(len(hashes), distance):
        keys = mixed & mask
        rows = np.argsort(keys, kind="stable")
        keys = keys[rows]
        active = np.arange(len(hashes))
        for shift in range(1, len(hashes)):
            active = active[active + shift < len(hashes)]
            active = active[keys[active] == keys[active + shift]]
            if not len(active):
                break
            one, other = rows[active], rows[active + shift]
            near = np.bitwise_count(mixed[one] ^ mixed[other]) <= distance
            first, second = np.minimum(one, other)[near], np.maximum(one, other)[near]
            found.append(first * count + second)
    pairs = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    return pairs // count, pairs % count


def _masks(count: int, distance: int) -> list[np.uint64]:
    """The bits to sort by: enough of them that few of `count` hashes share them by chance."""
    if distance == 0:
        return [np.uint64(2**_BITS - 1)]
    wanted = max(count, 2).bit_length()
    blocks = next(
        (n for n in range(distance + 1, distance + 5) if _BITS * (n - distance) // n >= wanted),
        distance + 4,
    )
    edges = [round(_BITS * number / blocks) for number in range(blocks + 1)]
    block = [2 ** edges[n + 1] - 2 ** edges[n] for n in range(blocks)]
    return [np.uint64(sum(chosen)) for chosen in combinations(block, blocks - distance)]


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """The bits of every hash in another, fixed order."""
    bits = np.unpackbits(hashes.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1)
    places = np.arange(_BITS) * 29 % _BITS  # 29 has no factor in common with 64
    return np.packbits(bits[:, places], axis=1).reshape(-1).view("<u8")
