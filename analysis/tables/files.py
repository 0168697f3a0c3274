"""Tables in files: CSV and its kin, JSON, JSON lines, Parquet, Excel; from stdin as well.

Texts of a CSV stay texts until it is known what their column is: an arm may be called `NA`, and
`1e3` may be a level. What is damaged is told with its line.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas

from ablations.errors import UserError, nearest, shown
from analysis.tables.raw import Raw, flat, plain, rows_of

STDIN = "-"
MOST_BYTES = 2_000_000_000
KINDS = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".txt": "CSV",
    ".json": "JSON",
    ".jsonl": "JSON",
    ".ndjson": "JSON",
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".xlsx": "Excel",
    ".xlsm": "Excel",
}


def read_file(path: Path, part: str = "") -> Raw:
    """A file; what it is follows from its name, or from how it begins. Raises `UserError`."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{path}: {size:,} bytes, more than the {MOST_BYTES:,} of any table")
    data = path.read_bytes()
    if path.suffix.lower() in (".gz", ".bz2", ".xz", ".zip"):
        raise UserError(f"{path}: is packed; unpack it first")
    return read_bytes(data, path.name, path.stem, part, KINDS.get(path.suffix.lower()))


def read_stdin(part: str = "") -> Raw:
    """What stands on standard input. Raises `UserError`."""
    if sys.stdin.isatty():
        raise UserError("- reads the table from standard input: pipe one into it")
    return read_bytes(sys.stdin.buffer.read(), "standard input", "stdin", part, None)


def read_bytes(data: bytes, place: str, name: str, part: str, kind: str | None) -> Raw:
    """A table of bytes; `place` is where they came from, for messages."""
    if not data.strip(b"\0 \t\r\n"):
        raise UserError(f"{place}: is empty")
    if data[:4] == b"PAR1":
        kind = "Parquet"
    elif data[:4] == b"PK\x03\x04":
        kind = "Excel"
    elif data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise UserError(f"{place}: an Excel file of before 2007; save it as .xlsx or CSV")
    elif kind in ("Parquet", "Excel"):
        raise UserError(f"{place}: no {kind} file")
    elif kind is None:
        kind = "JSON" if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") else "CSV"
    if part and kind != "Excel":
        raise UserError(f"{place}: a {kind} file has no sheets to choose {shown(part)} from")
    if kind == "Parquet":
        frame, notes = _parquet(data, place), ()
    elif kind == "Excel":
        frame, notes = _excel(data, place, part)
    elif kind == "JSON":
        frame, notes = rows_of(_json(_text(data, place), place)), ()
    else:
        frame, notes = _csv(_text(data, place), place)
    return Raw(name, f"{place} ({kind})", frame, notes=notes)


