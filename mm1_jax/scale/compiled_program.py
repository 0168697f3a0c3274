"""What a compiled program does, read from its optimised HLO text: FLOPs, bytes, collectives.

XLA's own cost analysis counts a loop's body once however often it runs. Here every body counts as
often as it runs, and a loop that does not say how often is an error. No JAX.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

COLLECTIVES = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
)


class UnknownTripCountError(ValueError):
    """A loop of the program does not say how often its body runs."""


@dataclass
class Collective:
    """All collectives of one kind, per chip and run of the program.

    bytes: of the arrays that the chip puts in or gets out, whichever is larger. sent_bytes: what
    it must send at least, with n chips in a group (n - 1)/n of those bytes; an all-reduce twice
    that (Patarasuk & Yuan, 2009).
    """

    count: int = 0
    bytes: float = 0.0
    sent_bytes: float = 0.0

    def add(self, times: int, more: Collective) -> None:
        """Count `more` so many times."""
        self.count += times * more.count
        self.bytes += times * more.bytes
        self.sent_bytes += times * more.sent_bytes


@dataclass
class Program:
    """What one run of a program does on one chip.

    flops: of products and convolutions, multiply-add = 2; products with zeros that padding or
    dilation put in do not count, nor does what a custom call computes. hbm_bytes: operands read
    and results written by every instruction outside fusions and every fusion, as far as they lie
    in the main memory (TPU programs say of each array where it lies); of an operand that is only
    sliced the slice counts, of a result that is an update in place the update. custom_calls:
    targets that compute something that is not counted.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: dict[str, Collective] = field(default_factory=dict)
    custom_calls: frozenset[str] = frozenset()

    def add(self, times: int, more: Program) -> None:
        """Count `more` so many times."""
        self.flops += times * more.flops
        self.hbm_bytes += times * more.hbm_bytes
        for kind, collective in more.collectives.items():
            self.collectives.setdefault(kind, Collective()).add(times, collective)
        self.custom_calls |= more.custom_calls


def read_program(hlo: str) -> Program:
    """The figures of an optimised module as `compiled.as_text()` prints it.

    Raises `UnknownTripCountError` where a loop's number of turns is not a constant.
    """
    computations, entry = _parse(hlo)
    return _Reader(computations).program(entry)


# -- text → instructions -------------------------------------------------------------------------

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
_MAIN_MEMORY = re.compile(r"S\((\d+)\)")


@dataclass(frozen=True)
class _Array:
    dtype: str
    shape: tuple[int, ...]
    space: int  # 0 is the main memory

    @property
    def bytes(self) -> float:
        bits = re.search(r"\d+", self.dtype)
        width = _BYTES.get(self.dtype, int(bits.group()) / 8 if bits else 0)
        return width * math.prod(self.shape)

    @property
    def hbm_bytes(self) -> float:
        return self.bytes if self.space == 0 else 0.0


@dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    inside: str  # what stands between the parentheses
    attributes: str
    root: bool

    @functools.cached_property
    def arrays(self) -> list[_Array]:
        return _arrays(self.type)

    def attribute(self, name: str) -> str | None:
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|[^,\s]+)", self.attributes)
        return found.group(1) if found else None

    def called(self, name: str) -> str | None:
        value = self.attribute(name)
        return value.lstrip("%") if value else None

    def dims(self, name: str) -> list[int]:
        value = self.attribute(name)
        return [int(x) for x in re.findall(r"\d+", value)] if value else []


_Computation = dict[str, _Instruction]


def _arrays(text: str) -> list[_Array]:
    arrays = []
    for dtype, shape, layout in _ARRAY.findall(text):
        space = _MAIN_MEMORY.search(layout)
        sizes = tuple(int(n.lstrip("<=")) for n in shape.split(",") if n)
        arrays.append(_Array(dtype, sizes, int(space.group(1)) if space else 0))
    return arrays


def _parse(hlo: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry, current = "", None
    for line in hlo.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header.group(2), {})
            entry = header.group(2) if header.group(1) else entry
        elif line == "}":
            current = None
        elif current is not None and " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    if not entry:
        raise ValueError("not the text of an optimised HLO module: it has no entry computation")
    return computations, entry


