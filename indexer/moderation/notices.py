"""What the operator's webhook is told of: verdicts of stored items that have changed, whoever changed them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import SecretStr

from indexer.errors import UsageError
from indexer.moderation.policy import Action

if TYPE_CHECKING:
    from indexer.moderation.webhooks import Webhooks
    from indexer.settings import Settings

ENDPOINT = "operator"
"""Under which its deliveries are kept."""
_log = structlog.get_logger("webhooks")

Verdicts = Mapping[str, Mapping[str, Any]]


def open_webhooks(settings: Settings) -> Webhooks | None:
    """The webhook that the settings name, which whoever changes verdicts puts messages in; None without one.

    Private hosts are posted to only if `fetch_allow` has them.

    Raises:
        UrlRefused: the URL is none of the web's.
        UsageError: a URL without a secret, or a secret that is none.
    """
    url, secret = settings.webhook_url, settings.webhook_secret
    if url is None:
        return None
    if secret is None:
        raise UsageError(
            "CROSSLENS_WEBHOOK_URL needs CROSSLENS_WEBHOOK_SECRET, with which messages are signed.",
            remedy='Make one: echo "whsec_$(openssl rand -base64 32)"',
        )
    from indexer.moderation.posting import Poster  # noqa: PLC0415  an HTTP client, for who has a webhook
    from indexer.moderation.webhooks import Endpoint, Webhooks  # noqa: PLC0415

    endpoint = Endpoint(ENDPOINT, url, SecretStr(secret.get_secret_value().strip()))
    return Webhooks(settings.data, [endpoint], poster=Poster(allow=settings.fetch_allowed))


def tell(webhooks: Webhooks | None, collection: str, verdicts: Verdicts) -> None:
    """Put in messages of new verdicts, by the items' ids. A disk that refuses them is logged: the verdicts stand."""
    if webhooks is None or not verdicts:
        return
    try:
        webhooks.put(collection, verdicts)
    except (OSError, sqlite3.Error) as error:
        _log.error("verdicts were not put in", collection=collection, count=len(verdicts), detail=str(error))


def action_changed(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """Whether a judgement changed what is done with an item; one that is allowed at first is no news."""
    was = Action.ALLOW.value if before is None else before["action"]
    return bool(was != after["action"])
