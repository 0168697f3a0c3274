"""An index of finished stages: what readers need of all of them, in a few files.

The stages' folders are the truth (`sweeps.finished`). An entry of the index is what one complete
reading of a stage's folder gave, checksums included, and it is used only while the records in the
folder are those that were read. Whatever is not in the index is read from its folder, and put
into it; so it may be missing, damaged or behind, and no answer is another one.

How it is known that a stage is still what was read:

- On a disk, by the number, size and time of change of its four records (`objects.file_version`).
  That time cannot be set, so a file that was written over, replaced or restored has another one,
  and so has every file of a copied store. All stages asked for are looked at like that when a
  process looks first, and whenever `Index.done` is asked.
- Behind a URL, by the bytes of its `done.json`, which has the checksums of the others. Whether
  those are there is known where they are read, and by `mm1 fsck`.

A process that looks again and again, such as the dashboard, looks, of those that it asks for, at
these alone: stages without a result, stages that were ever set aside, stages in a folder
`stages/<xx>/` in which one was made or removed, and in turn a part of all others. So it may take
`TURNS` looks until it notices that somebody deleted or changed single files of a stage by hand.

    index/<form>-<checksum>.stages      one line a stage, and the rows of its scores
    index/<form>-<checksum>.curves      the rows of its training, which drawing alone needs
    index/plans.json                    which tasks a registered plan scores

A file of the index is named by the checksum of its bytes and never changes, so that many
processes may write at once and be killed at any moment: what is torn does not match its name, and
what two have written is there twice. Whoever writes takes smaller files into its own. They lie in
the store's local folder, or in the local cache where that may not be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import UserError
from ablations.no_collection import no_collection
from ablations.schema import Config
from ablations.workload import TRAINING
from sweeps.finished import (
    COLUMNS,
    Result,
    read_done,
    read_results,
    schema,
    stage_key,
)
from sweeps.objects import (
    LocalObjects,
    Objects,
    file_version,
    file_versions,
    local_cache,
    make_private,
)
from sweeps.records import (
    ALWAYS_THERE,
    TIMELINE,
    Done,
    UnreadableError,
    once_seconds,
    read_record,
    sealed,
)

if TYPE_CHECKING:
    import numpy
    import pandas
    import pyarrow

VERSION = 1  # of what is computed of a stage; another one, or other columns, is another form
SAVED_FROM = 128  # stages that are not in the index yet; fewer are read again
SAVED_AT = 8_192  # stages in memory that are written before more are read
LARGEST = 20_000  # stages of a file that is taken into another one
KEPT = 8  # answers that a process keeps, in case it is asked again
CHUNK = 512  # stages that are read at once
# A process looks at each stage once in so many looks, and at more as soon as something hints at it.
TURNS = 64
TURNS_REMOTE = 256  # of a store behind a URL, where every stage is a request
# A folder that was changed less long ago may change again without another time of change.
SETTLED_SECONDS = 2.0
PLANS = "plans.json"
LEFT_SECONDS = 3600.0  # a file that nobody needs and is older was left by somebody killed
FORMER_SECONDS = 7 * 24 * 3600.0  # files of another form are another version's, which may be in use

_UNKNOWN = "unknown"  # version of a folder that is to be listed anew
_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{64})\.(stages|curves)")


@dataclass(frozen=True, eq=False)
class Segment:
    """Some finished stages, as they were read.

    stages  one line a stage: `stage`, `stamp` (what its records were when it was read), `attempt`,
            `finished_at`, `seconds`, `once_seconds`, `shared` and `own` (the two parts of its
            execution record but for its `TIMELINE`, as JSON), `diverged`, `has_rows`,
            `is_repeated` (a number of it is there twice)
    scores  rows of the long result table but those of training, columns as in `finished.COLUMNS`
    """

    stages: pyarrow.Table
    scores: pyarrow.Table
    _curves: pyarrow.Table | None = None
    place: Path | None = None  # its file of stages, if it is in one

    def curves(self) -> pyarrow.Table | None:
        """The rows of training; None where their file is gone or damaged."""
        if self._curves is not None or self.place is None:
            return self._curves
        data = _read_checked(self.place.with_name(_curves_name(self.stages) or "none"))
        return None if data is None else _tables(data, 1)[0]


@dataclass(frozen=True, eq=False)
class Finished:
    """What a store holds of some stages, as one look found it."""

    sound: frozenset[str]  # that have a result which can be read
    damaged: Mapping[str, str]  # that have one which cannot → what is wrong with it
    begun: frozenset[str]  # that have none, and may have been tried
    _parts: tuple[tuple[Segment, numpy.ndarray | None], ...]  # lines of its stages; None: all
    _read: Any = field(repr=False)  # reads rows of stages from their folders

    @cached_property
    def stages(self) -> pandas.DataFrame:
        """By `stage`, the sound ones: columns as in `Segment.stages`."""
        import pandas
        import pyarrow

        tables = [_taken(segment.stages, lines) for segment, lines in self._parts]
        table = pyarrow.concat_tables([_stages_schema().empty_table(), *tables])
        stages = table.drop_columns(["stamp"]).to_pandas()
        names = stages.pop("stage").astype(object)  # of which a Python text costs nothing
        return stages.set_index(pandas.Index(names, name="stage"))

    @cached_property
    def whole(self) -> frozenset[str]:
        """The sound stages that have rows, and each number once."""
        stages = self.stages
        return frozenset(stages.index[stages["has_rows"] & ~stages["is_repeated"]])

    @cached_property
    def scores(self) -> pandas.DataFrame:
        """The rows of the sound stages but those of training; columns as in `COLUMNS`."""
        return _frame([_owned(s.scores, s, lines) for s, lines in self._parts])

    def curves(self, metric: str | None = None) -> pandas.DataFrame:
        """The rows of training of the sound stages, of one metric or all; read when asked for."""
        from pyarrow.compute import field as column

        tables = self._curve_rows()
        if metric is not None:
            tables = (rows.filter(column("metric") == metric) for rows in tables)
        return _frame(list(tables))

    def curve_metrics(self) -> list[str]:
        """The metrics that the sound stages have by step, by name."""
        return sorted(
            {name for rows in self._curve_rows() for name in rows["metric"].unique().to_pylist()}
        )

    def _curve_rows(self) -> Iterator[pyarrow.Table]:
        """The rows of training of the sound stages, part by part."""
        for segment, lines in self._parts:
            rows = segment.curves()
            if rows is None:  # of the index alone: the folders have them
                owners = _taken(segment.stages, lines)["stage"].to_pylist()
                yield _part(self._read(owners), training=True)
            else:
                yield _owned(rows, segment, lines)

    @cached_property
    def executions(self) -> dict[str, dict[str, Any]]:
        """Stage → its execution record."""
        shared = {text: json.loads(text) for text in self.stages["shared"].unique()}
        return {
            stage: {**shared[common], **json.loads(own)}
            for stage, common, own in zip(
                self.stages.index, self.stages["shared"], self.stages["own"], strict=True
            )
        }


class Index:
    """The index of a store, as this process knows it; for many threads.

    Its files are read and written, or not: without them all comes from the stages' folders.
    """

    def __init__(self, objects: Objects, *, reads: bool = True, writes: bool = True):
        self._objects, self._reads, self._writes = objects, reads, writes
        self._is_local = objects.local == Path(objects.root)
        self._lock = threading.Lock()
        self._files: frozenset[Path] = frozenset()  # of the index, as they were seen last
        self._segments: list[Segment] = []
        self._alive: list[int] = []  # lines of each that nothing newer stands for
        self._unsaved: list[int] = []  # numbers of segments
        self._known: dict[str, dict[int, tuple[int, int]]] = {}  # stage → stamp → segment, line
        self._attempts: dict[str, set[str]] = {}  # stage → attempts that are known
        self._sound: dict[str, tuple[int, int]] = {}  # as of the last look → segment, line
        self._damaged: dict[str, str] = {}
        self._suspected: set[str] = set()  # sound ones that are looked at when they are asked for
        self._folders: dict[str, tuple[Any, frozenset[str]]] = {}  # stages/<xx> → version, names
        self._looks = 0
        self._changes = 0
        self._last: list[tuple[Any, Any, Finished]] = []  # of the stages asked for lately
        self._by_folder: list[tuple[Any, dict[str, list[str]]]] = []

    # -- looking -----------------------------------------------------------------------------

    @no_collection()
    def look(self, stage_ids: Collection[str], objects: Objects | None = None) -> Finished:
        """What the store holds of these stages now.

        Asked again with the same collection, which nobody changes, the same object while nothing
        is found to have changed.

        Raises `UserError` for what is no identity, `OSError` where the storage does not answer.
        """
        with self._lock:
            self._objects = objects or self._objects
            self._load()
            self._looks += 1
            begun = self._check(stage_ids)
            if self._waiting() >= SAVED_FROM:
                self._save()
            state = (self._changes, begun)
            for asked, earlier, found in self._last:
                if asked is stage_ids and earlier == state:
                    return found
            found = self._finished(stage_ids, begun)
            others = [one for one in self._last if one[0] is not stage_ids]
            self._last = [*others[1 - KEPT :], (stage_ids, state, found)]
            return found

    @no_collection()
    def done(self, stage_ids: Collection[str], objects: Objects | None = None) -> set[str]:
        """Those that have a result, each looked at now. Their results are not read."""
        with self._lock:
            self._objects = objects or self._objects
            self._load()
            stage_ids = list(dict.fromkeys(stage_ids))
            found = set(self._unchanged(stage_ids))
            rest = [one for one in stage_ids if one not in found]
            for chunk in _chunks(self._that_have_folders(rest) if self._is_local else rest):
                records = read_done(self._objects, chunk)
                found |= {one for one, record in records.items() if isinstance(record, Done)}
            return found

    def _that_have_folders(self, stage_ids: list[str]) -> list[str]:
        """On a disk: a study that begins asks for many stages of which there is nothing."""
        there = {
            one
            for folder in {stage_key(stage_id).rpartition("/")[0] for stage_id in stage_ids}
            for one in self._objects.children(folder)
        }
        return [one for one in stage_ids if one in there]

    def _check(self, stage_ids: Collection[str]) -> frozenset[str]:
        """Look at what may have changed; the stages without a result that may have been tried."""
        self._suspected |= self._sound.keys() & set(self._objects.children("damaged"))
        turns = TURNS if self._is_local else TURNS_REMOTE
        turn = {f"{number:02x}" for number in range(self._looks % turns, 256, turns)}
        missing: list[str] = []
        if self._is_local:
            for folder in turn:
                self._folders[folder] = _UNKNOWN, self._folders.get(folder, (None, frozenset()))[1]
            for folder, members in self._grouped(stage_ids).items():
                names = self._names(folder)
                missing += [one for one in members if one not in self._sound and one in names]
        else:
            self._suspected |= {one for one in self._sound if one[:2] in turn}
            missing += [one for one in stage_ids if one not in self._sound]
        asked = stage_ids if isinstance(stage_ids, Set | Mapping) else set(stage_ids)
        again = {one for one in self._suspected if one in asked and one in self._sound}
        self._look_at([*missing, *again])
        self._suspected -= again  # not before: the storage may not have answered
        lost = again.difference(self._sound)
        return frozenset(
            one for one in (*missing, *lost) if one not in self._sound and one not in self._damaged
        )

    def _grouped(self, stage_ids: Collection[str]) -> dict[str, list[str]]:
        """By the folder that they are in."""
        for asked, found in self._by_folder:
            if asked is stage_ids:
                return found
        made: dict[str, list[str]] = {}
        for stage_id in stage_ids:
            made.setdefault(stage_key(stage_id)[7:9], []).append(stage_id)
        self._by_folder = [*self._by_folder[1 - KEPT :], (stage_ids, made)]
        return made

    def _names(self, folder: str) -> frozenset[str]:
        """The stages' folders in `stages/<folder>`.

        Where they may not be those of the last look, what was sound there is suspected.
        """
        try:
            version = file_version(self._objects.local / "stages" / folder)
            settled = abs(time.time() - version[2] / 1e9) > SETTLED_SECONDS
        except (FileNotFoundError, NotADirectoryError):
            version, settled = None, True
        before, names = self._folders.get(folder, (_UNKNOWN, frozenset()))
        if before == version:
            return names
        now = frozenset(self._objects.children(f"stages/{folder}")) if version else frozenset()
        self._folders[folder] = version if settled else _UNKNOWN, now
        self._forget(names - now)
        self._suspected |= now & self._sound.keys()
        return now

    def _look_at(self, stage_ids: list[str]) -> None:
        """Take up what these stages are now, from the index where it has just that."""
        unchanged = self._unchanged(stage_ids)
        self._take_up(unchanged)
        for chunk in _chunks([one for one in stage_ids if one not in unchanged]):
            self._read(chunk)

    def _take_up(self, stamps: Mapping[str, int]) -> None:
        """These stages are what the index knows under these stamps."""
        sound, known, damaged = self._sound, self._known, self._damaged
        for stage_id, stamp in stamps.items():
            place = known[stage_id][stamp]
            if sound.get(stage_id) != place:
                sound[stage_id] = place
                self._changes += 1
            if damaged.pop(stage_id, None) is not None:
                self._changes += 1

    def _unchanged(self, stage_ids: list[str]) -> dict[str, int]:
        """Those whose records are what the index knows → what they are."""
        found: dict[str, int] = {}
        if not self._is_local:
            return found
        folders: dict[str, list[str]] = {}
        for stage_id in stage_ids:
            if stage_id in self._attempts:
                folders.setdefault(stage_id[:2], []).append(stage_id)
        for name, own in folders.items():
            try:  # what lies below an open folder is found in two thirds of the time
                folder = os.open(self._objects.local / "stages" / name, os.O_RDONLY)
            except OSError:
                continue
            try:
                for stage_id in own:
                    known = self._known[stage_id]
                    for attempt in self._attempts[stage_id]:
                        stamp = _stamp(stage_id, attempt, folder=folder)
                        if stamp in known:
                            found[stage_id] = stamp
                            break
            finally:
                os.close(folder)
        return found

    def _forget(self, stage_ids: Iterable[str]) -> None:
        for stage_id in stage_ids:
            gone = self._sound.pop(stage_id, None), self._damaged.pop(stage_id, None)
            self._changes += gone != (None, None)

    def _read(self, stage_ids: list[str]) -> None:
        """Read stages from their folders."""
        objects = self._objects
        before: dict[str, Any] = {}
        if self._is_local:
            for stage_id in stage_ids:
                with contextlib.suppress(OSError):
                    before[stage_id] = file_version(objects.local / _done_key(stage_id))
        records = read_done(objects, stage_ids)
        stamps: dict[str, int | None] = {}
        for stage_id, record in list(records.items()):
            if isinstance(record, Done):
                if self._is_local:
                    place = f"{objects.local}/{stage_key(stage_id)}"
                    stamp = _stamp(place, record.attempt, before.get(stage_id))
                else:
                    stamp = _stamp_of(record.model_dump_json().encode())
                    if stamp in self._known.get(stage_id, ()):
                        self._take_up({stage_id: stamp})
                        del records[stage_id]
                stamps[stage_id] = stamp
        self._forget(one for one in stage_ids if one not in records and one not in stamps)
        results = read_results(
            objects, {one: record for one, record in records.items() if isinstance(record, Done)}
        )
        good = {one: made for one, made in results.items() if isinstance(made, Result)}
        for stage_id, wrong in {**records, **results}.items():
            if isinstance(wrong, UnreadableError):
                self._changes += self._damaged.get(stage_id) != str(wrong)
                self._damaged[stage_id] = str(wrong)
                self._changes += self._sound.pop(stage_id, None) is not None
        # Without a stamp it was being changed, and is read again at the next look.
        for kept in (True, False):
            some = {one: made for one, made in good.items() if bool(stamps[one]) == kept}
            if some:
                segment = _segment({one: (stamps[one] or 0, made) for one, made in some.items()})
                number = self._add(segment)
                if kept:
                    self._unsaved.append(number)
                for line, stage_id in enumerate(some):
                    self._damaged.pop(stage_id, None)
                    self._sound[stage_id] = number, line
                    self._changes += 1
        if self._waiting() >= SAVED_AT:
            self._save()

    def _waiting(self) -> int:
        return sum(len(self._segments[number].stages) for number in self._unsaved)

    def _finished(self, stage_ids: Collection[str], begun: frozenset[str]) -> Finished:
        import numpy

        lines: dict[int, list[int]] = {}
        sound = [one for one in stage_ids if one in self._sound]
        for stage_id in sound:
            number, line = self._sound[stage_id]
            lines.setdefault(number, []).append(line)
        parts = []
        for number, own in lines.items():
            segment = self._segments[number]
            whole = len(own) == len(segment.stages)
            parts.append((segment, None if whole else numpy.sort(numpy.array(own))))
        damaged = {one: self._damaged[one] for one in stage_ids if one in self._damaged}
        return Finished(frozenset(sound), damaged, begun, tuple(parts), self._rows)

    def _rows(self, stage_ids: list[str]) -> pyarrow.Table:
        """The rows of stages from their folders; of those that are gone, none."""
        import pyarrow

        tables = [schema().empty_table()]
        for chunk in _chunks(stage_ids):
            records = read_done(self._objects, chunk)
            sound = {one: record for one, record in records.items() if isinstance(record, Done)}
            for made in read_results(self._objects, sound).values():
                if isinstance(made, UnreadableError):
                    raise made
                tables.append(made.rows)
        return pyarrow.concat_tables(tables, promote_options="default")

    # -- files -------------------------------------------------------------------------------

    @property
    def _places(self) -> list[Path]:
        """Where the index may lie; it is written to the first that can be."""
        own = self._objects.local / "index"
        return [own, local_cache(self._objects.root) / "index"] if self._is_local else [own]

    def _load(self) -> None:
        """Read the files of the index that this process does not know."""
        if not self._reads:
            return
        for _ in range(3):  # others may take a file into theirs at this moment
            files = frozenset(place for folder in self._places for place in _files(folder))
            known = {segment.place for segment in self._segments}
            read = [self._load_file(place) for place in sorted(files - self._files - known)]
            self._files = files
            if all(read):
                return

    def _load_file(self, place: Path) -> bool:
        """Whether a file is as it should be; one that is gone meanwhile is not."""
        data = _read_checked(place)
        if data is None:
            return False
        stages, scores = _tables(data, 2)
        self._add(Segment(stages, scores, place=place))
        return True

    def _add(self, segment: Segment) -> int:
        """Let a segment stand for its stages in the place of earlier ones; its number."""
        number = len(self._segments)
        self._segments.append(segment)
        self._alive.append(0)
        columns = (segment.stages[name].to_pylist() for name in ("stage", "stamp", "attempt"))
        for line, (stage_id, stamp, attempt) in enumerate(zip(*columns, strict=True)):
            if not stamp:
                continue
            self._alive[number] += 1
            stamps = self._known.get(stage_id)
            if stamps is None:
                self._known[stage_id] = {stamp: (number, line)}
                self._attempts[stage_id] = {attempt}
                continue
            earlier = stamps.get(stamp)
            stamps[stamp] = number, line
            self._attempts[stage_id].add(attempt)
            if earlier is not None:
                if self._sound.get(stage_id) == earlier:  # the same in another place
                    self._sound[stage_id] = number, line
                self._let_go(earlier[0])
        return number

    def _let_go(self, number: int) -> None:
        self._alive[number] -= 1
        if not self._alive[number]:
            self._segments[number] = _segment({})

    def _save(self) -> None:
        """Write what is new, together with files that are not much larger."""
        if not self._writes:
            return
        taken = {number: self._segments[number].curves() for number in self._unsaved}
        size = self._waiting()
        self._unsaved = []
        for number in sorted(
            range(len(self._segments)), key=lambda n: len(self._segments[n].stages)
        ):
            one = self._segments[number]
            if one.place is not None and len(one.stages) <= min(2 * size, LARGEST):
                curves = one.curves()
                if curves is not None:
                    taken[number] = curves
                    size += len(one.stages)
        places = [self._segments[number].place for number in taken]
        merged, curves = self._merged(taken)
        for folder in self._places:
            made = _written(folder, merged, curves)
            if made is not None:
                self._add(made)
                for place in places:
                    if place is not None:
                        _removed(place)
                _cleaned(folder)
                return

    def _merged(self, taken: Mapping[int, Any]) -> tuple[Segment, pyarrow.Table]:
        """One segment of several (number → curves), and its curves: of each stage what this
        process knows it by."""
        import numpy

        parts: list[list[Any]] = [[], [], []]
        for number, curves in taken.items():
            segment = self._segments[number]
            columns = (segment.stages[name].to_pylist() for name in ("stage", "stamp"))
            lines = []
            for line, (stage_id, stamp) in enumerate(zip(*columns, strict=True)):
                here = number, line
                if self._known[stage_id].get(stamp) != here:
                    continue
                if self._sound.get(stage_id, here) == here:
                    lines.append(line)
                else:  # it has become another one
                    del self._known[stage_id][stamp]
                    self._let_go(number)
            kept = numpy.array(lines, dtype=numpy.int64)
            parts[0].append(segment.stages.take(kept))
            parts[1].append(_owned(segment.scores, segment, kept))
            parts[2].append(_owned(curves, segment, kept))
        stages, scores, together = map(_together, parts)
        return Segment(stages, scores), together


# -- plans -------------------------------------------------------------------------------------


class Scored(Config):
    """Which tasks the registered plans of a store score, as they were when they were read."""

    schema_version: int = 1
    plans: dict[str, tuple[str, tuple[str, ...]]]  # key → version of its bytes, tasks


def read_scored(objects: Objects) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What is on record; nothing where that is damaged or missing."""
    try:
        return dict(read_record(LocalObjects(objects.local / "index"), PLANS, Scored).plans)
    except (OSError, UserError):
        return {}


