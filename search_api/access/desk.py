"""The store of keys for one command: of the broker that runs, or of one that is started for as long as it takes."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from indexer.errors import KeysUnavailable, UsageError
from indexer.settings import Settings
from search_api.access.book import brought_key
from search_api.access.store import KeyStore, open_keys

_START_SECONDS = 15.0


@contextmanager
def key_store(settings: Settings) -> Iterator[KeyStore]:
    """The store of keys, answering.

    Raises:
        KeysUnavailable: it does not answer, and cannot be started.
    """
    store = open_keys(settings)
    try:
        store.all()
    except KeysUnavailable:
        if settings.redis_url is not None or not settings.has_queue:
            raise
        with _broker(settings):
            _wait_for(store)
            yield store
        return
    yield store


def refuse_without_key(settings: Settings, host: str) -> None:
    """Keep a server from an address that other machines reach, unless there is a key.

    Raises:
        UsageError: there is none that may still be used; the remedy says how to make one.
        InvalidRequest: the admin key that the environment brings will not do.
        KeysUnavailable: nobody knows whether there is one.
    """
    if brought_key(settings) is not None:
        return
    with key_store(settings) as store:
        if any(key.state(datetime.now(UTC)) == "active" for key in store.all().values()):
            return
    create = f"crosslens keys create admin --role admin --data {shlex.quote(str(settings.data))}"
    raise UsageError(
        f"Crosslens does not listen on {host} without a key: whoever reaches it could read and change everything.",
        remedy=f"Make the first one, `{create}`, or set "
        "CROSSLENS_ADMIN_KEY or CROSSLENS_ADMIN_KEY_FILE; then start it again.",
    )


@contextmanager
def _broker(settings: Settings) -> Iterator[None]:
    """The embedded broker, as a child. Should one start meanwhile, ours waits for its turn and is not needed."""
    command = [sys.executable, "-m", "workers.broker", "--data", str(settings.data.absolute())]
    child = subprocess.Popen(command, stdout=sys.stderr.fileno())  # noqa: S603  our own command line, never a shell
    try:
        yield
    finally:
        child.terminate()  # it writes down what it has, and ends
        child.wait()


def _wait_for(store: KeyStore) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            store.all()
            return
        except KeysUnavailable:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.02)
