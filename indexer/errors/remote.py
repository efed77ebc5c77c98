"""What a Crosslens server that was asked over HTTP answered, or that it did not."""

from __future__ import annotations

from typing import Any

from indexer.errors.base import CrosslensError


class ApiError(CrosslensError):
    """A server answered with an error; its `code` and `status` are the server's."""

    code = "api"
    default_remedy = "See the server's log."

    def __init__(
        self,
        detail: str,
        *,
        status: int = 500,
        code: str | None = None,
        remedy: str | None = None,
        request_id: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(detail, remedy=remedy, **details)
        # Each answer has its own, over those of the class.
        vars(self).update({"status": status} | ({} if code is None else {"code": code}))
        self.request_id = request_id
        """The answer's `X-Request-Id`, under which the server's log has the request."""

    @property
    def detail(self) -> str:
        """What is wrong, in a sentence."""
        return self.message


class ServerUnreachable(ApiError):
    """A server that cannot be connected to, or broke off, however often it was asked."""

    code = "server_unreachable"
    default_remedy = "Check the address, and that `crosslens serve` runs there."
