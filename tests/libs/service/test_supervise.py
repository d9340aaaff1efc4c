import asyncio
import signal

import pytest
import structlog

from libs.service import supervise
from libs.service.supervise import Supervisor, end_process
from tests.support.waiting import eventually


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise RuntimeError("boom")


async def end() -> None:
    return


async def cancel_itself() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("run", "reason"), [(fail, "RuntimeError: boom"), (end, "it returned"), (cancel_itself, "it was cancelled")]
)
async def test_a_task_that_ends_by_itself_is_a_failure_that_is_told(run: object, reason: str) -> None:
    told: list[tuple[str, str]] = []
    supervisor = Supervisor(on_death=lambda name, why: told.append((name, why)))
    supervisor.spawn("steady", forever)
    with structlog.testing.capture_logs() as logs:
        supervisor.spawn("writer", run)  # type: ignore[arg-type]
        await eventually(lambda: supervisor.has_failed)
    assert supervisor.failures == {"writer": reason}
    assert told == [("writer", reason)]
    assert [(entry["event"], entry["task"], entry["log_level"]) for entry in logs] == [
        ("background_task_died", "writer", "error")
    ]
    await supervisor.stop()
    assert supervisor.failures == {"writer": reason}


async def test_stopping_ends_tasks_youngest_first_and_is_no_failure() -> None:
    ended: list[str] = []

    def until_cancelled(name: str) -> supervise.Callable[[], supervise.Awaitable[None]]:
        async def run() -> None:
            try:
                await forever()
            finally:
                ended.append(name)

        return run

    supervisor = Supervisor(on_death=lambda *_: pytest.fail("no death"))
    for name in ("first", "second", "third"):
        supervisor.spawn(name, until_cancelled(name))
    await asyncio.sleep(0)
    await supervisor.stop()
    assert ended == ["third", "second", "first"]
    assert supervisor.failures == {}
    await supervisor.stop()


async def test_an_end_while_stopping_is_no_failure() -> None:
    async def return_when_cancelled() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            return

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        finally:
            await fail()

    supervisor = Supervisor(on_death=lambda *_: pytest.fail("no death"))
    supervisor.spawn("a", return_when_cancelled)
    supervisor.spawn("b", fail_when_cancelled)
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logs:
        await supervisor.stop()
    assert [entry["event"] for entry in logs] == ["background_task_failed_while_stopping"]
    assert supervisor.failures == {}


async def test_a_task_that_will_not_end_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STOP_TIMEOUT_S", 0.05)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    supervisor = Supervisor()
    supervisor.spawn("stubborn", stubborn)
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logs:
        await supervisor.stop()
    assert [(entry["event"], entry["task"]) for entry in logs] == [("background_task_stuck", "stubborn")]
    release.set()


async def test_a_swallowed_cancellation_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_CANCEL_AGAIN_S", 0.02)
    swallowed: list[int] = []

    async def deaf_once() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            swallowed.append(1)
        await forever()

    supervisor = Supervisor()
    supervisor.spawn("deaf", deaf_once)
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logs:
        await supervisor.stop()
    assert swallowed == [1]
    assert logs == []


async def test_names_are_unique() -> None:
    supervisor = Supervisor()
    supervisor.spawn("a", forever)
    with pytest.raises(ValueError, match="'a'"):
        supervisor.spawn("a", forever)
    await supervisor.stop()


def test_by_default_the_process_is_asked_to_end() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        end_process("writer", "boom")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
