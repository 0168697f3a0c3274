"""What a command measured: the numbers in its results, read while they are written.

    metrics.jsonl   {"step": 100, "loss": 2.31, "val": {"accuracy": 41.0}}     an object a line
    metrics.csv     step,loss,val/accuracy                                     empty: not measured
    metrics.json    {"val.accuracy": 41.0}, a list of such, or {"loss": [2.9, 2.3]}: by step
    stdout          every line printed that is a JSON object

Names are joined by dots, and `/` in them is a dot: `val/accuracy` is `val.accuracy`. A number that
is written twice for a step counts as it was written last, so a script that goes on from a
checkpoint may write some steps again.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.errors import UserError, nearest, shown
from ablations.own_workload import metric_parts
from ablations.schema import Config
from ablations.stage import DIVERGED, ResultRow
from ablations.workload import TRAINING

STDOUT = "stdout"
# Looked for below {output} where `results` says nothing, in this order.
USUAL = tuple(
    f"{name}.{end}" for name in ("metrics", "results") for end in ("jsonl", "csv", "json")
)
LINES, TABLE, WHOLE = (".jsonl", ".ndjson"), (".csv", ".tsv"), (".json",)
LONGEST_LINE = 2**20  # bytes
MOST_BYTES = 2**28  # of results
MOST_NAMES = 200  # numbers beside the declared metrics
MOST_POINTS = 2_000  # of a curve


class Measured(Config):
    """A declared metric as results are read for it."""

    key: str  # its name in the results
    best: str = ""  # maximise or minimise: the score is the best value; "": the last


class Numbers:
    """All numbers of a run so far: name → step → value, in the order in which they came.

    `declared` are the names that must be numbers; what else is no number is passed over.
    """

    def __init__(self, declared: Collection[str], step_key: str):
        self._declared = frozenset(declared)
        self._step_key = dotted(step_key)
        self.clear()

    def clear(self) -> None:
        """Forget everything: the results were begun anew."""
        self.curves: dict[str, dict[int, float]] = {}
        self.rows = 0
        self.nulls: dict[str, str] = {}  # declared name → where it was null last, if nothing came

    def take(self, row: Mapping[str, Any], place: str) -> tuple[int, dict[str, float]]:
        """Take in one row, told by its place; its step and numbers.

        Raises:
            UserError: a declared metric is no number, or the step no whole one.
        """
        self.rows += 1
        flat = dict(_flat(row))
        step = self._step(flat.pop(self._step_key, None), place)
        numbers = {}
        for name, value in flat.items():
            number = self._number(name, value, place)
            if number is None:
                continue
            curve = self.curves.get(name)
            if curve is None:
                if name not in self._declared and len(self.curves) >= MOST_NAMES:
                    continue
                curve = self.curves[name] = {}
            curve.pop(step, None)
            curve[step] = numbers[name] = number
            self.nulls.pop(name, None)
        return step, numbers

    def _step(self, value: Any, place: str) -> int:
        if value in (None, ""):
            return self.rows
        try:
            number = float(value)
            if number == int(number):
                return int(number)
        except (TypeError, ValueError, OverflowError):
            pass
        raise UserError(f"{place}: {self._step_key} is {shown(value)}, not a whole number")

    def _number(self, name: str, value: Any, place: str) -> float | None:
        declared = name in self._declared
        if value is None:
            if declared:
                self.nulls[name] = place
            return None
        if isinstance(value, bool):
            return float(value) if declared or name == DIVERGED else None
        if isinstance(value, int | float):
            try:
                return float(value)
            except OverflowError:
                return math.inf
        if isinstance(value, str) and value.strip().lower().lstrip("+-") in (
            *("nan", "inf", "infinity"),
        ):
            return float(value)  # as writers of strict JSON spell them
        if declared:
            raise UserError(f"{place}: {name} is {shown(value)}, not a number")
        return None


def dotted(name: str) -> str:
    """A name as this project writes it: `val/accuracy` is `val.accuracy`."""
    return name.replace("/", ".")


def _flat(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        name = dotted(f"{above}.{key}" if above else str(key))
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, value


# -- reading while it is written -----------------------------------------------------------------


class LinesReader:
    """Rows of a file that grows, or of what is printed; a file that was begun anew is read anew."""

    def __init__(self, name: str, begun_anew: Callable[[], None]):
        self._name, self._begun_anew = name, begun_anew
        self._read = self._line = 0
        self._rest = b""
        self._inode = 0
        self._header: list[str] | None = None
        self._head = b""

    def poll(self, path: Path, *, last: bool) -> Iterator[tuple[dict[str, Any], str]]:
        """(row, place) of what came since; `last`: a line without an end is one, too."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return
        if status.st_size > MOST_BYTES:
            raise UserError(
                f"{self._name}: more than {MOST_BYTES // 2**20} MB of results; log less often"
            )
        with path.open("rb") as file:
            head = file.read(len(self._head))
            if status.st_ino != self._inode or status.st_size < self._read or head != self._head:
                self._read = self._line = 0
                self._rest, self._header, self._inode = b"", None, status.st_ino
                self._begun_anew()
            file.seek(self._read)
            chunk = file.read(MOST_BYTES)
        self._read += len(chunk)
        yield from self.feed(chunk, last=last)
        with path.open("rb") as file:
            self._head = file.read(min(self._read, 4096))

    def feed(self, chunk: bytes, *, last: bool = False) -> Iterator[tuple[dict[str, Any], str]]:
        """(row, place) of complete lines."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if last and self._rest:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._line += 1
            row = self._row(line, f"{self._name} line {self._line}")
            if row is not None:
                yield row, f"{self._name} line {self._line}"
        if len(self._rest) > LONGEST_LINE:
            self._too_long()

    def _too_long(self) -> None:
        raise UserError(f"{self._name} line {self._line + 1}: more than {LONGEST_LINE:,} bytes")

    def _row(self, line: bytes, place: str) -> dict[str, Any] | None:
        text = self._text(line, place).strip()
        if not text:
            return None
        if self._name.endswith(TABLE):
            return self._cells(text, place)
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not JSON: {shown(text)} ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f'{place}: {shown(text)} is not an object such as {{"loss": 2.3}}')
        return row

    def _text(self, line: bytes, place: str) -> str:
        try:
            return line.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{place}: not UTF-8 text") from None

    def _cells(self, text: str, place: str) -> dict[str, Any] | None:
        delimiter = "\t" if self._name.endswith(".tsv") else ","
        cells = next(csv.reader([text], delimiter=delimiter))
        if self._header is None:
            self._header = [cell.strip() for cell in cells]
            if len(set(self._header)) < len(self._header):
                raise UserError(f"{place}: two columns of the same name: {shown(text)}")
            return None
        if len(cells) != len(self._header):
            raise UserError(
                f"{place}: {len(cells)} cells, and the first line has {len(self._header)} columns"
            )
        pairs = zip(self._header, map(str.strip, cells), strict=True)
        return {name: _cell(cell) for name, cell in pairs if cell}


class PrintedReader(LinesReader):
    """Rows among what a command prints: the lines that are JSON objects; all others are prose."""

    def __init__(self) -> None:
        super().__init__("printed", lambda: None)

    def _too_long(self) -> None:
        self._rest = b"-"  # the beginning of no row

    def _row(self, line: bytes, place: str) -> dict[str, Any] | None:
        if not line.lstrip().startswith(b"{"):
            return None
        try:
            row = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
        return row if isinstance(row, dict) else None


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def whole_file(path: Path, name: str) -> Iterator[tuple[dict[str, Any], str]]:
    """(row, place) of a file that is one JSON value."""
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{name}: more than {MOST_BYTES // 2**20} MB of results; log less often")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{name}: not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON: {error}") from None
    rows = value if isinstance(value, list) else [value]
    for index, row in enumerate(rows, start=1):
        place = f"{name} element {index}" if isinstance(value, list) else name
        if not isinstance(row, dict):
            raise UserError(f'{place}: {shown(row)} is not an object such as {{"loss": 2.3}}')
        curves = {key: one for key, one in row.items() if isinstance(one, list)}
        for step in range(max(map(len, curves.values()), default=0)):
            yield {key: one[step] for key, one in curves.items() if step < len(one)}, place
        if rest := {key: one for key, one in row.items() if key not in curves}:
            yield rest, place


class Results:
    """The results of one run, wherever the command writes them.

    `named` is what the study says: a file or glob below the output folder, `stdout`, or "" for
    the usual places. What is printed counts only where no file is there in the end. A step that
    declares no metric and names no results may have none: it prepares something for others.
    """

    def __init__(self, named: str, output: Path, declared: Collection[str], step_key: str):
        self._named, self._output = named, output
        self._expected = bool(named or declared)
        self._printed = PrintedReader()
        self._waiting: list[tuple[dict[str, Any], str]] = []  # rows that were printed
        self._reader: LinesReader | None = None
        self._path: Path | None = None
        self._in_file, self._in_prints = (Numbers(declared, step_key) for _ in range(2))

    @property
    def numbers(self) -> Numbers:
        """All that was read so far."""
        return self._in_prints if self._path is None else self._in_file

    def heard(self, chunk: bytes) -> None:
        """Something was printed."""
        if self._named in ("", STDOUT) and self._path is None:
            self._waiting += self._printed.feed(chunk)

    def poll(self, *, last: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, numbers) of the rows that came since; `last` when nothing will come any more.

        Raises:
            UserError: what is there is not of the form; at last, what is expected is not there.
        """
        if self._path is None and self._named != STDOUT:
            self._path = self._find(last=last)
            if self._path is not None and not self._path.name.endswith(WHOLE):
                self._reader = LinesReader(self._path.name, self._in_file.clear)
        rows: Iterable[tuple[dict[str, Any], str]] = ()
        if self._path is None:
            if last and self._named in ("", STDOUT):
                self._waiting += self._printed.feed(b"", last=True)
            rows, self._waiting = self._waiting, []
        elif self._reader is not None:
            rows = self._reader.poll(self._path, last=last)
        elif last:
            rows = whole_file(self._path, self._path.name)
        for row, place in rows:
            yield self.numbers.take(row, place)
        if last and self._expected and not self.numbers.rows:
            raise UserError(f"no results: {self._lacking()}")

    def _find(self, *, last: bool) -> Path | None:
        if self._named:
            found = sorted(path for path in self._output.glob(self._named) if path.is_file())
        else:
            found = [self._output / name for name in USUAL if (self._output / name).is_file()]
        if len(found) > 1:
            names = ", ".join(path.relative_to(self._output).as_posix() for path in found)
            if self._named or last:
                raise UserError(f"several files may be the results: {names}; say which, results: …")
            return None
        return found[0] if found else None

    def _lacking(self) -> str:
        there = sorted(p.name + ("/" if p.is_dir() else "") for p in self._output.iterdir())
        holds = f"it holds {', '.join(there[:10])}" if there else "it is empty"
        if self._path is not None:
            return f"{self._path.name} has no row"
        if self._named == STDOUT:
            return "no line that was printed is a JSON object"
        if self._named:
            return f"no {self._named} in {{output}} ({holds}){nearest(self._named, there)}"
        return (
            f"none of {', '.join(USUAL)} is in {{output}} ({holds}), and no line that was printed "
            "is a JSON object; say where they are, results: FILE"
        )


