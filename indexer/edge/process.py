"""The index process: owns a data folder's index, answers on loopback, and ends with its last lease.

Nobody starts or stops it by hand: `indexer.edge.client` does.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import structlog
import waitress

from indexer.edge.address import ADDRESS_FILE, EXIT_OWNED, LEASES_FILE, OWNER_FILE, describe_owner
from indexer.edge.app import create_app
from indexer.edge.catalog import Catalog
from indexer.edge.direct import DirectServer
from indexer.edge.files import FileLock, write_atomically
from indexer.errors import IndexOwned

_WATCH_SECONDS = 0.25
_PATIENCE_SECONDS = 1.0
"""For the owner's lock: clients that look whether it is free hold it for a moment."""
# The engine holds Python's lock while it works: threads only keep one slow body from holding up the others.
_THREADS = 8
_MAX_BODY = 512 * 2**20

_log = structlog.get_logger("index")


def run(folder: Path, *, optimize_after: int) -> None:
    """Own the index in `folder` and serve it until SIGTERM or until no lease is left.

    Raises:
        IndexOwned: another process owns it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = FileLock(folder / OWNER_FILE)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not owner.try_acquire():
        if time.monotonic() < deadline:
            time.sleep(0.005)
            continue
        raise IndexOwned(f"The index in {folder} belongs to {describe_owner(folder)}.")
    (folder / ADDRESS_FILE).unlink(missing_ok=True)  # of an owner that was killed
    leases = FileLock(folder / LEASES_FILE)
    catalog = Catalog(folder, optimize_after=optimize_after)
    secret = secrets.token_hex(32)
    server = waitress.create_server(
        create_app(catalog, secret),
        host="127.0.0.1",
        port=0,
        threads=_THREADS,
        ident=None,
        max_request_body_size=_MAX_BODY,
        channel_timeout=3600,
    )
    direct = DirectServer(catalog, secret)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    threading.Thread(target=server.run, name="serve", daemon=True).start()
    direct.start()
    url = f"http://127.0.0.1:{server.effective_port}"
    address = {"pid": os.getpid(), "url": url, "direct": direct.port, "secret": secret}
    write_atomically(folder / ADDRESS_FILE, address)
    _log.info("index opened", folder=str(folder), collections=catalog.names())
    while not stopping.wait(_WATCH_SECONDS):
        if leases.try_acquire():  # and keep it: a new client waits until this process is gone, then starts another
            break
        catalog.build_what_is_quiet()
    (folder / ADDRESS_FILE).unlink(missing_ok=True)
    direct.close()
    server.task_dispatcher.shutdown(cancel_pending=True, timeout=5)
    catalog.close()
    _log.info("index closed", folder=str(folder))


def main(arguments: list[str]) -> int:
    """`python -m indexer.edge FOLDER OPTIMIZE_AFTER`; `EXIT_OWNED` when the folder is taken."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    folder, optimize_after = arguments
    try:
        run(Path(folder), optimize_after=int(optimize_after))
    except IndexOwned as error:
        sys.stderr.write(f"{error.message} {error.remedy}\n")
        return EXIT_OWNED
    return 0
