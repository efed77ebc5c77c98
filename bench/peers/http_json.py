"""Asking a server that was started for it: JSON over a kept connection for each thread, the same for every peer."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit


class Server:
    """A server's process, which says its address in its first line: `{"url": ...}`.

    The standard library's client takes a fraction of a millisecond, so that it is the server that is measured.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{command} ended with {self._process.wait()}")
        self.pid = self._process.pid
        self._host = urlsplit(json.loads(line)["url"]).netloc
        self._own = threading.local()

    def post(self, path: str, body: Any) -> Any:
        """The answer's JSON.

        Raises:
            RuntimeError: the server refused.
        """
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPConnection(self._host, timeout=60)
        self._own.connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        response = self._own.connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {content[:300]!r}")
        return json.loads(content)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)
