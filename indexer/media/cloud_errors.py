"""What three clouds' libraries raise, as Crosslens' errors.

They are told apart by the names of their classes and by the services' own codes, so that nothing has to be imported.
Their texts are not repeated: some hold a key's id, a signed URL or a connection string.
"""

from __future__ import annotations

import re
from enum import Enum

from indexer.errors import AccessDenied, EmptyFile, FetchFailed, FetchTimeout, MediaError, MediaGone, Unreadable

_AGAIN = "Try again later: what is indexed is skipped then. If it stays so, check the network and the storage's address"
_DEPTH = 8
_CODE = re.compile(r"[A-Za-z0-9]{1,40}")


class _Trouble(Enum):
    """What went wrong, the more particular first, with the names that tell it."""

    NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
    ARCHIVED = frozenset({"InvalidObjectState", "BlobArchived"})
    NO_CREDENTIALS = frozenset(
        {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
        | {"NoAuthTokenError", "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError"}
        | {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"}
        | {"GoogleAuthError", "CredentialUnavailableError", "ClientAuthenticationError", "AuthenticationFailed"}
        | {"NoAuthenticationInformation", "InvalidAuthenticationInfo", "401"}
    )
    DENIED = frozenset({"PermissionError", "403", "PublicAccessNotPermitted"})
    GONE = frozenset({"FileNotFoundError", "NoSuchKey", "BlobNotFound", "ResourceNotFoundError", "404"})
    EMPTY = frozenset({"InvalidRange", "416"})
    SLOW = frozenset({"TimeoutError", "ConnectTimeoutError", "ReadTimeoutError", "ServerTimeoutError"})
    UNREACHABLE = frozenset(
        {"EndpointConnectionError", "ConnectionClosedError", "ClientConnectionError", "ClientPayloadError"}
        | {"HTTPClientError", "ServiceRequestError", "ServiceResponseError", "TransportError", "ConnectionError"}
    )


def explained(  # noqa: PLR0911  one for each trouble
    error: Exception, *, title: str, credentials: str, bucket: str
) -> MediaError:
    """An error of a storage's library as one of ours.

    `title` is what people call the storage, `credentials` a remedy: where those come from.
    """
    codes, names = _marks(error)
    trouble = next((each for each in _Trouble if not each.value.isdisjoint((*codes, *names))), None)
    code = (*codes, *names)[0]
    match trouble:
        case _Trouble.NO_BUCKET:
            return MediaGone(f"There is no bucket {bucket!r} in {title}.", remedy="Check its name and its account.")
        case _Trouble.ARCHIVED:
            return Unreadable(f"{title} has archived the object.", remedy="Restore it, and ingest it again then.")
        case _Trouble.NO_CREDENTIALS:
            return AccessDenied(
                f"There are no credentials for {title} here, or it does not accept them ({code}).", remedy=credentials
            )
        case _Trouble.DENIED:
            return AccessDenied(
                f"{title} denies access to the bucket {bucket!r}, or to this in it ({code}).", remedy=credentials
            )
        case _Trouble.GONE:
            return MediaGone(f"There is no such object in the bucket {bucket!r}.")
        case _Trouble.EMPTY:
            return EmptyFile("The object is empty.")
        case _Trouble.SLOW:
            return FetchTimeout(
                f"{title} takes too long to answer.", remedy=f"{_AGAIN}, or raise CROSSLENS_FETCH_DEADLINE."
            )
        case _Trouble.UNREACHABLE:
            return FetchFailed(f"{title} cannot be reached, or breaks off ({code}).", remedy=f"{_AGAIN}.")
        case None:
            return FetchFailed(f"{title} answers with an error: {code}.", remedy=f"{_AGAIN}.")


def _marks(error: BaseException) -> tuple[list[str], list[str]]:
    """The service's codes in an error, and the names of its classes, together with those of what it came from."""
    codes: list[str] = []
    names: list[str] = []
    each: BaseException | None = error
    for _ in range(_DEPTH):
        if each is None:
            break
        response = getattr(each, "response", None)
        told = [getattr(each, name, None) for name in ("error_code", "code", "status_code", "status")]
        if isinstance(response, dict):  # botocore's
            told += [response.get("Error", {}).get("Code"), response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
        codes += [str(code) for code in told if code is not None and _CODE.fullmatch(str(code))]
        if str(each).startswith("Forbidden"):  # gcsfs' only sign of a 403
            codes.append("403")
        names += [kind.__name__ for kind in type(each).__mro__]
        each = each.__cause__
    return codes, names
