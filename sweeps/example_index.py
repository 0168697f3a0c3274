"""An index of stored examples: what was asked and answered in all stages, in a few files.

As `sweeps.index`, of which this is the other half: the stages' folders are the truth, an entry is
what one complete reading of a stage's `examples.parquet` gave, its checksum included, and whatever
is not in the index is read from its folder and put into it. It may be missing, damaged or behind,
and no answer is another one. An entry counts while the stage's result is the attempt that was read
and, on a disk, its file the very one by number, size and time of change.

    index/<form>-<checksum>.examples     a line a stage, and its examples, each text once

The files are not compressed: they are mapped, and cost memory only where they are looked at. The
bytes of images are not in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sweeps.finished import file_of, read_done, stage_key
from sweeps.objects import Objects, file_version, local_cache, make_private
from sweeps.records import Done, UnreadableError

if TYPE_CHECKING:
    import numpy
    import pyarrow

VERSION = 1  # of what is kept of an example; another one, or other columns, is another form
EXAMPLES = "output/examples.parquet"
SAVED_FROM = 64  # stages that are not in the index yet; fewer are read again
SAVED_AT = 2_048  # stages in memory that are written before more are read
FILES = 8  # of the index; more are made one
CHUNK = 256  # stages that are read at once
SEPARATOR = "\x1f"  # between the references of one example
TEXTS = ("item_id", "prompt", "prediction", "references", "image_file")
NUMBERS = ("image_id", "score", "weight")
_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{64})\.examples")

Read = Callable[[int, int], None]  # stages that were read so far, of how many


class _Entry(NamedTuple):
    """Where a stage's examples are: lines `first` to `first + count` of a segment."""

    segment: int
    first: int
    count: int
    attempt: str
    stamp: int  # of its file; 0: it keeps none
    has_images: bool  # keeps the bytes of its images itself


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of some stages, as one look found them.

    rows     an example a line, those of a stage one after another; `TEXTS` by number of the text,
             `NUMBERS`. Scores and weights are float64, `image_id` is -1 where there is no image,
             several `references` have `SEPARATOR` between them
    places   stage → its first line, and how many; only of stages that keep some
    images   stages that keep the bytes of their images beside them
    damaged  stages whose examples are left out → what is wrong with them
    """

    rows: pyarrow.Table
    places: Mapping[str, tuple[int, int]]
    images: frozenset[str]
    damaged: Mapping[str, str]


class ExampleIndex:
    """The examples of a store, as this process knows them; for many threads."""

    def __init__(self, objects: Objects, *, reads: bool = True, writes: bool = True):
        self._objects, self._reads, self._writes = objects, reads, writes
        self._is_local = objects.local == Path(objects.root)
        self._lock = threading.Lock()
        self._segments: list[pyarrow.Table] = []
        self._files: dict[Path, int] = {}  # file of the index → number of its segment
        self._entries: dict[str, _Entry] = {}
        self._unsaved: list[str] = []  # stages
        self._damaged: dict[str, tuple[str, int, str]] = {}  # → attempt, stamp, what is wrong

    def look(self, attempts: Mapping[str, str], told: Read = lambda read, of: None) -> Examples:
        """The examples of finished stages (stage → the attempt that won) as they are now.

        Raises `OSError` where the storage does not answer.
        """
        with self._lock:
            self._load()
            missing, stamps = self._check(attempts)
            told(len(attempts) - len(missing), len(attempts))
            for start in range(0, len(missing), CHUNK):
                self._read(missing[start : start + CHUNK], attempts, stamps)
                told(len(attempts) - len(missing) + start + CHUNK, len(attempts))
                if len(self._unsaved) >= SAVED_AT:
                    self._save()
            if len(self._unsaved) >= SAVED_FROM:
                self._save()
            return self._found(attempts)

    # -- looking -----------------------------------------------------------------------------

    def _check(self, attempts: Mapping[str, str]) -> tuple[list[str], dict[str, int]]:
        """Stages that are to be read, and what the file of each stage is."""
        stamps: dict[str, int] = {}
        missing = []
        for stage, attempt in attempts.items():
            stamp = stamps[stage] = self._stamp(stage, attempt)
            entry, damaged = self._entries.get(stage), self._damaged.get(stage)
            known = entry is not None and (entry.attempt, entry.stamp) == (attempt, stamp)
            if not known and (damaged is None or damaged[:2] != (attempt, stamp)):
                missing.append(stage)
        return missing, stamps

    def _stamp(self, stage: str, attempt: str) -> int:
        if not self._is_local:
            return 1
        place = f"{self._objects.root}/{stage_key(stage)}/{attempt}/{EXAMPLES}"
        try:
            return hash(file_version(place)) or 1
        except OSError:
            return 0

    def _read(
        self, stages: list[str], attempts: Mapping[str, str], stamps: Mapping[str, int]
    ) -> None:
        """Read stages from their folders."""
        records = read_done(self._objects, stages)
        tables: dict[str, pyarrow.Table] = {}
        images: set[str] = set()
        wrong: dict[str, str] = {}
        keys = {
            stage: f"{stage_key(stage)}/{record.attempt}/{EXAMPLES}"
            for stage, record in records.items()
            if isinstance(record, Done) and EXAMPLES in record.files
        }
        for stage in stages:
            record = records.get(stage)
            if isinstance(record, UnreadableError):
                wrong[stage] = str(record)
            elif record is None or stage not in keys:
                tables[stage] = _empty()
            else:
                answer = self._objects.read_each([keys[stage]])[keys[stage]]
                try:
                    data = file_of(self._objects, stage, record, EXAMPLES, answer)
                    tables[stage], has_images = _parsed(stage, data)
                    images |= {stage} if has_images else set()
                except UnreadableError as error:
                    wrong[stage] = str(error)
        for stage, text in wrong.items():
            self._entries.pop(stage, None)
            self._damaged[stage] = attempts[stage], stamps[stage], text
        # Where there is another attempt by now, or a file that was being changed, it is read again.
        whole = {
            stage: table
            for stage, table in tables.items()
            if stamps[stage] == self._stamp(stage, attempts[stage])
        }
        first, number = 0, len(self._segments)
        self._segments.append(_coded(_joined(list(whole.values()))))
        for stage, table in whole.items():
            self._damaged.pop(stage, None)
            self._entries[stage] = _Entry(
                number, first, len(table), attempts[stage], stamps[stage], stage in images
            )
            self._unsaved.append(stage)
            first += len(table)

    def _found(self, attempts: Mapping[str, str]) -> Examples:
        """The examples of these stages, in one table."""
        entries = {s: self._entries[s] for s in attempts if s in self._entries}
        rows, places = self._gathered({s: one for s, one in entries.items() if one.count})
        return Examples(
            rows=rows,
            places=places,
            images=frozenset(s for s, one in entries.items() if one.has_images),
            damaged={s: self._damaged[s][2] for s in attempts if s in self._damaged},
        )

    def _gathered(
        self, entries: Mapping[str, _Entry]
    ) -> tuple[pyarrow.Table, dict[str, tuple[int, int]]]:
        """The lines of some stages, and where each stage's begin."""
        import numpy
        import pyarrow

        by_segment: dict[int, list[str]] = {}
        for stage, entry in entries.items():
            by_segment.setdefault(entry.segment, []).append(stage)
        parts, places, start = [], {}, 0
        for number, stages in by_segment.items():
            stages.sort(key=lambda stage: entries[stage].first)
            counts = numpy.array([entries[stage].count for stage in stages])
            firsts = numpy.array([entries[stage].first for stage in stages])
            segment = self._segments[number]
            if counts.sum() < len(segment):
                segment = segment.take(pyarrow.array(lines_of(firsts, counts)))
            parts.append(segment)
            for stage, count in zip(stages, counts.tolist(), strict=True):
                places[stage] = start, count
                start += count
        return _together(parts), places

    # -- files -------------------------------------------------------------------------------

    @property
    def _places(self) -> list[Path]:
        own = self._objects.local / "index"
        return [own, local_cache(self._objects.root) / "index"] if self._is_local else [own]

    def _load(self) -> None:
        """Read the files of the index that this process does not know."""
        if not self._reads:
            return
        for folder in self._places:
            for place in sorted(_files(folder)):
                if place not in self._files:
                    self._load_file(place)

    def _load_file(self, place: Path) -> None:
        opened = _opened(place)
        if opened is None:
            return
        number = self._files[place] = len(self._segments)
        stages, rows = opened
        self._segments.append(rows)
        first = 0
        names = ("stage", "attempt", "stamp", "count", "has_images")
        for stage, attempt, stamp, count, has_images in zip(
            *(stages[name].to_pylist() for name in names), strict=True
        ):
            self._entries[stage] = _Entry(number, first, count, attempt, stamp, has_images)
            first += count

    def _save(self) -> None:
        """Write what is new; where there are many files, all that is known as one."""
        if not self._writes:
            return
        merged = len(self._files) >= FILES
        stages = list(self._entries) if merged else self._unsaved
        self._unsaved = []
        entries = {s: self._entries[s] for s in stages if s in self._entries}
        rows, places = self._gathered({s: one for s, one in entries.items() if one.count})
        order = sorted(entries, key=lambda stage: places.get(stage, (0, 0)))
        table = _stages_table({stage: entries[stage] for stage in order})
        for folder in self._places:
            place = _written(folder, table, rows)
            if place is not None:
                old = list(self._files) if merged else []
                self._load_file(place)
                for one in old:
                    if one != place:
                        del self._files[one]
                        with contextlib.suppress(OSError):
                            one.unlink(missing_ok=True)
                used = {entry.segment for entry in self._entries.values()}
                for number in set(range(len(self._segments))) - used:
                    self._segments[number] = _empty()
                return


