"""aiosqlite's threads: one whose connection could not be opened ends by itself, a moment later, unwaited for.

Should the test's event loop be closed in that moment, the thread fails, and pytest blames whichever test comes next.
"""

import threading

from tests.support.waiting import eventually


async def sqlite_threads_ended() -> None:
    """Return when no connection's thread runs any more: call it last, with every engine disposed of."""
    await eventually(lambda: not any("_connection_worker_thread" in thread.name for thread in threading.enumerate()))
