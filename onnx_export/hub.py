"""Errors of the hub's libraries as one sentence: what could not be fetched, and what to do about it."""

from __future__ import annotations

import os
import pickle
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from huggingface_hub import constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError

from indexer.errors import HubUnreachable, UsageError

_PATIENCE_SECONDS = 10.0
_NETWORK = (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError, ConnectionError, urllib.error.URLError)


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn what the hub's libraries raise while `source` is loaded into our errors.

    Raises:
        HubUnreachable: nothing answers, and the cache does not hold it.
        UsageError: the hub, or the folder, has no such checkpoint.
    """
    try:
        yield
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"The hub has no {source}, or it is not public.", remedy="Check the name; set HF_TOKEN for a private one."
        ) from error
    except (HfHubHTTPError, *_NETWORK) as error:
        raise HubUnreachable(f"{source} is not here, and the hub does not answer.") from error
    except OSError as error:
        if _is_network(error):
            raise HubUnreachable(f"{source} is not here, and the hub does not answer.") from error
        raise UsageError(
            f"{source} cannot be read: {_first_line(error)}", remedy="Check its name and files."
        ) from error
    except (pickle.UnpicklingError, SafetensorError) as error:
        raise UsageError(
            f"{source} is no checkpoint that its library reads: its weights are damaged, or would run code.",
            remedy="Get the weights again, as safetensors if there are any.",
        ) from error
    except (ValueError, RuntimeError, KeyError) as error:
        if _is_network(error):
            raise HubUnreachable(f"{source} is not here, and the hub does not answer.") from error
        raise UsageError(
            f"{source} is no checkpoint that its library reads: {_first_line(error)}",
            remedy="Check its name and files.",
        ) from error


def stay_offline_if_unreachable() -> None:
    """Ask the hub for a sign of life; if there is none, have its libraries look into their cache alone.

    They would try again for a minute otherwise, file by file, before they say the same.
    """
    if constants.HF_HUB_OFFLINE:
        return
    try:
        httpx.head(constants.ENDPOINT, timeout=_PATIENCE_SECONDS)
    except httpx.TransportError:
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True


def _is_network(error: BaseException) -> bool:
    """Whether the network is behind it: the libraries wrap such errors, sometimes in words alone."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, _NETWORK):
            return True
        if "couldn't connect" in str(chain).lower() or "offline mode" in str(chain).lower():
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
