"""What a damaged, locked or exchanged database file does to the ledger: an error, never an empty book."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from apps.execution_gateway.database import DatabaseUnavailableError, create_engine, migrate
from apps.execution_gateway.ledger import Ledger
from libs.portfolio.book import Revision
from tests.support.portfolio import fill
from tests.support.sqlite_threads import sqlite_threads_ended


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[Ledger]:
    """A ledger of one fill whose book has been read once."""
    engine = create_engine(f"sqlite:///{path}")
    await migrate(engine)
    ledger = Ledger(engine)
    await ledger.record_fill(fill(100, 150, fill_id="1"))
    await ledger.book()
    yield ledger
    await engine.dispose()
    await sqlite_threads_ended()


async def assert_unusable(ledger: Ledger) -> None:
    for attempt in (
        ledger.book(),
        ledger.list_fills(),
        ledger.record_fill(fill(1, 1, fill_id="2")),
        ledger.void_fill("1", "why"),
    ):
        with pytest.raises(DatabaseUnavailableError):
            await attempt


async def test_a_vanished_file(ledger: Ledger, path: Path) -> None:
    moved = path.rename(path.with_suffix(".away"))
    await assert_unusable(ledger)
    assert not path.exists()
    moved.rename(path)
    assert (await ledger.book()).positions["AAPL"].qty == 100


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_an_overwritten_file(ledger: Ledger, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    await assert_unusable(ledger)


async def test_a_truncated_file(ledger: Ledger, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])
    await assert_unusable(ledger)


async def test_a_folder_in_its_place(ledger: Ledger, path: Path) -> None:
    path.unlink()
    path.mkdir()
    await assert_unusable(ledger)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE fills SET qty = 'ten'",
        "UPDATE fills SET qty = '-5'",
        "UPDATE fills SET price = 'NaN'",
        "UPDATE fills SET side = 'hold'",
        "UPDATE fills SET filled_at = 'yesterday'",
    ],
)
async def test_a_row_that_no_fill_can_be(ledger: Ledger, path: Path, damage: str) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(damage)
    with pytest.raises(DatabaseUnavailableError, match="unreadable row"):
        await Ledger(ledger._access._engine).book()


async def test_a_database_that_refuses_a_valid_fill_is_no_conflict(ledger: Ledger, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON fills BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(DatabaseUnavailableError, match="refused a valid fill"):
        await ledger.record_fill(fill(1, 1, fill_id="2"))
    assert (await ledger.book()).positions["AAPL"].qty == 100


async def test_a_locked_file_is_an_error_in_bounded_time(ledger: Ledger, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError, match="locked"):
            await ledger.book()
        assert time.monotonic() - began < 2.5
        other.execute("ROLLBACK")
    assert (await ledger.book()).positions["AAPL"].qty == 100


async def test_a_reader_does_not_wait_for_another_writer(ledger: Ledger, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert (await ledger.book()).positions["AAPL"].qty == 100


async def test_an_older_backup_put_in_its_place_is_read_from_the_beginning(ledger: Ledger, path: Path) -> None:
    backup = path.read_bytes()
    await ledger.record_fill(fill(50, 150, fill_id="2"))
    await ledger.void_fill("1", "mistake")
    assert (await ledger.book()).positions["AAPL"].qty == 50
    path.write_bytes(backup)
    book = await ledger.book()
    assert book.revision == Revision(1, 0)
    assert book.positions["AAPL"].qty == 100


async def cut_short(ledger: Ledger, after_s: float) -> None:
    """Ask for the book, and lose patience."""
    asking = asyncio.create_task(ledger.book())
    await asyncio.sleep(after_s)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_reading_that_is_cut_short_locks_nothing(ledger: Ledger) -> None:
    for turn in range(200):
        # Would be "database is locked" for as long as the garbage collector likes.
        await ledger.record_fill(fill(1, 100, fill_id=f"turn {turn}"))
        await cut_short(ledger, turn % 100 * 0.00003)
    assert (await ledger.book()).positions["AAPL"].qty == 100 + 200
    await ledger.finish()


async def test_a_database_is_closed_once_the_ledger_has_finished(ledger: Ledger, path: Path) -> None:
    """What is read for all who ask goes on when none of them waits for it any more."""
    for turn in range(40):
        engine = create_engine(f"sqlite:///{path}")
        fresh = Ledger(engine)
        await cut_short(fresh, turn * 0.00015)
        await fresh.finish()
        await engine.dispose()
    await ledger.finish()