def _instruction(line: str) -> _Instruction:
    left, right = line.strip().split(" = ", 1)
    end = _closing(right, 0) if right.startswith("(") else right.index(" ")
    type_, rest = right[:end], right[end:].lstrip()
    open_ = rest.index("(")
    close = _closing(rest, open_)
    inside = rest[open_ + 1 : close - 1]
    return _Instruction(
        name=left.removeprefix("ROOT ").lstrip("%"),
        type=type_,
        opcode=rest[:open_],
        operands=tuple(_NAME.findall(inside)),
        inside=inside,
        attributes=rest[close:],
        root=left.startswith("ROOT "),
    )


def _closing(text: str, start: int) -> int:
    """The place behind the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"unbalanced parentheses: {text[:80]}")


# -- instructions → figures ----------------------------------------------------------------------

# They move nothing: names for what is there, or the end of what was counted at its start.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "optimization-barrier",
    "add-dependency",
}
_SILENT_CALLS = {
    "AllocateBuffer",
    "AsyncCollectiveStart",
    "AsyncCollectiveDone",
    "ConcatBitcast",
    "Sharding",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    "AssumeGatherIndicesInBound",
    "GatherScatterIndicesBitpacked",
}


class _Reader:
    def __init__(self, computations: Mapping[str, _Computation]):
        self.computations = computations
        self._programs: dict[str, Program] = {}

    def program(self, name: str) -> Program:
        """One run of a computation, with all that it calls."""
        if name not in self._programs:
            total, seen = Program(), set()
            for instruction in self.computations[name].values():
                self._count(name, instruction, total, seen)
            self._programs[name] = total
        return self._programs[name]

    def _count(self, place: str, at: _Instruction, total: Program, seen: set[str]) -> None:
        computation = self.computations[place]
        if at.opcode == "while":
            turns = self._turns(computation, at)
            total.add(turns, self.program(_required(at, "body")))
            total.add(turns, self.program(_required(at, "condition")))
        elif at.opcode == "conditional":
            total.add(1, self._dearest(at))
        elif at.opcode == "call" or at.opcode == "async-start":
            called = at.called("to_apply") or at.called("calls")
            if called:
                total.add(1, self.program(called))
        elif at.opcode == "fusion":
            self._arithmetic(_required(at, "calls"), total, seen)
            total.hbm_bytes += self._fusion_bytes(computation, at)
        else:
            self._operation(computation, at, total, seen)
            if at.opcode.removesuffix("-start") not in COLLECTIVES:
                total.hbm_bytes += _bytes_moved(computation, at)

    def _arithmetic(self, name: str, total: Program, seen: set[str]) -> None:
        """Products and collectives of a fused computation, whose values stay within the chip."""
        computation = self.computations[name]
        # TPU programs fuse an all-reduce with the slice of it that is kept.
        scattered = name.startswith("all-reduce-scatter")
        for at in computation.values():
            if at.opcode == "fusion":
                self._arithmetic(_required(at, "calls"), total, seen)
            else:
                self._operation(computation, at, total, seen, scattered)

    def _operation(
        self,
        computation: _Computation,
        at: _Instruction,
        total: Program,
        seen: set[str],
        scattered: bool = False,
    ) -> None:
        kind = at.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            # A collective that TPU programs hide behind other work stands in several fusions,
            # where it starts, goes on and ends, each time with the same channel.
            channel = at.attribute("channel_id")
            if channel is None or channel not in seen:
                if channel is not None:
                    seen.add(channel)
                name, traffic = _traffic(computation, at, scattered)
                total.collectives.setdefault(name, Collective()).add(1, traffic)
                total.hbm_bytes += _bytes_moved(computation, at)
        elif at.opcode == "dot":
            total.flops += _dot_flops(computation, at)
        elif at.opcode == "convolution":
            total.flops += _convolution_flops(computation, at)
        elif at.opcode == "custom-call":
            target = (at.attribute("custom_call_target") or "").strip('"')
            if target not in _SILENT_CALLS:
                total.custom_calls |= {target}

    def _dearest(self, at: _Instruction) -> Program:
        branches = at.attribute("branch_computations")
        names = _NAME.findall(branches) if branches else []
        names += [n for n in (at.called("true_computation"), at.called("false_computation")) if n]
        programs = [self.program(name) for name in names]
        return max(programs, key=lambda p: (p.flops, p.hbm_bytes))

    def _fusion_bytes(self, computation: _Computation, at: _Instruction) -> float:
        fused = self.computations[_required(at, "calls")]
        users: dict[str, list[_Instruction]] = {}
        for inner in fused.values():
            for operand in inner.operands:
                users.setdefault(operand, []).append(inner)
        parameters = {int(i.inside): i for i in fused.values() if i.opcode == "parameter"}
        total = 0.0
        for number, operand in enumerate(at.operands):
            array = _only(computation[operand])
            if array is not None and array.space == 0 and number in parameters:
                total += _read_bytes(parameters[number], users, array.bytes)
        root = next(inner for inner in fused.values() if inner.root)
        results = [fused[n] for n in root.operands] if root.opcode == "tuple" else [root]
        for array, result in zip(at.arrays, results, strict=False):
            total += _written_bytes(fused, result, array) if array.space == 0 else 0.0
        return total

    # -- how often a loop turns ------------------------------------------------------------------

    def _turns(self, computation: _Computation, at: _Instruction) -> int:
        known = re.search(r'known_trip_count["\s:={]+n["\s:=]+(\d+)', at.attributes)
        if known:
            return int(known.group(1))
        condition = self.computations[_required(at, "condition")]
        body = self.computations[_required(at, "body")]
        start = computation[at.operands[0]]
        compare, inputs = self._comparison(condition)
        element, limit = inputs[0], inputs[1]
        counter = _element(element)
        if counter is None:
            raise UnknownTripCountError(f"loop {at.name} does not count: {compare.name}")
        first = self._constant(computation, start.operands[counter])
        last = _literal(limit)
        if last is None and _element(limit) is not None:
            last = self._constant(computation, start.operands[_element(limit) or 0])
        step = self._step(body, counter, computation, start)
        direction = compare.attribute("direction")
        if first is None or last is None or not step or direction not in ("LT", "LE", "GT", "GE"):
            raise UnknownTripCountError(
                f"loop {at.name} runs from {first} by {step} while {direction} {last}: "
                f"its number of turns is not known before it runs"
            )
        last += {"LT": 0, "LE": 1, "GT": 0, "GE": -1}[direction]
        return max(0, math.ceil((last - first) / step))

    def _comparison(self, condition: _Computation) -> tuple[_Instruction, list[_Instruction]]:
        """The comparison that decides, and its two operands as instructions of the condition."""
        root = next(at for at in condition.values() if at.root)
        root = _copied(condition, root.name)
        if root.opcode == "fusion":
            fused = self.computations[_required(root, "calls")]
            compare = next(at for at in fused.values() if at.root)
            outer = [_copied(condition, name) for name in root.operands]
            inputs = [
                outer[int(fused[n].inside)] if fused[n].opcode == "parameter" else fused[n]
                for n in compare.operands
            ]
        else:
            compare = root
            inputs = [_copied(condition, name) for name in root.operands]
        if compare.opcode != "compare":
            raise UnknownTripCountError(f"a loop ends by {compare.opcode} {compare.name}")
        return compare, inputs

    def _step(
        self, body: _Computation, counter: int, outside: _Computation, start: _Instruction
    ) -> int | None:
        root = next(at for at in body.values() if at.root)
        if root.opcode != "tuple":
            return None
        added = _copied(body, root.operands[counter])
        operands = [_copied(body, name) for name in added.operands]
        if added.opcode == "fusion":
            fused = self.computations[_required(added, "calls")]
            inner = next(at for at in fused.values() if at.root)
            if inner.opcode != "add":
                return None
            operands = [
                operands[int(fused[n].inside)] if fused[n].opcode == "parameter" else fused[n]
                for n in inner.operands
            ]
        elif added.opcode != "add":
            return None
        for one, other in (operands, reversed(operands)):
            if _element(one) == counter:
                number = _literal(other)
                if number is None and _element(other) is not None:
                    number = self._constant(outside, start.operands[_element(other) or 0])
                return number
        return None

    def _constant(self, computation: _Computation, name: str) -> int | None:
        return _literal(_copied(computation, name))


def _copied(computation: _Computation, name: str) -> _Instruction:
    """What a name stands for where nothing but copies lie between."""
    at = computation[name]
    while at.opcode in ("copy", "bitcast", "copy-start", "copy-done"):
        at = computation[at.operands[0]]
    return at


def _literal(at: _Instruction) -> int | None:
    if at.opcode != "constant" or not re.fullmatch(r"-?\d+", at.inside):
        return None
    return int(at.inside)


def _element(at: _Instruction) -> int | None:
    """Which element of the loop's state an instruction takes; None if it takes none."""
    return int(at.attribute("index") or 0) if at.opcode == "get-tuple-element" else None