def _text(data: bytes, place: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what Excel calls Unicode text
        return data.decode("utf-16", errors="strict")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError("not UTF-8 text; save it as UTF-8", file=place, line=line) from None


def _csv(text: str, place: str) -> tuple[pandas.DataFrame, tuple[str, ...]]:
    """Rows of texts. The sign between them is that of the first line, of those that it holds."""
    csv.field_size_limit(10_000_000)
    lines = [line for line in text.splitlines() if line.strip()]
    while lines and lines[0].lstrip().startswith("#") and len(lines) > 1:
        lines.pop(0)
    counts = {sign: _cells(lines[0], sign) for sign in ("\t", ";", ",", "|")}
    sign = max(counts, key=lambda one: (counts[one], -",;\t|".index(one)))
    notes = [] if sign == "," or counts[sign] == 1 else [f"cells are separated by {sign!r}"]
    start = next(n for n, one in enumerate(text.splitlines(), start=1) if one == lines[0])
    body = "\n".join(text.splitlines()[start - 1 :])
    reader = csv.reader(io.StringIO(body), delimiter=sign, skipinitialspace=True)
    rows: list[list[str | None]] = []
    header: list[str] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = [cell.strip() for cell in row]
                while header and not header[-1]:
                    header.pop()
                continue
            if len(row) > len(header) and any(cell.strip() for cell in row[len(header) :]):
                raise UserError(
                    f"{len(row)} cells, and the header has {len(header)}; put quotes around a "
                    f"cell that contains {sign!r}",
                    file=place,
                    line=start - 1 + reader.line_num,
                )
            if len(row) < len(header):
                raise UserError(
                    f"{len(row)} cells, and the header has {len(header)}",
                    file=place,
                    line=start - 1 + reader.line_num,
                )
            rows.append([cell.strip() or None for cell in row[: len(header)]])
    except csv.Error as error:
        raise UserError(
            f"not valid CSV: {error}", file=place, line=start - 1 + reader.line_num
        ) from None
    frame = pandas.DataFrame(rows, columns=_header(header), dtype=object)
    return frame.drop(columns=_numbering(frame)), tuple(notes)


def _cells(line: str, sign: str) -> int:
    return len(next(csv.reader([line], delimiter=sign), []))


def _header(header: list[str]) -> pandas.Index:
    return pandas.Index(header, dtype=object)


def _numbering(frame: pandas.DataFrame) -> list[str]:
    """A first column without a name that counts the rows: what pandas writes by default."""
    if len(frame.columns) < 2 or str(frame.columns[0]) not in ("", "Unnamed: 0"):
        return []
    counted = [str(n) for n in range(len(frame))]
    return [frame.columns[0]] if frame.iloc[:, 0].astype(str).tolist() == counted else []


def _json(text: str, place: str) -> Iterable[Mapping[str, Any]]:
    """Records: a list of objects, an object of columns, or an object a line."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return _json_lines(text, place)
    if isinstance(whole, Mapping) and whole and all(isinstance(v, list) for v in whole.values()):
        if len({len(column) for column in whole.values()}) > 1:
            raise UserError(f"{place}: its columns are not equally long")
        whole = [dict(zip(whole, row, strict=True)) for row in zip(*whole.values(), strict=True)]
    elif isinstance(whole, Mapping):
        whole = [whole]
    if not isinstance(whole, list) or not all(isinstance(one, Mapping) for one in whole):
        raise UserError(f"{place}: expected a list of objects, one a row, or an object a line")
    return map(flat, whole)


def _json_lines(text: str, place: str) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError("not valid JSON", file=place, line=number) from None
        if not isinstance(record, Mapping):
            raise UserError("expected an object", file=place, line=number)
        found.append(flat(record))
    return found


def _parquet(data: bytes, place: str) -> pandas.DataFrame:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{place}: cannot be read as Parquet: {error}") from None
    kept = [name for name in table.column_names if name != "__index_level_0__"]
    cells = {name: [_arrow(row[name]) for row in rows] for name in kept}
    return pandas.DataFrame(cells, dtype=object)


def _arrow(value: Any) -> Any:
    import datetime
    import decimal

    if isinstance(value, decimal.Decimal):
        return float(value)
    return value if isinstance(value, datetime.datetime) else plain(value)


def _excel(data: bytes, place: str, part: str) -> tuple[pandas.DataFrame, tuple[str, ...]]:
    """A sheet: the one that is named, or the only one that holds anything."""
    import zipfile

    import openpyxl

    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise UserError(f"{place}: cannot be read as Excel: {error}") from None
    sheets = {sheet.title: [list(row) for row in sheet.iter_rows(values_only=True)]
              for sheet in book.worksheets}  # fmt: skip
    full = {name: rows for name, rows in sheets.items() if any(any(_cells_of(r)) for r in rows)}
    if part and part not in sheets:
        raise UserError(f"{place}: no sheet {shown(part)}{nearest(part, sheets)}")
    if not part and len(full) != 1:
        if not full:
            raise UserError(f"{place}: no sheet has any rows")
        raise UserError(f"{place}: several sheets have rows; say --sheet{nearest('', full)}")
    name = part or next(iter(full))
    rows = [row for row in sheets[name] if any(_cells_of(row))]
    if len(rows) < 2:
        raise UserError(f"{place}: sheet {shown(name)} has no rows below its header")
    header, *body = rows
    width = max((n for n, cell in enumerate(header, start=1) if cell is not None), default=0)
    for number, row in enumerate(body, start=2):
        if any(_cells_of(row[width:])):
            raise UserError(
                f"{place}: row {number} of sheet {shown(name)} is wider than its header"
            )
    names = ["" if cell is None else str(cell) for cell in header[:width]]
    cells = [[_excel_cell(cell) for cell in row[:width]] for row in body]
    frame = pandas.DataFrame(cells, columns=_header(names), dtype=object)
    told = () if len(sheets) == 1 else (f"sheet {name!r}",)
    return frame.drop(columns=_numbering(frame)), told


def _cells_of(row: Iterable[Any]) -> list[bool]:
    return [cell is not None and str(cell).strip() != "" for cell in row]


def _excel_cell(cell: Any) -> Any:
    import datetime

    if isinstance(cell, str):
        return cell.strip() or None
    return cell if isinstance(cell, datetime.datetime) else plain(cell)