def write_scored(objects: Objects, plans: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
    """Put it on record, where the store may be written; whoever comes last stands."""
    with contextlib.suppress(OSError, UserError):
        record = sealed(Scored(plans=dict(plans)))
        LocalObjects(objects.local / "index").write(PLANS, record)


# -- tables ------------------------------------------------------------------------------------


def _stages_schema() -> pyarrow.Schema:
    import pyarrow

    text = pyarrow.string()
    return pyarrow.schema(
        [
            ("stage", text),
            ("stamp", pyarrow.int64()),
            ("attempt", text),
            ("finished_at", text),
            ("seconds", pyarrow.float64()),
            ("once_seconds", pyarrow.float64()),
            ("shared", text),
            ("own", text),
            ("diverged", pyarrow.bool_()),
            ("has_rows", pyarrow.bool_()),
            ("is_repeated", pyarrow.bool_()),
        ]
    )


def _segment(found: Mapping[str, tuple[int, Result]]) -> Segment:
    """Of stage → its stamp and what was read."""
    import pyarrow

    lines = []
    for stage_id, (stamp, result) in found.items():
        execution = {key: one for key, one in result.execution.items() if key != TIMELINE}
        own = {key: value for key, value in execution.items() if _is_own(key)}
        shared = {key: value for key, value in execution.items() if key not in own}
        lines.append(
            {
                "stage": stage_id,
                "stamp": stamp,
                "attempt": result.done.attempt,
                "finished_at": result.done.finished_at,
                "seconds": float(result.execution["seconds"]),
                "once_seconds": once_seconds(result.execution),
                "shared": json.dumps(shared, sort_keys=True),
                "own": json.dumps(own, sort_keys=True),
                "diverged": "diverged" in result.rows["status"].to_pylist(),
                "has_rows": len(result.rows) > 0,
                "is_repeated": _is_repeated(result.rows),
            }
        )
    rows = pyarrow.concat_tables(
        [schema().empty_table(), *(result.rows for _, result in found.values())],
        promote_options="default",
    )
    scores, curves = (_coded(_part(rows, training=is_training)) for is_training in (False, True))
    return Segment(pyarrow.Table.from_pylist(lines, schema=_stages_schema()), scores, curves)


def _is_own(key: str) -> bool:
    """Whether a part of an execution record is another one in each stage."""
    return key == "attempt" or key.endswith(("seconds", "_at"))


def _is_repeated(rows: pyarrow.Table) -> bool:
    keys = rows.select(["task", "metric", "shots", "condition", "split", "step"]).to_pydict()
    numbers = list(zip(*keys.values(), strict=True))
    return len(set(numbers)) < len(numbers)


def _part(rows: pyarrow.Table, *, training: bool) -> pyarrow.Table:
    from pyarrow.compute import field as column

    is_training = column("task") == TRAINING
    return rows.filter(is_training if training else ~is_training).combine_chunks()


def _coded(rows: pyarrow.Table) -> pyarrow.Table:
    """The same with each text once."""
    import pyarrow

    for number, column in enumerate(rows.schema):
        if column.type == pyarrow.string():
            rows = rows.set_column(number, column.name, rows[column.name].dictionary_encode())
    return rows


def _together(tables: list[pyarrow.Table]) -> pyarrow.Table:
    import pyarrow

    return pyarrow.concat_tables(tables).unify_dictionaries().combine_chunks()


def _taken(table: pyarrow.Table, lines: numpy.ndarray | None) -> pyarrow.Table:
    return table if lines is None else table.take(lines)


def _owned(rows: Any, segment: Segment, lines: Any) -> pyarrow.Table:
    """Those rows that are of some lines of a segment's stages."""
    import pyarrow
    from pyarrow.compute import field as column

    if lines is None:
        return rows
    owners = segment.stages["stage"].take(lines)
    values = pyarrow.array(owners.to_pylist(), owners.type)
    return rows.filter(column("stage").cast(owners.type).isin(values))


def _frame(tables: list[pyarrow.Table]) -> pandas.DataFrame:
    import pyarrow

    plain = [table.select(list(COLUMNS)).cast(schema()) for table in tables]
    return pyarrow.concat_tables([schema().empty_table(), *plain]).to_pandas()


# -- bytes -------------------------------------------------------------------------------------


def _stamp(place: str, attempt: str, done: Any = None, *, folder: int | None = None) -> int | None:
    """What a stage's records are; None where one is missing.

    `place` is the stage's folder, below an open `folder` if there is one; `done` what its record of
    the attempt was, if that is known.
    """
    records = [f"{place}/{attempt}/{name}" for name in ALWAYS_THERE]
    if done is None:
        records.insert(0, f"{place}/done.json")
    try:
        versions = file_versions(records, folder)
    except OSError:
        return None
    return _stamp_of(*versions) if done is None else _stamp_of(done, *versions)


def _stamp_of(*facts: Any) -> int:
    """A number for what a stage's records are, numbers or bytes; never 0."""
    if isinstance(facts[0], bytes):
        digest = hashlib.sha256(facts[0]).digest()[:8]
        return int.from_bytes(digest, signed=True) or 1
    return hash(facts) or 1  # of numbers it is the same in every process


def _form() -> str:
    """What files that mean the same as ours have before their names."""
    columns = (VERSION, str(_stages_schema()), str(schema()))
    return hashlib.sha256(repr(columns).encode()).hexdigest()[:8]


def _written(folder: Path, segment: Segment, curves: pyarrow.Table) -> Segment | None:
    """A segment as it lies in files; None where they cannot be written."""
    try:
        make_private(folder.parent)
        folder.mkdir(exist_ok=True)
        # No two files of rows are the same: who takes one in removes it.
        rows = curves.replace_schema_metadata({"written": uuid.uuid4().hex})
        name = _put(folder, _streams(rows), "curves").name
        stages = segment.stages.replace_schema_metadata({"curves": name})
        place = _put(folder, _streams(stages, segment.scores), "stages")
    except OSError:  # full, or not ours to write
        return None
    return Segment(stages, segment.scores, place=place)


def _put(folder: Path, data: bytes, kind: str) -> Path:
    place = folder / f"{_form()}-{hashlib.sha256(data).hexdigest()}.{kind}"
    temporary = folder / f".{uuid.uuid4().hex}"
    try:
        temporary.write_bytes(data)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    return place


def _streams(*tables: Any) -> bytes:
    import pyarrow.ipc

    data = io.BytesIO()
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    for table in tables:
        with pyarrow.ipc.new_stream(data, table.schema, options=options) as stream:
            stream.write_table(table)
    return data.getvalue()


def _tables(data: bytes, count: int) -> list[pyarrow.Table]:
    import pyarrow
    import pyarrow.ipc

    source = pyarrow.BufferReader(data)
    return [pyarrow.ipc.open_stream(source).read_all() for _ in range(count)]


def _read_checked(place: Path) -> bytes | None:
    """The bytes of a file that is named by them; None where it is gone or damaged."""
    named = _NAME.fullmatch(place.name)
    try:
        data = place.read_bytes()
    except OSError:
        return None
    return data if named and hashlib.sha256(data).hexdigest() == named[2] else None


def _files(folder: Path) -> Iterator[Path]:
    """The files of stages of an index that this version reads."""
    with contextlib.suppress(OSError):
        for place in folder.iterdir():
            found = _NAME.fullmatch(place.name)
            if found and found[3] == "stages" and found[1] == _form():
                yield place


def _curves_name(stages: pyarrow.Table) -> str:
    return (stages.schema.metadata or {}).get(b"curves", b"").decode()


def _removed(place: Path) -> None:
    """Remove the files of a segment that another one has taken in."""
    data = _read_checked(place)
    with contextlib.suppress(OSError):
        place.unlink(missing_ok=True)
        if data is not None:
            place.with_name(_curves_name(_tables(data, 1)[0])).unlink(missing_ok=True)


def _cleaned(folder: Path) -> None:
    """Remove what nobody reads: damaged files, and what killed processes and versions left."""
    needed, form = set(), _form()
    for place in _files(folder):
        data = _read_checked(place)
        if data is not None:
            needed |= {place.name, _curves_name(_tables(data, 1)[0])}
    for place in folder.iterdir():
        named = _NAME.fullmatch(place.name)
        least = FORMER_SECONDS if named and named[1] != form else LEFT_SECONDS
        if place.name not in needed and (named or place.name.startswith(".")):
            with contextlib.suppress(OSError):
                if time.time() - place.stat().st_mtime > least:
                    place.unlink()


def _done_key(stage_id: str) -> str:
    return f"{stage_key(stage_id)}/done.json"


def _chunks(stage_ids: Collection[str]) -> Iterator[list[str]]:
    ids = list(stage_ids)
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


def differing(objects: Objects, stage_ids: Collection[str]) -> set[str]:
    """Stages of which the index's files say something else than their folders do."""
    saved = Index(objects, writes=False)
    found: set[str] = set()
    for chunk in _chunks(stage_ids):
        views = [index.look(chunk) for index in (saved, Index(objects, reads=False, writes=False))]
        said = [
            {tuple(line) for frame in frames for line in frame.astype(str).itertuples(index=False)}
            for frames in ((v.stages.reset_index(), v.scores, v.curves()) for v in views)
        ]
        odd = {text for line in said[0] ^ said[1] for text in line}
        found |= odd.intersection(chunk)
    return found
