"""Requests that are tried again where that may help, and errors as exceptions.

Tried again are connections that fail or break off, 429 and 503; after the time that `Retry-After` names, else after one
that doubles, at random up to it (full jitter), so that clients which failed together do not come back together.

This is safe for every method. PUT, PATCH and DELETE do the same twice. An upload that was stored though its answer was
lost finds its items there (ids come from the content or the caller), and a job that was queued twice passes over what
the first one indexed.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from indexer.errors import InvalidRequest
from indexer.errors.remote import ApiError, ServerUnreachable

Model = TypeVar("Model", bound=BaseModel)

AGAIN = frozenset({429, 503})
LONGEST_WAIT = 60.0
"""Seconds: whoever is told to wait longer is better told."""
_FIRST_WAIT = 0.25
_BROKEN = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.WriteError, httpx.CloseError,
    httpx.RemoteProtocolError,
)  # fmt: skip
"""Not the other timeouts: a server that is too slow gets no faster by being asked twice."""


class Transport:
    """One server, and how it is asked."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        timeout: float,
        retries: int,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`transport` is httpx's."""
        self._retries = retries
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, model: type[Model], path: str, **parts: Any) -> Model:
        """What a GET answers."""
        return self.ask(model, "GET", path, **parts)

    def ask(self, model: type[Model], method: str, path: str, *, more_seconds: float = 0.0, **parts: Any) -> Model:
        """What a request answers, as a model; `parts` are httpx's (`json`, `files`, `params`, ...).

        `more_seconds`: what the answer may take longer than usual.

        Raises:
            ApiError: the server refuses, or answers with something else than Crosslens does.
            ServerUnreachable: there is no answer.
            InvalidRequest: it cannot be sent, for text that is not valid Unicode.
        """
        if more_seconds > 0:
            usual = self._client.timeout.as_dict()
            read = usual["read"]
            parts["timeout"] = httpx.Timeout(**usual | {"read": None if read is None else read + more_seconds})
        response = self.send(method, path, **parts)
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:
            raise ApiError(
                f"The server's answer is no {model.__name__}.",
                status=response.status_code,
                code="unexpected_answer",
                remedy="Check the address: is it a Crosslens server, of this version or a newer one?",
                request_id=response.headers.get("X-Request-Id"),
            ) from error

    def send(self, method: str, path: str, **parts: Any) -> httpx.Response:
        """The answer to a request, read in full; raises as `ask`."""

        def ask(attempt: int) -> httpx.Response:
            response = self._opened(method, path, parts, attempt)
            with _closed(response):
                response.read()
            return response

        return self._again(ask)

    @contextmanager
    def stream(self, method: str, path: str, **parts: Any) -> Iterator[httpx.Response]:
        """The answer to a request, to be read while the context lasts; raises as `ask`, and when it breaks off."""
        response = self._again(lambda attempt: self._opened(method, path, parts, attempt))
        with _closed(response):
            yield response

    def is_ready(self) -> bool:
        """Whether the server says that it can answer; asked once."""
        try:
            with _closed(self._opened("GET", "/readyz", {}, 0)):
                return True
        except ApiError as error:
            if error.status in {0, 503}:
                return False
            raise

    def _again(self, ask: Callable[[int], httpx.Response]) -> httpx.Response:
        attempt = 0
        while True:
            try:
                return ask(attempt)
            except ApiError as error:
                told = error.details.get("retry_after")
                worth = error.status in AGAIN or error.details.get("broke_off", False)
                if not worth or attempt >= self._retries or (told or 0) > LONGEST_WAIT:
                    raise
            longest = min(_FIRST_WAIT * 2**attempt, LONGEST_WAIT)
            time.sleep(random.uniform(0, longest) if told is None else told)  # noqa: S311  no secret
            attempt += 1

    def _opened(self, method: str, path: str, parts: dict[str, Any], attempt: int) -> httpx.Response:
        """The answer, whose body is still to be read; an error's is read."""
        with _telling():
            try:
                request = self._client.build_request(method, path, **parts)
            except UnicodeEncodeError as error:  # a lone surrogate, which a file name or a command line may bring
                raise InvalidRequest(
                    "The request has text that is not valid Unicode.", remedy="Write it in UTF-8."
                ) from error
            response = self._client.send(request, stream=True)
        if response.is_success:
            return response
        with _closed(response):
            response.read()
        if method == "DELETE" and response.status_code == 404 and attempt > 0:
            return response  # it is gone: the answer to an earlier attempt was lost
        raise error_of(response)


@contextmanager
def _telling() -> Iterator[None]:
    """Make httpx' errors ours."""
    try:
        yield
    except _BROKEN as error:
        raise ServerUnreachable(f"The server does not answer: {_words(error)}.", status=0, broke_off=True) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerUnreachable(f"The server does not answer: {_words(error)}.", status=0) from error


@contextmanager
def _closed(response: httpx.Response) -> Iterator[None]:
    """Close an answer that is read in here."""
    try:
        with _telling():
            yield
    finally:
        response.close()


def _words(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that an answer asks to wait: its header is a number or a date; None if it does not say."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def error_of(response: httpx.Response) -> ApiError:
    """A problem document as an exception; of a proxy's page, its status alone."""
    status, request_id = response.status_code, response.headers.get("X-Request-Id")
    try:
        body = json.loads(response.content)
        detail, code, remedy = (body.pop(name) for name in ("detail", "code", "remedy"))
    except (ValueError, AttributeError, KeyError):
        return ApiError(
            f"The server answers {status} {response.reason_phrase}.",
            status=status, code=f"http_{status}", request_id=request_id, retry_after=retry_after(response),
            remedy="It is none of Crosslens' answers; check the address, and any proxy before it.",
        )  # fmt: skip
    known = {"type", "title", "status", "instance", "request_id", "self", "message", "broke_off"}
    details = {name: value for name, value in body.items() if name not in known}
    details["retry_after"] = retry_after(response)
    return ApiError(str(detail), status=status, code=str(code), remedy=str(remedy), request_id=request_id, **details)
