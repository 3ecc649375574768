"""The forms a file of pairs comes in, each turned into blocks of tab-separated lines.

Plain or gzip text passes through; JSON lines and Parquet are rewritten as the same lines, so that
one check (`desmatch.data.faults`) sees every row. A block holds whole lines, which bounds the
memory by the block and not by the file.

JSON lines and Parquet are read with json and pyarrow, not with `datasets.load_dataset`: that one
reads the text "2020-01-01" as a date, drops empty lines, which shifts the line numbers, turns
labels into floats where one is, and takes brackets in a file's name for a pattern.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from desmatch.disk import refuse_pipe
from desmatch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BLOCK_BYTES = 1 << 24
"""How much is read and checked at a time, in bytes."""

BLOCK_ROWS = 1 << 16
"""How many rows of a Parquet file are read and checked at a time."""

MAX_LINE_BYTES = 1 << 26
"""A longer line is no row of pairs: the file is of another kind."""

MAX_EXPANDED_BYTES = 8 << 30
"""A gzip that holds more is refused."""

MAX_RATIO = 1000
"""A gzip that holds more than this many times its own size is refused ..."""

RATIO_FROM_BYTES = 100 << 20
"""... once this many bytes came out of it."""

GZIP_MAGIC = b"\x1f\x8b"
GZIP_SUFFIX = ".gz"
UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Whole lines of one file."""

    first_line: int
    """Number of the first line in its file, from 1."""

    content: bytes
    """Lines `ids_a<TAB>ids_b[<TAB>label]`, each ended by a newline; nothing is checked yet."""

    known: Mapping[int, str] = field(default_factory=dict)
    """Reasons, by position in the block, of rows that are bad before any check."""

    originals: Sequence[bytes] | None = None
    """The lines as the file has them, where `content` is a translation."""


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield the lines of a text, gzip, JSON lines (.jsonl) or Parquet (.parquet) file.

    Blank lines at the end of the file are no lines.

    Raises:
        UserError: The file cannot be read, is not of its kind, is UTF-16 or expands too far.
    """
    suffix = Path(path.name.lower().removesuffix(GZIP_SUFFIX)).suffix
    with _read_errors(path):
        if path.is_dir():
            raise IsADirectoryError
        refuse_pipe(path)
        match suffix:
            case ".parquet":
                yield from _parquet_blocks(path)
            case ".jsonl":
                for block in _text_blocks(path):
                    yield _from_json(block)
            case _:
                yield from _text_blocks(path)


def read_text(path: Path) -> Iterator[Block]:
    """Yield the lines of a plain or gzip text as they are, whatever they hold.

    Raises:
        UserError: As `read_blocks`.
    """
    with _read_errors(path):
        if path.is_dir():
            raise IsADirectoryError
        yield from _text_blocks(path)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn what the libraries raise on a bad file into a `UserError` that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name") from None
    except IsADirectoryError:
        raise UserError(f"{path}: expected a file, got a folder; name the files in it") from None
    except EOFError:
        raise UserError(f"{path}: the gzip ends early; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip ({error}); copy or download it again") from None
    except pa.ArrowException as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{path}: not a readable Parquet file ({first}); write it again") from None
    except OSError as error:
        why = error.strerror or str(error).partition("\n")[0]
        raise UserError(f"{path}: cannot be read ({why}); check the file") from None


def _text_blocks(path: Path) -> Iterator[Block]:
    """Yield the lines of a plain or gzip text without BOM and with newlines alone."""
    first_line = 1
    for content in _whole_lines(path):
        block = content.replace(b"\r\n", b"\n") if b"\r\n" in content else content
        if first_line == 1:
            if _is_utf16(block[:4096]):
                raise UserError(f"{path}: expected UTF-8, got UTF-16; save the file as UTF-8")
            block = block.removeprefix(UTF8_BOM)
        yield Block(first_line=first_line, content=block)
        first_line += block.count(b"\n")


def _is_utf16(head: bytes) -> bool:
    """Say whether a text starts with a UTF-16 mark or has a NUL in every other byte."""
    nuls = sorted([head[::2].count(0), head[1::2].count(0)])
    return head.startswith(UTF16_BOMS) or (nuls[0] == 0 and nuls[1] > max(1, len(head) // 4))


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file cut after newlines; the last line gets one if it has none.

    The last line with content waits for the next block together with the blank lines behind it:
    only then is it known whether these are at the end of the file.
    """
    waiting = b""
    for chunk in _chunks(path):
        waiting += chunk
        if len(waiting) < BLOCK_BYTES:
            continue
        if cut := waiting.rstrip(b"\r\n").rfind(b"\n") + 1:
            yield waiting[:cut]
            waiting = waiting[cut:]
        if len(waiting) > MAX_LINE_BYTES:
            limit = MAX_LINE_BYTES >> 20
            raise UserError(f"{path}: a line is longer than {limit} MiB; is this a text file?")
    if last := waiting.rstrip(b"\r\n"):
        yield last + b"\n"


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a plain or gzip file, told apart by its first two bytes."""
    with path.open("rb") as raw:
        is_gzip = raw.peek(2)[:2] == GZIP_MAGIC
        stream = gzip.GzipFile(fileobj=raw) if is_gzip else raw
        file_bytes = os.fstat(raw.fileno()).st_size
        expanded = 0
        while chunk := stream.read(BLOCK_BYTES):
            expanded += len(chunk)
            if is_gzip:
                _refuse_bomb(path, expanded, file_bytes)
            yield chunk


def _refuse_bomb(path: Path, expanded: int, file_bytes: int) -> None:
    """Stop reading a gzip that expands beyond the limits of this module."""
    if expanded > MAX_EXPANDED_BYTES:
        raise UserError(
            f"{path}: expected at most {MAX_EXPANDED_BYTES >> 20} MiB in the gzip, got more; "
            "split the file or unpack it yourself"
        )
    if expanded > RATIO_FROM_BYTES and expanded > MAX_RATIO * file_bytes:
        raise UserError(
            f"{path}: the gzip expands more than {MAX_RATIO} times; if the file can be trusted, "
            "unpack it yourself"
        )


def _from_json(block: Block) -> Block:
    """Translate lines of JSON; a line that cannot be translated is left empty and explained."""
    originals = block.content.split(b"\n")[:-1]
    lines: list[bytes] = []
    known: dict[int, str] = {}
    for position, original in enumerate(originals):
        try:
            lines.append(_json_line(original))
        except (ValueError, RecursionError) as error:
            lines.append(b"")
            known[position] = _json_reason(error)
    content = b"\n".join([*lines, b""])
    return Block(first_line=block.first_line, content=content, known=known, originals=originals)


class _BadRowError(ValueError):
    """The reason why a JSON value is no row."""


def _json_line(line: bytes) -> bytes:
    """Translate one JSON object.

    Raises:
        ValueError: `_BadRowError` with the reason, or json's own error if the line is not JSON.
    """
    if not line.strip():
        return b""
    row = json.loads(line.decode())
    if not isinstance(row, dict) or not {"a", "b"} <= row.keys():
        came = f"the keys {sorted(row)}" if isinstance(row, dict) else f"a {type(row).__name__}"
        raise _BadRowError(f'expected an object with "a" and "b", got {came}; write both texts')
    columns = [_json_side(row, "a"), _json_side(row, "b")]
    label = row.get("label")
    if label is not None:
        if type(label) is not int:
            raise _BadRowError(
                f"expected the integer 0 or 1 as label, got {json.dumps(label)[:40]}; "
                "write it without quotes and point"
            )
        columns.append(str(label))
    return "\t".join(columns).encode("utf-8", "surrogatepass")


def _json_side(row: Mapping[str, object], name: str) -> str:
    """Return a text, or a list of ids, as ids with one space between them."""
    value = row[name]
    if isinstance(value, list) and all(type(item) in (int, str) for item in value):
        value = " ".join(map(str, value))
    if not isinstance(value, str):
        raise _BadRowError(
            f'expected a string or a list of ids as "{name}", got {json.dumps(value)[:40]}; '
            "write the ids with spaces between them"
        )
    return " ".join(value.split())


def _json_reason(error: ValueError | RecursionError) -> str:
    """Say why a line of JSON cannot be used."""
    match error:
        case UnicodeDecodeError():
            return "expected UTF-8, got other bytes; save the file as UTF-8"
        case RecursionError():
            return "expected a JSON object, got brackets nested too deep; write one object a line"
        case _BadRowError():
            return str(error)
        case _:  # malformed, or a number too long for Python
            return f"expected a JSON object, got malformed JSON ({error}); write one object a line"


def _parquet_blocks(path: Path) -> Iterator[Block]:
    """Yield the rows of a Parquet file with columns a, b and perhaps label."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        _refuse_schema(path, schema)
        names = ["a", "b", *(["label"] if "label" in schema.names else [])]
        first_line = 1
        for batch in filter(len, file.iter_batches(BLOCK_ROWS, columns=names)):
            columns = [_parquet_side(batch.column(name)) for name in ("a", "b")]
            columns += [batch.column(name).cast(pa.string()) for name in names[2:]]
            rows = pc.binary_join_element_wise(*columns, "\t", null_handling="skip")
            yield Block(first_line=first_line, content=_joined_lines(rows))
            first_line += batch.num_rows