# -- what enters the store -----------------------------------------------------------------------


def as_rows(step_name: str, numbers: Numbers, metrics: Mapping[str, Measured]) -> list[ResultRow]:
    """The stage's rows: each number's curve, and for each name that a metric may have its score.

    `metrics` are the declared ones by their names in the study. Names that nobody declared are
    there too, so that a metric which is declared later costs no run; and so any number that is
    not finite at its end says that the run diverged, whoever declares what.

    Raises:
        UserError: a declared metric is in no row.
    """
    for name, metric in metrics.items():
        if metric.key not in numbers.curves:
            raise UserError(_absent(name, metric.key, numbers))
        if metric.key in numbers.nulls:
            raise UserError(
                f"{numbers.nulls[metric.key]}: {name} is null at its end; write NaN where a run "
                "diverged, and leave it out where it was not measured"
            )
    curves = {name: curve for name, curve in numbers.curves.items() if name != DIVERGED}
    rows = [
        ResultRow(TRAINING, name, value, step=step)
        for name, curve in curves.items()
        for step, value in thinned(curve).items()
    ]
    if lost_at_its_end(numbers):
        last = max(step for curve in numbers.curves.values() for step in curve)
        rows.append(ResultRow(TRAINING, DIVERGED, 1.0, step=last))
    known = {metric.key for metric in metrics.values()}
    others = {name: Measured(key=name) for name in curves if name not in known}
    scores: dict[tuple[str, str], ResultRow] = {}
    meant_twice: set[tuple[str, str]] = set()  # `loss` and `run.loss` of a step `run`
    for name, metric in [*metrics.items(), *others.items()]:
        try:
            task, short = metric_parts(name)
        except ValueError:
            continue  # of the curves alone
        step, value = score(curves[metric.key], metric.best)
        row = ResultRow(task or step_name, short, value, split="test", step=step)
        if (place := (row.task, row.metric)) in scores and name not in metrics:
            meant_twice.add(place)
        scores.setdefault(place, row)
    declared = {(task or step_name, short) for task, short in map(metric_parts, metrics)}
    return [*rows, *(row for at, row in scores.items() if at in declared or at not in meant_twice)]


