"""Reading files in the forms that benchmarks are published in, and saying what is not one."""

from __future__ import annotations

import base64
import csv
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ablations.errors import UserError
from mm1_jax.evaluation.official.published_rows import Row, as_text, listed, short, told

_TABLES = (".parquet", ".jsonl", ".json", ".tsv", ".csv")
_CELL = re.compile(r"(.+\.(?:parquet|jsonl|json|tsv|csv))#([0-9]+)\.(.+)", re.IGNORECASE)


def find(path: Path, task: str, *patterns: str) -> list[Path]:
    """`path` if it is a file, else the files of that folder that fit the first pattern that any do.

    UserError, with what was expected and found, if there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{task}: no file or folder {path}")
    for pattern in patterns:
        found = sorted(file for file in path.glob(pattern) if not _of_macos(file))
        if found:
            return found
    here = listed(entry.name for entry in path.iterdir())
    raise UserError(f"{task}: expected {' or '.join(patterns)} in {path}, found {here}")


def _of_macos(file: Path) -> bool:
    """Whether it is what macOS keeps beside a file of that name on other systems' disks."""
    return file.name.startswith("._")


def find_one(path: Path, task: str, *patterns: str) -> Path:
    """As `find`, but UserError too if there are several."""
    found = find(path, task, *patterns)
    if len(found) > 1:
        names = listed(file.name for file in found)
        raise UserError(f"{task}: expected one of {names} in {path}; name the file")
    return found[0]


def questions_beside(annotations: Path) -> Path:
    """Where the questions of a VQA annotation file lie, by its name; itself if it has no such."""
    name = annotations.name.replace("annotations", "questions")
    return annotations.with_name(name.replace("mscoco", "OpenEnded_mscoco"))


def splits_beside(problems: Path) -> Path:
    """Where ScienceQA's splits lie."""
    return problems.with_name("pid_splits.json")


def read_with(file: Path) -> list[Path]:
    """An annotation file and those beside it that a task reads with it."""
    beside = [questions_beside(file)]
    if file.name == "problems.json":
        beside.append(splits_beside(file))
    return [file, *(other for other in beside if other != file and other.is_file())]


def read_text(path: Path) -> str:
    """A file's text, without byte order mark; UserError if it is not there or not UTF-8."""
    if path.is_dir():
        raise UserError(f"expected a file, found the folder {path}")
    try:
        return path.read_bytes().decode("utf-8-sig")  # line ends stay: they may be in a cell
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text: byte {error.start}", file=str(path)) from None