def lines_of(firsts: numpy.ndarray, counts: numpy.ndarray) -> numpy.ndarray:
    """The numbers of the lines of several runs of them, one after another."""
    import numpy

    before = numpy.cumsum(counts) - counts
    return numpy.repeat(firsts - before, counts) + numpy.arange(counts.sum())


# -- tables ------------------------------------------------------------------------------------


def _schema(*, coded: bool) -> pyarrow.Schema:
    import pyarrow

    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()) if coded else pyarrow.string()
    kinds = {"image_id": pyarrow.int64(), "score": pyarrow.float64(), "weight": pyarrow.float64()}
    return pyarrow.schema([(name, kinds.get(name, text)) for name in (*TEXTS, *NUMBERS)])


def _empty() -> pyarrow.Table:
    return _schema(coded=False).empty_table()


def _parsed(stage: str, data: bytes) -> tuple[pyarrow.Table, bool]:
    """A stage's examples with our columns, and whether the bytes of images are beside them.

    Raises `UnreadableError` where they are no examples, or one item has two.
    """
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        names = set(file.schema_arrow.names)
        lacking = [name for name in ("item_id", "prediction", "score") if name not in names]
        if lacking:
            raise UnreadableError(f"stage {stage}: its examples have no column {lacking[0]!r}")
        wanted = [name for name in (*TEXTS, *NUMBERS) if name in names]
        read = file.read(columns=wanted, use_threads=False)
        columns = []
        for field in _schema(coded=False):
            if field.name not in names:
                default = {"image_id": -1, "weight": 1.0}.get(field.name, "")
                columns.append(pyarrow.repeat(pyarrow.scalar(default, field.type), len(read)))
                continue
            column = read[field.name]
            if pyarrow.types.is_list(column.type):
                texts = column.cast(pyarrow.list_(pyarrow.string()))
                column = pyarrow.compute.call_function("binary_join", [texts, SEPARATOR])
            column = column.cast(field.type)
            if column.null_count and field.name in (*TEXTS, "image_id"):
                column = column.fill_null(-1 if field.name == "image_id" else "")
            columns.append(column)
        table = pyarrow.Table.from_arrays(columns, schema=_schema(coded=False))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(
            f"stage {stage}: its examples cannot be read ({str(error)[:200]})"
        ) from None
    if len(table["item_id"].unique()) < len(table):
        raise UnreadableError(f"stage {stage}: its examples have an item twice")
    return table, "image" in names