def _required(at: _Instruction, name: str) -> str:
    value = at.called(name)
    if value is None:
        raise ValueError(f"{at.opcode} {at.name} names no {name}")
    return value


def _only(at: _Instruction) -> _Array | None:
    """The array that an instruction gives; None for a tuple of several."""
    return at.arrays[0] if len(at.arrays) == 1 else None


# -- arithmetic ----------------------------------------------------------------------------------


def _dot_flops(computation: _Computation, at: _Instruction) -> float:
    left = computation[at.operands[0]].arrays[0].shape
    summed = math.prod(left[d] for d in at.dims("lhs_contracting_dims"))
    return 2.0 * math.prod(at.arrays[0].shape) * summed


def _convolution_flops(computation: _Computation, at: _Instruction) -> float:
    """TPU programs write every product as a convolution, batch axes as strided windows."""
    left, kernel = (computation[name].arrays[0].shape for name in at.operands[:2])
    labels = re.match(r"(\w+)_(\w+)->(\w+)", at.attribute("dim_labels") or "")
    if labels is None:
        raise ValueError(f"convolution {at.name} does not say what its axes are")
    lhs, rhs, out = labels.groups()
    result = at.arrays[0].shape
    groups = (at.dims("feature_group_count") or [1])[0]
    batch_groups = (at.dims("batch_group_count") or [1])[0]
    products = left[lhs.index("f")] // groups * result[out.index("f")]
    products *= left[lhs.index("b")] // batch_groups
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", at.attribute("window") or ""))
    for axis in (c for c in lhs if c.isdigit()):
        number = int(axis)
        products *= _meetings(
            left[lhs.index(axis)],
            kernel[rhs.index(axis)],
            result[out.index(axis)],
            **{key: _windowed(window, key, number) for key in ("stride", "lhs_dilate")},
            rhs_dilate=_windowed(window, "rhs_dilate", number),
            low=int(window["pad"].split("x")[number].split("_")[0]) if "pad" in window else 0,
        )
    return 2.0 * products


