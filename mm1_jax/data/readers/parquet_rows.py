"""Rows of a Parquet shard, a few at a time, with texts undecoded.

A text that is not UTF-8 then spoils its own row and not the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mm1_jax.data.raw import RecordError
from mm1_jax.data.urls import local_copy
from mm1_jax.errors import UserError, nearest

# With images inside, a row may weigh a megabyte.
_ROWS_AT_A_TIME = 64


def rows(
    file: str, required: Sequence[str], optional: Sequence[str] = (), hint: str = ""
) -> Iterator[tuple[int, dict[str, Any] | RecordError, pa.Schema]]:
    """Each row's number and its columns, texts as bytes, with the schema that says which are texts.

    A damaged row group gives one RecordError at its first row that cannot be read. `hint` ends what
    is said of a required column that is not there.

    Raises:
        UserError: the file cannot be read, is no Parquet file, or has no column of that name.
    """
    with local_copy(file) as path:
        try:
            table = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            told = str(error).splitlines()[0]
            raise UserError(f"{file}: expected a Parquet file, found none: {told}") from None
        with table:
            schema = table.schema_arrow
            for name in required:
                if name not in schema.names:
                    raise UserError(
                        f"{file}: expected a column {name!r}, found {', '.join(schema.names)}"
                        f"{nearest(name, schema.names)}{hint}"
                    )
            wanted = [*required, *(name for name in optional if name in schema.names)]
            first = 0  # row of the group
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                index = first
                try:
                    for row in _rows_of(table, group, wanted):
                        yield index, row, schema
                        index += 1
                except (pa.ArrowException, OSError) as error:
                    told = f"{first + count - index} rows cannot be read: {error}"
                    yield index, RecordError("unreadable", told), schema
                first += count


def _rows_of(table: pq.ParquetFile, group: int, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in table.iter_batches(_ROWS_AT_A_TIME, row_groups=[group], columns=[*wanted]):
        columns = [
            batch.column(name).cast(_undecoded(batch.schema.field(name).type)) for name in wanted
        ]
        for values in zip(*(column.to_pylist() for column in columns), strict=True):
            yield dict(zip(wanted, values, strict=True))


def _undecoded(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.list_(_undecoded(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_undecoded(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _undecoded(field.type)) for field in kind])
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether the values of a column, or of its lists, are texts rather than bytes."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
