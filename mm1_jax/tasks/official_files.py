"""Reading files in the forms that benchmarks are published in, and saying what is not one."""

from __future__ import annotations

import base64
import csv
import functools
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mm1_jax.errors import UserError

_TABLES = (".parquet", ".jsonl", ".json", ".tsv", ".csv")
_SHOWN = 8  # names listed in an error message


def _listed(names: Iterable[object]) -> str:
    names = sorted(map(str, names))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"


def find(path: Path, task: str, *patterns: str) -> list[Path]:
    """`path` if it is a file, else the files of that folder that fit the first pattern that any do.

    UserError, with what was expected and found, if there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{task}: no file or folder {path}")
    for pattern in patterns:
        found = sorted(path.glob(pattern))
        if found:
            return found
    here = _listed(entry.name for entry in path.iterdir())
    raise UserError(f"{task}: expected {' or '.join(patterns)} in {path}, found {here}")


def find_one(path: Path, task: str, *patterns: str) -> Path:
    """As `find`, but UserError too if there are several."""
    found = find(path, task, *patterns)
    if len(found) > 1:
        names = _listed(file.name for file in found)
        raise UserError(f"{task}: expected one of {names} in {path}; name the file")
    return found[0]


def read_text(path: Path) -> str:
    """A file's text, without byte order mark; UserError if it is not there or not UTF-8."""
    if path.is_dir():
        raise UserError(f"expected a file, found the folder {path}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text: byte {error.start}", file=str(path)) from None


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError with the line if it is none."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON: {error.msg}", file=str(path), line=error.lineno) from None


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
        csv.field_size_limit(2**30)  # MMBench has images in cells
        rows = io.StringIO(read_text(path), newline="")
        return list(csv.DictReader(rows, delimiter="\t" if suffix == ".tsv" else ","))
    text = read_text(path)
    if suffix == ".json" and text.lstrip().startswith("["):
        rows = read_json(path)
    else:
        rows = _json_lines(path, text)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"expected an object per row, row {number} is {str(row)[:40]!r}", file=str(path)
            )
    return rows


def _json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            message = f"expected a list or an object per line: {error.msg}"
            raise UserError(message, file=str(path), line=number) from None
    return rows


def _is_image(kind: Any) -> bool:
    return str(kind).startswith("struct<") and "bytes: binary" in str(kind)


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet  # here, for it takes longer to import than most files to read

    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise UserError(f"not Parquet: {error}", file=str(path)) from None
    with file:
        schema = file.schema_arrow
        images = [field.name for field in schema if _is_image(field.type)]
        plain = [field.name for field in schema if field.name not in images]
        return file.read([*plain, *(f"{name}.path" for name in images)]).to_pylist()


def embedded(root: Path, file: Path, row: int, column: str) -> str:
    """The name, as an image of a question, of the one in a cell of `file` (see `image_bytes`).

    `root` is the folder that the task was read from, or its only file.
    """
    below = file.name if root.is_file() else str(file.relative_to(root))
    return f"{below}#{row}.{column}"


def image_bytes(folder: Path, name: str) -> bytes:
    """The encoded image that a question names: a file below `folder`, or a cell of a file there.

    UserError if it is not there.
    """
    file, _, cell = name.partition("#")
    path = folder / file
    if not path.is_file():
        raise UserError(f"no image {name}: expected {path}")
    if not cell:
        return path.read_bytes()
    row, _, column = cell.partition(".")
    if path.suffix == ".parquet":
        return _image_column(path, column)[int(row)]["bytes"]
    return base64.b64decode(_text_rows(path)[int(row)][column])


@functools.lru_cache(maxsize=4)
def _image_column(path: Path, column: str) -> Sequence[Mapping[str, bytes]]:
    from pyarrow import parquet

    return parquet.read_table(path, columns=[column])[column].to_pylist()


@functools.lru_cache(maxsize=1)
def _text_rows(path: Path) -> list[dict[str, Any]]:
    return read_rows(path)


def check_fields(row: Any, fields: Sequence[str], path: Path, task: str) -> None:
    """UserError that names what is missing if `row` is not an object with all `fields`."""
    found = list(row) if isinstance(row, Mapping) else type(row).__name__
    missing = [name for name in fields if not isinstance(row, Mapping) or name not in row]
    if missing:
        have = _listed(found) if isinstance(found, list) else f"a {found}"
        raise UserError(
            f"not {task}: expected {', '.join(fields)}, {', '.join(missing)} missing; found {have}",
            file=str(path),
        )


def rows_with(path: Path, fields: Sequence[str], task: str) -> list[dict[str, Any]]:
    """The rows of a file, each of which has `fields`; UserError otherwise, or if there is none."""
    rows = read_rows(path)
    if not rows:
        raise UserError(f"not {task}: no rows", file=str(path))
    for row in rows:
        check_fields(row, fields, path, task)
    return rows


def index_of(value: object, choices: Sequence[str], what: str, path: Path, row: int) -> int:
    """Where `value` is among `choices`; UserError if it is not, as in a split without answers."""
    if str(value) not in choices:
        known = ", ".join(choices)
        raise UserError(
            f"row {row + 1}: {what} is {value!r}, not one of {known}; a split without answers?",
            file=str(path),
        )
    return list(choices).index(str(value))


def part(content: Any, name: str, path: Path, task: str) -> Any:
    """`content[name]` of a JSON file; UserError if it has no such part."""
    check_fields(content, [name], path, task)
    return content[name]


def read_answers(
    path: Path, ids: Sequence[str] = ("question_id",), texts: Sequence[str] = ("answer", "text")
) -> dict[str, str]:
    """A result file: item_id → text.

    A list or JSON lines of objects with one of the keys `ids` and one of `texts` (the first that
    is there), or one JSON object id → text. UserError if it is neither, or has an id twice.
    """
    if path.is_dir():
        raise UserError(f"expected a result file, found the folder {path}")
    if path.suffix == ".json" and read_text(path).lstrip().startswith("{"):
        content = _one_object(path)
        only_row = set(ids) & set(content)  # of JSON lines
        if content and not only_row and all(isinstance(text, str) for text in content.values()):
            return content
    answers: dict[str, str] = {}
    rows = read_rows(path)
    if not rows:
        raise UserError("the result file is empty: it holds no predictions", file=str(path))
    for number, row in enumerate(rows, start=1):
        own_id = next((row[key] for key in ids if key in row), None)
        text = next((row[key] for key in texts if key in row), None)
        empty = [key for key in (*ids, *texts) if key in row and row[key] is None]
        if (own_id is None or text is None) and empty:
            raise UserError(f"row {number}: {empty[0]} is null", file=str(path))
        if own_id is None or text is None:
            raise UserError(
                f"not a result file: expected {' or '.join(ids)}, and {' or '.join(texts)}; row "
                f"{number} has {_listed(row)}",
                file=str(path),
            )
        if str(own_id) in answers:
            raise UserError(f"row {number}: a second answer to {own_id}", file=str(path))
        answers[str(own_id)] = str(text)
    return answers


def _one_object(path: Path) -> dict[str, Any]:
    """The object that a whole file is; {} if it holds one per line."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError:
        return {}
