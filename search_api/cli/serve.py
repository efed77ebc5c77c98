"""`crosslens serve`: the HTTP API on this machine, supervised."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import threading
import time
from typing import Any

import click

from indexer.cli.options import common_options
from indexer.errors import UsageError
from indexer.settings import Settings
from search_api.access.book import brought_key
from search_api.access.desk import refuse_without_key
from search_api.loopback import is_loopback
from workers.children import children
from workers.supervisor import Child, Supervisor

READY_SECONDS = 60.0
"""How long to wait for the first readiness before saying what is missing."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port.")
@common_options()
def serve(host: str, port: int, settings: Settings, as_json: bool) -> None:
    """Serve the HTTP API until Ctrl-C.

    What dies is started again, and nothing is left behind. By default only this machine can connect, and needs no key
    until there is one. On another --host every request needs a key: see `crosslens keys`.
    """
    from indexer.logs import configure_logging  # noqa: PLC0415
    from indexer.moderation.notices import open_webhooks  # noqa: PLC0415  not for `crosslens --help`

    configure_logging(settings.log_level)
    # Said here, once, rather than by a child that dies of it again and again.
    brought_key(settings)
    open_webhooks(settings)
    family, address = resolve(host, port)
    if not is_loopback(str(address[0])):
        refuse_without_key(settings, host)
    listener = listen(family, address)
    url = _url(listener)
    command = [sys.executable, "-m", "search_api.server"]
    command += ["--fd", str(listener.fileno()), "--data", str(settings.data.absolute())]
    api = Child("api", command, pass_fds=(listener.fileno(),))
    supervisor = Supervisor([api, *children(settings)])
    threading.Thread(target=_announce, args=(url, settings, as_json), name="announce", daemon=True).start()
    with listener:
        sys.exit(supervisor.run())


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """The first address of a host's name, and its family.

    Raises:
        UsageError: there is none.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{host!r} is no address of this machine.", remedy="Leave --host out.") from error
    return family, address


def listen(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: the address is another machine's, or its port is taken.
    """
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"Cannot listen on {address[0]}:{address[1]}: {os.strerror(error.errno or 0).lower()}.",
            remedy="Stop what uses the port, or name another with --port (0 takes any free one).",
        ) from error
    listener.listen(1024)
    return listener


def _url(listener: socket.socket) -> str:
    """Where this machine reaches it: by loopback, if it listens everywhere."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  not to listen there
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def _announce(url: str, settings: Settings, as_json: bool) -> None:
    """Say where it is once it can answer, and what to do next; or what it waits for."""
    deadline = time.monotonic() + READY_SECONDS
    reason = "The API did not answer."
    while time.monotonic() < deadline:
        status, reason = _asked(url, "/readyz")
        if status == 200:
            break
        time.sleep(0.05)
    else:
        click.echo(f"Still not ready: {reason}", err=True)
        return
    if as_json:
        click.echo(json.dumps({"url": url, "pid": os.getpid(), "data": str(settings.data)}))
        return
    click.echo(f"Crosslens is ready at {url} with the data of {settings.data}. Ctrl-C stops it. Next:")
    key = '-H "Authorization: Bearer $CROSSLENS_KEY" ' if _wants_key(url) else ""
    click.echo(f"  curl {key}-F file=@photo.jpg {url}/v1/collections/{settings.collection}/items")
    click.echo(
        f'  curl {key}--json \'{{"query": [{{"text": "a dog on a beach"}}]}}\' '
        f"{url}/v1/collections/{settings.collection}/search"
    )


def _wants_key(url: str) -> bool:
    return _asked(url, "/v1/collections")[0] == 401


def _asked(url: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read()).get("detail", "")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return 0, f"The API does not answer ({error})."
    finally:
        connection.close()
