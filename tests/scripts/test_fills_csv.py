import codecs
import csv
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import fills_csv
from scripts.fills_csv import COLUMNS, FillsFile, read_fills, write_fills
from scripts.local_services import read_body

HEADER = ",".join(COLUMNS)
LINE = "f-1,AAPL,buy,100,150.25,0.35,2025-10-19T14:30:15Z"
NUMBERS = "numbers take no thousands separators, and a point before the decimals"
CELLS = dict(zip(COLUMNS, LINE.split(","), strict=True))


def read(*lines: str, end: str = "\n", encoding: str = "utf-8") -> FillsFile:
    return read_fills((end.join(lines) + end).encode(encoding))


def told(file: FillsFile) -> list[str]:
    return [str(fault) for fault in file.faults]


def only_fault(file: FillsFile) -> str:
    assert file.rows == ()
    (fault,) = told(file)
    return fault


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_sample(end: str, encoding: str):
    file = read(HEADER, LINE, end=end, encoding=encoding)
    assert (file.faults, file.is_readable) == ((), True)
    ((line, cells),) = ((row.line, row.cells) for row in file.rows)
    assert (line, cells) == (2, CELLS)


@pytest.mark.parametrize("lines", [[], [""], [HEADER], ["", HEADER, "", ",,,,,,", "  "]])
def test_files_that_hold_no_fill(lines: list[str]):
    assert read(*lines) == FillsFile((), ())


def test_an_empty_fee_and_a_missing_one_are_left_out():
    file = read(HEADER, LINE.replace("0.35", ""))
    without = read(HEADER.replace("fee,", ""), LINE.replace("0.35,", ""))
    assert file == without
    assert "fee" not in file.rows[0].cells


def test_columns_in_another_order_and_case():
    assert (
        read("Side, FILL_ID ,symbol,qty,price,filled_at,fee", "buy,f-1,AAPL,100,150.25,2025-10-19T14:30:15Z,0.35")
        .rows[0]
        .cells
        == CELLS
    )


def test_lines_are_numbered_as_an_editor_does():
    quoted = LINE.replace("f-1", '"two\nlines"')
    file = read("", HEADER, "", quoted, "too,short", "", LINE)
    assert [row.line for row in file.rows] == [4, 8]
    assert told(file) == ["line 6: 2 cells for 7 columns: quote a cell that holds a comma; " + NUMBERS]


def test_quoted_cells():
    (row,) = read(HEADER, '"a ""b"", c",AAPL,"buy",100,"150.25",,2025-10-19T14:30:15Z').rows
    assert (row.cells["fill_id"], row.cells["side"], row.cells["price"]) == ('a "b", c', "buy", "150.25")


def test_every_fault_is_told_and_all_else_is_kept():
    file = read(HEADER, ",AAPL,,1,2,,t", LINE, "a,b", f"{'x' * 501},A,buy,1,2,,t", "1,2,3,4,5,6,7,8")
    assert [row.line for row in file.rows] == [2, 3, 5]
    assert [row.cells["fill_id"] for row in file.rows] == ["", "f-1", ""]
    assert [(fault.line, fault.column) for fault in file.faults] == [
        (2, "fill_id"), (2, "side"), (4, None), (5, "fill_id"), (6, None),
    ]  # fmt: skip
    assert file.is_readable


@pytest.mark.parametrize("line", ['"open,AAPL,buy,1,2,,t', 'a,"b"c,buy,1,2,,t', f"{'x' * 140_000},A,buy,1,2,,t"])
def test_after_broken_quotes_nothing_is_believed(line: str):
    file = read(HEADER, LINE, line, LINE)
    assert [row.line for row in file.rows] == [2]
    (fault,) = told(file)
    assert fault.startswith("line 3: the quotes do not match (")
    assert "no line after this one was read" in fault


