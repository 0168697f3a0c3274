"""Rows of a Parquet shard, a few at a time, with texts undecoded.

A text that is not UTF-8 then spoils its own row and not the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ablations.errors import UserError, nearest
from mm1_jax.data.files.urls import local_copy
from mm1_jax.data.own.raw import RecordError

# With images inside, a row may weigh a megabyte.
_ROWS_AT_A_TIME = 64
_LIMIT_BYTES = 1 << 28  # of the rows at a time, if each had all that its group holds


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
            wanted = [*dict.fromkeys([*required, *(n for n in optional if n in schema.names)])]
            for name in wanted:
                if schema.names.count(name) > 1:
                    raise UserError(f"{file}: has several columns {name!r}")
            first = 0  # row of the group
            for group in range(table.num_row_groups):
                about = table.metadata.row_group(group)
                count = about.num_rows
                index = first
                try:
                    for row in _rows_of(table, group, wanted, about.total_byte_size):
                        yield index, row, schema
                        index += 1
                except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                    told = f"{first + count - index} rows cannot be read: {error}"
                    yield index, RecordError("unreadable", told), schema
                first += count


def _rows_of(
    table: pq.ParquetFile, group: int, wanted: Sequence[str], size_bytes: int
) -> Iterator[dict[str, Any]]:
    # A value that stands once in the file may be that of every row.
    count = max(1, min(_ROWS_AT_A_TIME, _LIMIT_BYTES // max(size_bytes, 1)))
    for batch in table.iter_batches(count, row_groups=[group], columns=[*wanted]):
        columns = [_undecoded(batch.column(name)).to_pylist() for name in wanted]
        for values in zip(*columns, strict=True):
            yield dict(zip(wanted, values, strict=True))


def _undecoded(values: pa.Array) -> pa.Array:
    """Texts as bytes at any depth, in the plainest of the forms that Arrow has for the same."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return _undecoded(values.storage)
    if isinstance(values, pa.DictionaryArray):
        return _undecoded(values.dictionary_decode())
    if is_plain_text(kind):
        return values.cast(pa.large_binary())
    if _is_list(kind):
        plain = values.cast(pa.large_list(kind.value_type))
        offsets = pa.array(plain.offsets.to_numpy())  # of its own: no slice of a longer one
        return pa.LargeListArray.from_arrays(
            offsets, _undecoded(plain.values), mask=plain.is_null()
        )
    if pa.types.is_struct(kind) and kind.num_fields:
        names = [field.name for field in kind]
        inner = [_undecoded(child) for child in values.flatten()]
        return pa.StructArray.from_arrays(inner, names, mask=values.is_null())
    return values


def _is_list(kind: pa.DataType) -> bool:
    is_one = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(check(kind) for check in is_one)


def is_plain_text(kind: pa.DataType) -> bool:
    """Whether it is one of Arrow's types of text."""
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether the values of a column, or of its lists, are texts rather than bytes."""
    while True:
        if _is_list(kind) or pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return is_plain_text(kind)