def _windowed(window: Mapping[str, str], key: str, axis: int) -> int:
    return int(window[key].split("x")[axis]) if key in window else 1


@functools.lru_cache(maxsize=4096)
def _meetings(
    size: int, kernel: int, outputs: int, *, stride: int, lhs_dilate: int, rhs_dilate: int, low: int
) -> int:
    """How many (output, kernel) places along one axis meet an input and not a zero."""
    places = np.arange(outputs)[:, None] * stride + np.arange(kernel) * rhs_dilate - low
    inside = (places >= 0) & (places < (size - 1) * lhs_dilate + 1) & (places % lhs_dilate == 0)
    return int(inside.sum())


# -- memory --------------------------------------------------------------------------------------


def _bytes_moved(computation: _Computation, at: _Instruction) -> float:
    if at.opcode in _FREE or at.opcode.endswith(("-done", "-update")):
        return 0.0
    if (
        at.opcode == "custom-call"
        and (at.attribute("custom_call_target") or "").strip('"') in _SILENT_CALLS
    ):
        return 0.0
    read = _hbm_of(computation, at.operands)
    if at.opcode.endswith("-start"):
        # (operand, result, …), but a copy's result comes first.
        own = at.arrays
        result = own[0] if at.opcode == "copy-start" else own[1] if len(own) > 1 else own[0]
        if at.opcode == "slice-start":
            return result.hbm_bytes + result.bytes
        return read + result.hbm_bytes
    written = sum(array.hbm_bytes for array in at.arrays)
    if at.opcode in ("slice", "dynamic-slice", "gather"):
        return 2 * written
    if at.opcode in ("dynamic-update-slice", "scatter"):
        update = at.operands[1] if at.opcode == "dynamic-update-slice" else at.operands[-1]
        return 2 * _hbm_of(computation, [update])
    if at.opcode in ("broadcast", "iota"):
        return written
    return read + written