def test_broken_quotes_in_the_header():
    assert only_fault(read('"fill_id,symbol')).startswith("line 1: the quotes do not match")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (f"{HEADER}\r\n{LINE}\r\nördre".encode("latin-1"), "line 3: the encoding is not UTF-8 (byte 0xf6)"),
        (codecs.BOM_UTF8 + f"{HEADER}\n".encode() + b"\xff", "line 2: the encoding is not UTF-8 (byte 0xff)"),
        (HEADER.encode() + b"\r\r\xe9", "line 3: the encoding is not UTF-8 (byte 0xe9)"),
        (HEADER.encode("utf-16"), "line 1: the file's encoding is UTF-16"),
        (HEADER.encode("utf-16-le"), "line 1: a NUL character"),
        (f"{HEADER}\n{LINE}\0".encode(), "line 2: a NUL character"),
    ],
)
def test_other_encodings(data: bytes, complaint: str):
    file = read_fills(data)
    assert not file.is_readable
    assert only_fault(file).startswith(complaint)
    assert only_fault(file).endswith("save the file as CSV UTF-8") or "save it as CSV UTF-8" in only_fault(file)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (HEADER.replace(",", ";"), "separated by semicolons: separate them by commas"),
        (HEADER.replace(",", "\t"), "separated by tabs"),
        ("fill_id,symbol,side,qty,fee", "missing columns 'price', 'filled_at': the first line must be fill_id,"),
        (f"{HEADER},note", "unknown columns 'note'"),
        (f"{HEADER},fee", "columns named twice 'fee'"),
        (LINE, "missing columns 'fill_id'"),
        (f"{HEADER},", "unknown columns ''"),
        (f"{HEADER},voided_at,void_reason", "exported with --all"),
    ],
)
def test_headers_that_are_none(header: str, complaint: str):
    file = read(header, LINE)
    assert not file.is_readable
    fault = only_fault(file)
    assert fault.startswith("line 1: ")
    assert complaint in fault


def test_a_file_that_is_too_large():
    assert "larger than 16 MiB" in only_fault(read_fills(b" " * (fills_csv.MAX_FILE_BYTES + 1)))


def test_a_file_with_too_many_fills():
    assert len(read(HEADER, *[LINE] * 10_000).rows) == 10_000
    many_faults = read(HEADER, *[",,,1,,,"] * 10_000)
    assert len(many_faults.faults) == 50_000, "faults are not fills"
    file = read(HEADER, *[LINE] * 10_001)
    assert only_fault(file) == "line 10002: more than 10,000 fills: split the file, oldest fills first"
    assert not file.is_readable


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: f"{HEADER}\n{text}".encode()))
def test_any_bytes_are_rows_or_faults_at_their_lines(data: bytes):
    file = read_fills(data)
    lines = data.count(b"\n") + data.count(b"\r") + 1
    assert all(1 <= fault.line <= lines and fault.message for fault in file.faults)
    assert all(row.cells.keys() <= set(COLUMNS) for row in file.rows)
    assert file.is_readable or (file.faults and not file.rows)


# Printable, with the characters that mean something in CSV, and spaces within.
words = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(",\"';=#"), min_size=1, max_size=12)
ids = st.lists(words, min_size=1, max_size=3).map(" ".join)
numbers = st.decimals("0.000000001", "999999999999", places=9).map(lambda number: number.normalize())
exported = st.fixed_dictionaries(
    {
        "fill_id": ids,
        "symbol": st.sampled_from(["AAPL", "BTC/USD"]),
        "side": st.sampled_from(["buy", "sell"]),
        "qty": numbers,
        "price": numbers | st.integers(1, 10**11),
        "fee": st.just(0) | numbers,
        "filled_at": st.datetimes().map(lambda time: f"{time.isoformat()}+00:00"),
        "voided_at": st.none(),
        "void_reason": st.none() | ids,
    }
)


@given(st.lists(exported, max_size=8))
def test_what_is_written_is_read_again_digit_for_digit(fills: list[dict[str, object]]):
    file = read_fills(write_fills(fills).encode())
    assert file.faults == ()
    assert len(file.rows) == len(fills)
    for row, fill in zip(file.rows, fills, strict=True):
        assert all(row.cells[name] == fill[name] for name in ("fill_id", "symbol", "side", "filled_at"))
        assert all(Decimal(row.cells[name]) == fill[name] for name in ("qty", "price", "fee"))
        assert "E" not in row.cells["qty"] + row.cells["price"] + row.cells["fee"]


@given(st.lists(exported, max_size=5))
def test_voids_are_written_when_asked(fills: list[dict[str, object]]):
    header, *rows = csv.reader(write_fills(fills, with_voids=True).splitlines())
    assert header == [*COLUMNS, "voided_at", "void_reason"]
    assert [row[-1] for row in rows] == [fill["void_reason"] or "" for fill in fills]
    assert not read_fills(write_fills(fills, with_voids=True).encode()).is_readable


def test_numbers_of_a_body_keep_their_digits():
    body = read_body('{"qty":123456789.123456789,"price":1E-9,"fee":0}')
    text = write_fills([{**CELLS, **body}])
    assert ",123456789.123456789,0.000000001,0," in text


@pytest.mark.parametrize("value", [1.5, True, [], {}])
def test_what_is_no_cell(value: object):
    with pytest.raises(TypeError):
        write_fills([{**CELLS, "qty": value}])