def _joined(tables: list[pyarrow.Table]) -> pyarrow.Table:
    import pyarrow

    return pyarrow.concat_tables([_empty(), *tables]).combine_chunks()


def _coded(rows: pyarrow.Table) -> pyarrow.Table:
    """The same with each text once."""
    for number, name in enumerate(TEXTS):
        rows = rows.set_column(number, name, rows[name].dictionary_encode())
    return rows.cast(_schema(coded=True))


def _together(tables: list[pyarrow.Table]) -> pyarrow.Table:
    import pyarrow

    if len(tables) == 1 and tables[0]["score"].num_chunks <= 1:
        return tables[0]
    rows = pyarrow.concat_tables([_schema(coded=True).empty_table(), *tables])
    return rows.unify_dictionaries().combine_chunks()


def _stages_table(entries: Mapping[str, _Entry]) -> pyarrow.Table:
    import pyarrow

    schema = pyarrow.schema(
        [
            ("stage", pyarrow.string()),
            ("attempt", pyarrow.string()),
            ("stamp", pyarrow.int64()),
            ("count", pyarrow.int64()),
            ("has_images", pyarrow.bool_()),
        ]
    )
    lines = [
        {"stage": stage, **{name: getattr(one, name) for name in schema.names[1:]}}
        for stage, one in entries.items()
    ]
    return pyarrow.Table.from_pylist(lines, schema=schema)


