"""A private PostgreSQL server for tests, from the binaries on this machine; None of it where there are none."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _find_binary(name: str) -> str | None:
    """Look on PATH, then where Debian puts what it does not put on PATH."""
    if (found := shutil.which(name)) is not None:
        return found
    return next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None)


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: name a user that it can run as, or None to stay who we are."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


@contextmanager
def running_postgres() -> Iterator[str | None]:
    """Yield the URL of an empty server on a free loopback port, or None when PostgreSQL is not installed."""
    initdb, postgres = _find_binary("initdb"), _find_binary("postgres")
    if initdb is None or postgres is None:
        yield None
        return
    user = _unprivileged_user()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="markstream-pg-") as parent:
        if user is not None:
            shutil.chown(parent, user)
        data = Path(parent) / "data"
        quiet = {"user": user, "cwd": parent, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(
            [initdb, "-D", data, "-U", "ledger", "--auth=trust", "--no-sync", "-E", "UTF8"], check=True, **quiet
        )
        options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={parent}"]
        with subprocess.Popen([postgres, "-D", data, "-F", *options], **quiet) as server:
            try:
                yield f"postgresql://ledger@127.0.0.1:{port}/postgres"
            finally:
                server.terminate()