def lost_at_its_end(numbers: Numbers) -> list[str]:
    """Names of the numbers that say that a run diverged.

    Those that are not finite at their end, and `diverged` where it was ever anything but 0.
    """
    found = [
        name
        for name, curve in numbers.curves.items()
        if name != DIVERGED and not math.isfinite(next(reversed(curve.values())))
    ]
    if any(numbers.curves.get(DIVERGED, {}).values()):
        found.append(DIVERGED)
    return found


def _absent(name: str, key: str, numbers: Numbers) -> str:
    if key in numbers.nulls:
        return f"metric {name} is null in every row"
    said = "" if key == name else f", {key} in the results,"
    last = name.rpartition(".")[2]
    if last in numbers.curves:
        return f"no row has the metric {name}{said}; if {last} is it, say so: {{key: {last}}}"
    near = nearest(key, numbers.curves)
    return f"no row has the metric {name}{said}{near} (what the results call it goes into its key)"


def score(curve: Mapping[int, float], best: str) -> tuple[int, float]:
    """Step and value of the score: the last, or the best of the finite ones."""
    finite = {step: value for step, value in curve.items() if math.isfinite(value)}
    if best and finite:
        pick = max if best == "maximise" else min
        step = pick(finite, key=finite.__getitem__)
        return step, finite[step]
    return next(reversed(curve.items()))  # ty: ignore


def thinned(curve: Mapping[int, float]) -> dict[int, float]:
    """A curve by step with at most `MOST_POINTS` points, the first and the last among them."""
    steps = sorted(curve)
    if len(steps) > MOST_POINTS:
        ends = len(steps) - 1
        steps = [steps[round(i * ends / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
    return {step: curve[step] for step in steps}