def _hbm_of(computation: _Computation, names: Iterable[str]) -> float:
    """Bytes in main memory of arrays; tuples are handles and count where their parts are used."""
    arrays = (_only(computation[name]) for name in names if name in computation)
    return sum(array.hbm_bytes for array in arrays if array is not None)


# What these do with an operand is no reading of it.
_PASSED_ON = {"tuple", "custom-call"}


def _read_bytes(
    parameter: _Instruction, users: Mapping[str, list[_Instruction]], whole: float
) -> float:
    """What a fusion reads of an operand: slices of it, if nothing else looks at it."""
    total = 0.0
    for name, user in _users_past_bitcasts(parameter.name, users):
        first = user.operands[0] == name
        if user.opcode in ("dynamic-slice", "slice", "gather") and first:
            total += _only_bytes(user)
        elif user.opcode == "dynamic-update-slice" and first:
            continue  # what is written over is not read
        elif user.opcode in _PASSED_ON or user.opcode.removesuffix("-start") in COLLECTIVES:
            continue
        else:
            return whole
    return min(total, whole)


def _users_past_bitcasts(
    name: str, users: Mapping[str, list[_Instruction]]
) -> Iterator[tuple[str, _Instruction]]:
    """Who takes a value, and under which name."""
    for user in users.get(name, []):
        if user.opcode == "bitcast":
            yield from _users_past_bitcasts(user.name, users)
        else:
            yield name, user


def _written_bytes(fused: _Computation, result: _Instruction, array: _Array) -> float:
    while result.opcode in ("bitcast", "copy") and result.operands[0] in fused:
        result = fused[result.operands[0]]
    if result.opcode == "dynamic-update-slice":
        return _only_bytes(fused[result.operands[1]])
    if result.opcode == "parameter" or result.opcode in COLLECTIVES:
        return 0.0  # handed on; a collective counts where it is counted
    return array.bytes


def _only_bytes(at: _Instruction) -> float:
    return sum(array.bytes for array in at.arrays)


# -- collectives ---------------------------------------------------------------------------------


def _traffic(
    computation: _Computation, at: _Instruction, scattered: bool
) -> tuple[str, Collective]:
    put_in = sum(
        sum(array.bytes for array in computation[name].arrays)
        for name in at.operands
        if name in computation
    )
    got_out = sum(array.bytes for array in at.arrays)
    kind = at.opcode.removesuffix("-start")
    if kind == "all-reduce" and scattered:
        kind = "reduce-scatter"
    if at.opcode.endswith("-start") and kind != "all-reduce":
        got_out -= put_in  # the result of a start names its operands too
    bytes_ = max(put_in, got_out)
    if kind == "collective-permute":
        return kind, Collective(1, bytes_, bytes_)
    others = 1 - 1 / _group_size(at)
    return kind, Collective(1, bytes_, bytes_ * others * (2 if kind == "all-reduce" else 1))


def _group_size(at: _Instruction) -> int:
    """Chips that take part together: groups are lists, `[groups,size]<=…`, or axes of a mesh."""
    found = re.search(r"replica_groups=(\S.*?)(?:, [a-z_]+=|$)", at.attributes)
    text = found.group(1) if found else ""
    listed = re.match(r"\{\{([\d,]+)\}", text)
    if listed:
        return len(listed.group(1).split(","))
    rows = re.match(r"\[(\d+),(\d+)\]<=", text)
    if rows:
        return int(rows.group(2))
    axes = re.match(r"mesh\[(.*?)\].*?\{(.*?)\}", text)
    if axes:
        sizes = {name: int(size) for name, size in re.findall(r"'([\w.]+)'=(\d+)", axes.group(1))}
        # A part of an axis is written 'axis':(before)size.
        parts = re.findall(r"'([\w.]+)'(?::\(\d+\)(\d+))?", axes.group(2))
        return math.prod(int(part) if part else sizes[name] for name, part in parts)
    raise ValueError(f"{at.opcode} {at.name} does not say which chips take part: {text[:60]}")
