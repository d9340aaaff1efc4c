"""Ends connections whose request does not arrive: half a request, or one byte a second, holds a connection for ever.

uvicorn bounds only the time between two requests. The rest is bounded here: from a connection's first moment, or the
first byte of a further request, to the end of the request's body. Answers may take as long as they like.
"""

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from libs.service.problems import PROBLEM_MEDIA_TYPE, standard_problem

REQUEST_TIMEOUT_S: Final = 30.0
_ANSWER_FIRST_S: Final = 1.0
"""A body that does not arrive is answered 408 by `limits.py` first: that begins to count when the headers are there."""


class PunctualProtocol(H11Protocol):
    """Close a connection when a request is not complete `REQUEST_TIMEOUT_S` after it began."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request, and see whether it is complete now."""
        super().data_received(data)
        self._look_at_request()

    def on_response_complete(self) -> None:
        """Go on to the next request, of which a part may be here already."""
        super().on_response_complete()
        if self._is_in_a_request:
            self._look_at_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._request_is_complete()
        super().connection_lost(exc)

    @property
    def _is_in_a_request(self) -> bool:
        """Whether part of a request is here and the rest is not."""
        return self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])

    def _look_at_request(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._expect_request()
        else:
            self._request_is_complete()

    def _expect_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_TIMEOUT_S + _ANSWER_FIRST_S, self._give_up)

    def _request_is_complete(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(_TOO_SLOW)
        self.transport.close()


def _answer() -> bytes:
    problem = standard_problem(408, f"the request did not arrive within {REQUEST_TIMEOUT_S:g} s; send it again")
    body = problem.body()
    head = (
        f"HTTP/1.1 408 {problem.title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


_TOO_SLOW: Final = _answer()