def _joined_lines(rows: pa.Array) -> bytes:
    """Join strings to lines."""
    ends = pa.array([0, len(rows)], pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, rows.cast(pa.binary())), b"\n")
    return bytes(joined[0].as_py() + b"\n")


def _refuse_schema(path: Path, schema: pa.Schema) -> None:
    """Refuse a table without the two texts, or with columns of other types."""
    for name in ("a", "b"):
        if schema.names.count(name) != 1:
            raise UserError(
                f"{path}: expected one column {name!r}, got the columns {schema.names}; "
                "name the columns a, b and label"
            )
        if not _is_text(schema.field(name).type):
            raise UserError(
                f"{path}: expected strings or lists of ids in column {name!r}, "
                f"got {schema.field(name).type}; write the ids with spaces between them"
            )
    kind = schema.field("label").type if schema.names.count("label") == 1 else pa.null()
    if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise UserError(
            f"{path}: expected integers 0 and 1 in column 'label', got {kind}; "
            "write an integer column, null where a row has no label"
        )


def _is_text(kind: pa.DataType) -> bool:
    """Say whether a type is a string, or a list of strings or of integers."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_text(kind.value_type) or types.is_integer(kind.value_type)
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _parquet_side(column: pa.Array) -> pa.Array:
    """Return strings or lists as ids with spaces; null becomes an empty text."""
    if pa.types.is_nested(column.type):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), " ")
    column = column.cast(pa.string())
    for mark in "\t\n":
        column = pc.replace_substring(column, mark, " ")
    return pc.fill_null(column, "")
