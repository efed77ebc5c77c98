"""Where an index process says it is, and who holds its folder: the files that client and process agree on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OWNER_FILE = "owner.lock"
"""Held (flock) by the process that owns the index."""
ADDRESS_FILE = "address.json"
"""The owner's pid, URL, port for direct questions, and secret, readable by the owner of the folder alone."""
LEASES_FILE = "leases.lock"
"""Held shared by every client; when nobody holds it any more, the process ends."""

EXIT_OWNED = 2
"""The process' exit code where another one owns the folder."""


def read_address(folder: Path) -> dict[str, Any] | None:
    """Where the index process of `folder` says it answers, whether or not it still runs."""
    try:
        address: dict[str, Any] = json.loads((folder / ADDRESS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return address


def describe_owner(folder: Path) -> str:
    """Who has the index, in words."""
    address = read_address(folder)
    return f"process {address['pid']}" if address else "a process that is just starting or ending"
