"""Who may ask for what, and how often."""

from __future__ import annotations

from indexer.errors.base import CrosslensError


class AccessError(CrosslensError):
    """Who may ask for what, and how often."""

    code = "access"
    status = 403


class KeyRequired(AccessError):
    """A request without a key, where one is needed."""

    code = "key_required"
    status = 401
    default_remedy = (
        "Send a key as `Authorization: Bearer clk_...` or `X-API-Key: clk_...`; see `crosslens keys --help`."
    )


class KeyInvalid(AccessError):
    """A key that is unknown, wrong, expired or revoked."""

    code = "key_invalid"
    status = 401
    default_remedy = "Check the key, or ask whoever runs this server for a new one."


class KeyForbids(AccessError):
    """A key that is right, but not for this."""

    code = "forbidden"
    status = 403
    default_remedy = "Use a key with that role, for that collection."


class KeyNotFound(AccessError):
    """No key of that id."""

    code = "key_not_found"
    status = 404
    default_remedy = "`crosslens keys list` shows them."


class RateLimited(AccessError):
    """More requests, bytes or items than a key or an address may send."""

    code = "rate_limited"
    status = 429
    default_remedy = "Send it again later; `Retry-After` says when."


class KeysUnavailable(AccessError):
    """The keys cannot be read, so that nobody is let in."""

    code = "keys_unavailable"
    status = 503
    default_remedy = "Start `crosslens serve`, or check CROSSLENS_REDIS_URL and the data folder."