# -- bytes -------------------------------------------------------------------------------------


def _form() -> str:
    """What files that mean the same as ours have before their names."""
    columns = (VERSION, str(_schema(coded=True)), SEPARATOR)
    return hashlib.sha256(repr(columns).encode()).hexdigest()[:8]


def _files(folder: Path) -> Iterator[Path]:
    """The files of an index that this version reads."""
    with contextlib.suppress(OSError):
        for place in folder.iterdir():
            named = _NAME.fullmatch(place.name)
            if named and named[1] == _form():
                yield place


def _written(folder: Path, stages: pyarrow.Table, rows: pyarrow.Table) -> Path | None:
    """A file of the index, named by its content; None where it cannot be written."""
    import pyarrow
    import pyarrow.ipc

    temporary = folder / f".{uuid.uuid4().hex}"
    try:
        make_private(folder.parent)
        folder.mkdir(exist_ok=True)
        try:
            with pyarrow.OSFile(str(temporary), "wb") as file:
                for table in (stages, rows):
                    with pyarrow.ipc.new_stream(file, table.schema) as stream:
                        stream.write_table(table)
            place = folder / f"{_form()}-{_checksum(temporary)}.examples"
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:  # full, or not ours to write
        return None
    return place


def _opened(place: Path) -> tuple[pyarrow.Table, pyarrow.Table] | None:
    """The two tables of a file, mapped; None where it is gone or damaged."""
    import pyarrow
    import pyarrow.ipc

    named = _NAME.fullmatch(place.name)
    try:
        if named is None or _checksum(place) != named[2]:
            return None
        source = pyarrow.memory_map(str(place))
    except OSError:
        return None
    stages = pyarrow.ipc.open_stream(source).read_all()
    rows = pyarrow.ipc.open_stream(source).read_all()
    return stages, rows


def _checksum(place: Path) -> str:
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
