"""A real HTTP server on a free port whose answers a test writes down: for what no honest server would say."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDictProxy


@dataclass(slots=True)
class Said:
    """One answer. `after_s` makes the server wait first; `drip_s` sends the body byte by byte with pauses."""

    body: str | bytes = "{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    drip_s: float = 0.0


@dataclass(slots=True)
class Asked:
    """One request as it arrived."""

    path: str
    query: dict[str, str]
    headers: CIMultiDictProxy[str]


class ScriptedHttp:
    """Answers each path with its list of answers in turn, the last of them for ever; 404 where none is written."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Said]] = {}
        self.asked: list[Asked] = []
        self.url = ""

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def say(self, path: str, *answers: Said | str) -> None:
        self.answers[path] = [Said(answer) if isinstance(answer, str) else answer for answer in answers]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(Asked(request.path, dict(request.query), request.headers))
        answers = self.answers.get(request.path)
        if not answers:
            return web.Response(status=404, text="404: Not Found")
        said = answers.pop(0) if len(answers) > 1 else answers[0]
        body = said.body.encode() if isinstance(said.body, str) else said.body
        await asyncio.sleep(said.after_s)
        if not said.drip_s:
            return web.Response(status=said.status, body=body, headers=said.headers)
        answer = web.StreamResponse(status=said.status, headers=said.headers)
        await answer.prepare(request)
        for byte in body:
            await answer.write(bytes((byte,)))
            await asyncio.sleep(said.drip_s)
        return answer


@asynccontextmanager
async def scripted_http() -> AsyncIterator[ScriptedHttp]:
    """Run one for the length of a test."""
    script = ScriptedHttp()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    script.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield script
    finally:
        await runner.cleanup()