def lines_of(text: str) -> list[str]:
    """The lines of a text, ended by \\n or \\r\\n; no other character ends one."""
    return text.removesuffix("\n").replace("\r\n", "\n").split("\n") if text else []


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError with the line if it is none, or has a key twice."""
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path, line: int | None = None, expected: str = "not JSON") -> Any:
    """The value of a JSON text, of a whole file or of its line `line`; UserError if it is none."""
    place = {"file": str(path), "line": line}
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place["line"] = line or error.lineno
        raise UserError(f"{expected}: {error.msg}", **place) from None
    except _TwiceError as error:
        raise UserError(f"the key {error} is there twice in one object", **place) from None
    except RecursionError:
        raise UserError(f"{expected}: nested too deeply", **place) from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{expected}: {str(error).partition(';')[0]}", **place) from None


class _TwiceError(ValueError):
    """A key that an object has twice: json would keep the last one without a word."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = Counter(key for key, _ in pairs)
        raise _TwiceError(told(next(key for key in seen if seen[key] > 1)))
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet, JSON (a list), JSON-lines, TSV or CSV file; images stay unread.

    A file called .json may hold one object per line, as POPE's do. Cells of TSV and CSV are text,
    "" where empty: "None" and "NA" are answers like others. UserError if it is none of these.
    """
    suffix = path.suffix.lower()
    if suffix not in _TABLES:
        raise UserError(f"expected {', '.join(_TABLES)}, found {path.name}", file=str(path))
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix in (".tsv", ".csv"):
        return _cells(path, "\t" if suffix == ".tsv" else ",")
    text = read_text(path)
    if suffix == ".json" and text.lstrip().startswith("["):
        rows = parse_json(text, path)
    else:
        expected = "expected a list or an object per line"
        rows = [
            parse_json(line, path, number, expected)
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip()
        ]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"expected an object per row, row {number} is {short(row)!r}", file=str(path)
            )
    return rows


def _cells(path: Path, delimiter: str) -> list[dict[str, str]]:
    """The rows of a table in text; UserError unless each has a cell for each name of the first."""
    csv.field_size_limit(2**30)  # MMBench has images in cells
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    try:
        names = next(lines, [])
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise UserError(f"the column {told(twice[0])} is there twice", file=str(path), line=1)
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(names):
                counts = f"expected {len(names)} cells as in the first line, found {len(cells)}"
                raise UserError(
                    f"row {len(rows) + 1}: {counts}", file=str(path), line=lines.line_num
                )
            rows.append(dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise UserError(f"not a table: {error}", file=str(path), line=lines.line_num) from None
    return rows


def _is_image(kind: Any) -> bool:
    return str(kind).startswith("struct<") and "bytes: binary" in str(kind)


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as arrow  # here, for it takes longer to import than most files to read
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            twice = [name for name, count in Counter(schema.names).items() if count > 1]
            if twice:
                raise UserError(f"the column {told(twice[0])} is there twice", file=str(path))
            images = [field.name for field in schema if _is_image(field.type)]
            plain = [field.name for field in schema if field.name not in images]
            return file.read([*plain, *(f"{name}.path" for name in images)]).to_pylist()
    except (OSError, ValueError, OverflowError, arrow.ArrowException) as error:
        raise UserError(f"not Parquet: {error}", file=str(path)) from None


def embedded(root: Path, file: Path, row: int, column: str) -> str:
    """The name, as an image of a question, of the one in a cell of `file` (see `image_bytes`).

    `root` is the folder that the task was read from, or its only file.
    """
    below = file.name if root.is_file() else str(file.relative_to(root))
    return f"{below}#{row}.{column}"


def in_a_table(name: str) -> bool:
    """Whether the image that a question names is a cell of a table, not a file of its own."""
    return _CELL.fullmatch(name) is not None


def image_bytes(folder: Path, name: str) -> bytes:
    """The encoded image that a question names: a file below `folder`, or a cell of a file there.

    UserError if it is not there.
    """
    cell = _CELL.fullmatch(name)
    path = folder / (cell.group(1) if cell else name)
    if not path.is_file():
        raise UserError(f"no image {name}: expected {path}")
    if not cell:
        return path.read_bytes()
    row, column = int(cell.group(2)), cell.group(3)
    if path.suffix.lower() == ".parquet":
        cells = _image_column(path, column)
    else:
        cells = [own.get(column) for own in _text_rows(path)]
    found = cells[row] if row < len(cells) else None
    try:
        content = base64.b64decode(found, validate=True) if isinstance(found, str) else found
    except ValueError:
        content = found
    if not content:
        raise UserError(f"row {row + 1}: {column} is empty", file=str(path))
    if not isinstance(content, bytes):
        raise UserError(f"row {row + 1}: {column} is {told(content)}, no image", file=str(path))
    return content


@functools.lru_cache(maxsize=4)
def _image_column(path: Path, column: str) -> Sequence[object]:
    """The bytes in a column of images as the Hugging Face hub has it; else its values."""
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise UserError(f"has no column {column}, which images are due in", file=str(path))
            cells = file.read([column])[column].to_pylist()
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise UserError(f"not Parquet: {error}", file=str(path)) from None
    return [cell.get("bytes") if isinstance(cell, Mapping) else cell for cell in cells]


@functools.lru_cache(maxsize=1)
def _text_rows(path: Path) -> list[dict[str, Any]]:
    return read_rows(path)


def rows_with(path: Path, fields: Sequence[str], task: str, id_name: str = "") -> list[Row]:
    """The rows of a file, each of which has `fields`; UserError otherwise, or if there is none."""
    rows = read_rows(path)
    if not rows:
        raise UserError(f"not {task}: no rows", file=str(path))
    return [Row(row, fields, path, task, n, id_name) for n, row in enumerate(rows, start=1)]


def rows_of(
    content: Any, name: str, fields: Sequence[str], path: Path, task: str, id_name: str = ""
) -> list[Row]:
    """The rows of the list `content[name]` of a JSON file; UserError if it has no such list."""
    whole = Row(content, [name], path, task)
    return [
        Row(row, fields, path, task, number, id_name)
        for number, row in enumerate(whole.items(name), start=1)
    ]


def rows_by_id(content: Any, fields: Sequence[str], path: Path, task: str) -> dict[str, Row]:
    """The rows of a JSON file that is one object id → row; UserError if it is another."""
    return {
        key: Row(row, fields, path, task, number, key=key)
        for number, (key, row) in enumerate(_by_id(content, path, task).items(), start=1)
    }


def _by_id(content: Any, path: Path, task: str) -> Mapping[str, Any]:
    found = Row(content, [], path, task).fields
    if any(not key or as_text(key) is None for key in found):
        raise UserError("an id is empty or holds half of a character", file=str(path))
    return found


def read_answers(
    path: Path,
    ids: Sequence[str] = ("question_id",),
    texts: Sequence[str] = ("answer", "text"),
    stated: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """A result file: item_id → text.

    A list or JSON lines of objects with one of the keys `ids` and one of `texts` (the first that
    is there), or one JSON object id → text. `stated` names keys of `texts` that are no prediction
    in a row that has another key too, but the annotations' own: the right answer beside the
    options. UserError if it is neither, or has an id twice.
    """
    if path.is_dir():
        raise UserError(f"expected a result file, found the folder {path}")
    content = one_object(path)
    if content and not set(ids) & set(content):  # else the only row of JSON lines
        return texts_by_id(content, path)
    rows = [Row(row, [], path, "", n) for n, row in enumerate(read_rows(path), start=1)]
    if not rows:
        raise UserError("the result file is empty: it holds no predictions", file=str(path))
    given = []
    for row in rows:
        own_id = next((key for key in ids if key in row), None)
        there = [key for key in texts if key in row]
        text = next((key for key in there if stated.get(key) not in row), None)
        if text is None and there:
            raise row.error(
                f"{there[0]} beside {stated[there[0]]} is the annotations' own, no prediction; "
                f"expected {' or '.join(texts)}"
            )
        if own_id is None or text is None:
            empty = [key for key in (*ids, *texts) if key in row and row.fields[key] is None]
            if empty:
                raise row.error(f"{empty[0]} is null")
            raise UserError(
                f"not a result file: expected {' or '.join(ids)}, and {' or '.join(texts)}; row "
                f"{row.number} has {listed(row.fields)}",
                file=str(path),
            )
        own = Row(row.fields, [], path, "", row.number, own_id)
        given.append((own, own.id(own_id), own.text(text)))
    return one_each(given)


def one_each(given: Iterable[tuple[Row, str, str]]) -> dict[str, str]:
    """item_id → text, of rows that say both; UserError if two rows are of one item."""
    answers: dict[str, str] = {}
    for row, item_id, text in given:
        if item_id in answers:
            raise UserError(
                f"row {row.number}: a second answer to {short(item_id)}", file=str(row.path)
            )
        answers[item_id] = text
    return answers


def texts_by_id(content: Any, path: Path) -> dict[str, str]:
    """A JSON object id → text; UserError if it is another."""
    task = "a result file"
    return {
        key: Row({"answer": text}, [], path, task, number, key=key).text("answer")
        for number, (key, text) in enumerate(_by_id(content, path, task).items(), start=1)
    }


def one_object(path: Path) -> dict[str, Any]:
    """The object that a whole JSON file is; {} if it holds a list or one per line, or is none."""
    text = read_text(path) if path.suffix.lower() == ".json" else ""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return {}
    except (RecursionError, ValueError):
        pass
    return parse_json(text, path)
