"""The API server's process: `python -m search_api.server`, on a socket that its supervisor has bound.

The supervisor keeps the listening socket open across restarts, so that while this process is replaced clients wait in
the socket's queue for a moment instead of being refused.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import click
import structlog

from indexer import tracing
from indexer.lifeline import follow_parent
from indexer.logs import configure_logging
from indexer.settings import Settings
from search_api.loopback import is_loopback

THREADS = 8
"""Requests in work at a time. More than cores, since some wait for the index; few, since each may hold an upload."""

DRAIN_SECONDS = 8.0
"""How long requests in work may take after a signal; less than the supervisor's grace."""

_log = structlog.get_logger("api")


@click.command()
@click.option("--fd", type=int, required=True, help="The listening socket, inherited.")
@click.option("--data", type=click.Path(path_type=Path), required=True)
def main(fd: int, data: Path) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is being answered."""
    stopping = threading.Event()
    settings = Settings(data=data)
    configure_logging(settings.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    follow_parent(stopping.set)
    tracing.start("crosslens-api")
    try:
        with socket.socket(fileno=fd) as listener:
            serve(settings, listener, stopping)
    finally:
        tracing.stop()


def serve(settings: Settings, listener: socket.socket, stopping: threading.Event) -> None:
    """Answer on a listening socket until `stopping`, then drain."""
    import waitress  # noqa: PLC0415  after the signal handlers, which must be there first
    from waitress import wasyncore  # noqa: PLC0415

    from indexer.moderation.notices import open_webhooks  # noqa: PLC0415
    from search_api.access.gate import gated_channel  # noqa: PLC0415
    from search_api.access.guard import Guard  # noqa: PLC0415
    from search_api.app import create_app  # noqa: PLC0415
    from search_api.services import Services  # noqa: PLC0415
    from search_api.threads import WarmestFirst  # noqa: PLC0415

    services = Services(settings)
    sockets: dict[int, Any] = {}
    guard = Guard(settings, public=not is_loopback(str(listener.getsockname()[0])))
    app = create_app(settings, services, guard=guard)
    if tracing.is_on():
        from search_api.tracing import trace  # noqa: PLC0415

        trace(app)
    server = waitress.create_server(
        app,
        map=sockets,
        sockets=[listener],
        _dispatcher=WarmestFirst(THREADS),
        ident=None,
        # Beyond this the body is not even read; below it the app says in JSON what it takes.
        max_request_body_size=2 * app.config["MAX_CONTENT_LENGTH"],
        # They are looked at, and believed of trusted proxies alone (`access.peers`).
        clear_untrusted_proxy_headers=False,
    )
    server.channel_class = gated_channel(guard.lets_in)
    threading.Thread(target=services.warm, name="warm", daemon=True).start()
    webhooks = open_webhooks(settings)
    if webhooks is not None:
        webhooks.start()
    try:
        while not stopping.is_set():
            wasyncore.loop(timeout=0.5, use_poll=True, map=sockets, count=1)
        _log.info("draining")
        server.accepting = False
        deadline = time.monotonic() + DRAIN_SECONDS
        while _busy(server) and time.monotonic() < deadline:
            wasyncore.loop(timeout=0.05, use_poll=True, map=sockets, count=1)
    finally:
        server.task_dispatcher.shutdown(cancel_pending=True, timeout=1)
        wasyncore.close_all(sockets)
        if webhooks is not None:
            webhooks.close()
        services.close()


def _busy(server: Any) -> bool:
    """Whether a request is being read, worked on or answered."""
    return any(
        channel.request is not None or channel.requests or channel.total_outbufs_len
        for channel in list(server.active_channels.values())
    )


if __name__ == "__main__":
    main()
