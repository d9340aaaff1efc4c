"""Fills as CSV text: what a file must look like to be sent to the gateway, and how fills are written. Pure.

Numbers and times stay text on the way in: what they mean, and whether they may be recorded, the gateway decides.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

COLUMNS: Final = ("fill_id", "symbol", "side", "qty", "price", "fee", "filled_at")
OPTIONAL_COLUMNS: Final = ("fee",)
VOID_COLUMNS: Final = ("voided_at", "void_reason")
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_FILLS: Final = 10_000
"""The most that the gateway takes at once: more cannot be recorded all or none."""
MAX_CELL_CHARACTERS: Final = 500

_HEADER: Final = ",".join(COLUMNS)
_OTHER_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong at a line, from 1, and what would be right; `column` None: the line, or file, as a whole."""

    line: int
    column: str | None
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}" if self.column is None else f"line {self.line}, column {self.column}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Row:
    """One fill as written: the line it begins at, and its cells by column. An empty fee is left out.

    Of a row with faults of its own the cells at fault are empty: the gateway takes no such fill, and tells the others.
    """

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FillsFile:
    """What a file holds: rows to send, those with a cell at fault among them, and the faults found here.

    `is_readable` is False when the faults are the file's as a whole: then there are no rows.
    """

    rows: tuple[Row, ...]
    faults: tuple[LineFault, ...]
    is_readable: bool = True


def read_fills(data: bytes) -> FillsFile:
    """Return the fills in a file's bytes: UTF-8, with or without a byte order mark, commas, a header line.

    Sample: `fill_id,symbol,side,qty,price,fee,filled_at`, then `f-1,AAPL,buy,100,150.25,0.35,2025-10-19T14:30:15Z`.
    The columns may stand in any order; blank lines are skipped.
    """
    if len(data) > MAX_FILE_BYTES:
        return _unreadable(1, f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB: split it, oldest fills first")
    text = _decode(data)
    if isinstance(text, LineFault):
        return FillsFile((), (text,), is_readable=False)
    return _read_lines(text)


def write_fills(fills: Iterable[Mapping[str, Any]], *, with_voids: bool = False) -> str:
    """Return the CSV of fills as the gateway lists them, in the order given; with the columns of voids when asked.

    Every digit of a number is kept, and no exponent is written.
    """
    columns = (*COLUMNS, *VOID_COLUMNS) if with_voids else COLUMNS
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(fill[column]) for column in columns] for fill in fills)
    return text.getvalue()


def _decode(data: bytes) -> str | LineFault:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return LineFault(1, None, "the file's encoding is UTF-16: save it as CSV UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = _line_of(error.object, error.start), error.object[error.start]
        return LineFault(line, None, f"the encoding is not UTF-8 (byte 0x{byte:02x}): save the file as CSV UTF-8")
    if "\0" in text:
        line = _line_of(data, data.index(b"\0"))
        return LineFault(line, None, "a NUL character, so no text, or UTF-16: save the file as CSV UTF-8")
    return text


def _read_lines(text: str) -> FillsFile:
    records = _records(text)
    line, header = next(records, (1, []))
    if isinstance(header, LineFault):
        return FillsFile((), (header,), is_readable=False)
    columns = [name.strip().lower() for name in header]
    if columns and (fault := _header_fault(columns)):
        return _unreadable(line, fault)
    rows: list[Row] = []
    faults: list[LineFault] = []
    for number, (line, record) in enumerate(records, 1):
        if number > MAX_FILLS:
            return _unreadable(line, f"more than {MAX_FILLS:,} fills: split the file, oldest fills first")
        if isinstance(record, LineFault):
            faults.append(record)
        elif len(record) != len(columns):
            faults.append(_miscounted(line, columns, record))
        else:
            found = _cell_faults(line, columns, record)
            faults += found
            rows.append(_row(line, columns, record, found))
    return FillsFile(tuple(rows), tuple(faults))


def _records(text: str) -> Iterator[tuple[int, list[str] | LineFault]]:
    """Yield each record that is not blank, with the line it begins at; quotes that do not match are the last."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            told = f"the quotes do not match ({error}): double a quote inside quotes; no line after this one was read"
            yield line, LineFault(line, None, told)
            return
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _header_fault(columns: list[str]) -> str | None:
    """Return what is wrong with the header; None when nothing is."""
    missing = [name for name in COLUMNS if name not in columns and name not in OPTIONAL_COLUMNS]
    unknown = [name for name in columns if name not in COLUMNS]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    for separator, name in _OTHER_SEPARATORS.items():
        if missing and separator in "".join(columns):
            return f"the columns are separated by {name}: separate them by commas, and write decimals with a point"
    if set(unknown) & set(VOID_COLUMNS):
        return (
            f"columns {', '.join(VOID_COLUMNS)}: this was exported with --all, and the voided fills would count again; "
            "export without it"
        )
    faults = [
        f"{what} {', '.join(_shown(name) for name in names)}"
        for what, names in (("missing columns", missing), ("unknown columns", unknown), ("columns named twice", twice))
        if names
    ]
    return f"{'; '.join(faults)}: the first line must be {_HEADER} (fee may be left out)" if faults else None


def _miscounted(line: int, columns: list[str], cells: list[str]) -> LineFault:
    told = (
        f"{len(cells)} cells for {len(columns)} columns: quote a cell that holds a comma; "
        "numbers take no thousands separators, and a point before the decimals"
    )
    return LineFault(line, None, told)


def _row(line: int, columns: list[str], record: list[str], faults: list[LineFault]) -> Row:
    cells = {name: cell for name, cell in zip(columns, record, strict=True) if cell}
    return Row(line, cells | {fault.column: "" for fault in faults if fault.column is not None})


def _cell_faults(line: int, columns: list[str], cells: list[str]) -> list[LineFault]:
    faults = []
    for column, cell in zip(columns, cells, strict=True):
        if not cell and column not in OPTIONAL_COLUMNS:
            faults.append(LineFault(line, column, "is empty: every fill needs it"))
        elif len(cell) > MAX_CELL_CHARACTERS:
            told = f"longer than {MAX_CELL_CHARACTERS} characters, {_shown(cell)}: is a quote missing?"
            faults.append(LineFault(line, column, told))
    return faults


def _unreadable(line: int, message: str) -> FillsFile:
    return FillsFile((), (LineFault(line, None, message),), is_readable=False)


def _line_of(data: bytes, place: int) -> int:
    return len(_LINE_END.findall(data, 0, place)) + 1


def _shown(text: str) -> str:
    return ascii(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")


def _cell(value: object) -> str:
    """Return a value of a body as text. Raises TypeError for what no fill holds: a float has lost digits already."""
    match value:
        case None:
            return ""
        case str():
            return value
        case Decimal() | int() if not isinstance(value, bool):
            return format(Decimal(value), "f")
        case _:
            raise TypeError(f"{value!r} is no cell of a fill")
