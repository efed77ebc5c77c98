"""URLs of cloud storage: a bucket's name and a key, and nothing else.

What stands after the bucket is the key to the last character, `?`, `#` and `%` included: no part of a URL chooses an
account, an address or an option. Those come from the environment alone, so that who names a URL cannot lead elsewhere.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Self

from indexer.errors import MissingExtra, UrlRefused

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
"""Schemes that are read, each with the one that an item's source has."""
_MODULES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,221}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MAX_KEY = 1024
"""Letters of a key in Azure; S3 and Google Cloud Storage count bytes."""
_WHAT_WORKS = (
    "Name an object, a folder or a glob as s3://bucket/key, gs://bucket/key or az://container/key; "
    "or an https:// URL, or a file."
)


@dataclass(frozen=True)
class ObjectUrl:
    """Where an object or a folder of objects lies. `str` gives the one URL that an item's source has."""

    scheme: str
    bucket: str
    key: str
    """As it is stored: nothing in it is escaped. Empty for a whole bucket."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL.

        Raises:
            UrlRefused: another scheme, a chain of them (`::`), or no bucket's name or key.
        """
        scheme, separator, rest = url.partition("://")
        known = _SCHEMES.get(scheme.lower())
        if not separator or known is None:
            raise _refused(url)
        bucket, _, key = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            remedy = (
                "An account or host is no part of it: AZURE_STORAGE_ACCOUNT_NAME, AWS_ENDPOINT_URL and the like are."
            )
            raise UrlRefused(f"{bucket[:100]!r} is no bucket's name.", remedy=f"{_WHAT_WORKS} {remedy}")
        if len(key) > _MAX_KEY or not {".", ".."}.isdisjoint(key.split("/")) or _SURROGATE.search(key):
            raise UrlRefused(
                f"No key has more than {_MAX_KEY} letters, a part '.' or '..', or letters that are none.",
                remedy=_WHAT_WORKS,
            )
        return cls(known, bucket, key)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"


def is_object(source: str) -> bool:
    """Whether a source is in cloud storage."""
    scheme, separator, _ = source[:8].partition("://")
    return bool(separator) and scheme.lower() in _SCHEMES


def check_object(source: str) -> None:
    """Refuse a URL that cannot be read, before anything is done.

    Raises:
        UrlRefused: a URL of another kind, a chain of them, or one that does not parse. A path passes.
        MissingExtra: what reads it is not installed.
    """
    if is_object(source):
        check_extra(ObjectUrl.parse(source).scheme)
    elif _URL.match(source):
        raise _refused(source)


def check_extra(scheme: str) -> None:
    """Refuse a scheme, as in `ObjectUrl`, whose reader is not installed.

    Raises:
        MissingExtra: so it is.
    """
    if any(importlib.util.find_spec(name) is None for name in ("fsspec", _MODULES[scheme])):
        raise missing_extra(scheme)


def missing_extra(scheme: str) -> MissingExtra:
    """That the reader of a scheme is not installed."""
    return MissingExtra(f"{scheme}:// sources are read with {_MODULES[scheme]}: pip install 'crosslens[cloud]'")


def _refused(url: str) -> UrlRefused:
    kind = _URL.match(url)
    beginning = kind[0] if kind else url
    return UrlRefused(f"A URL that begins with {beginning[:20]!r} is not read.", remedy=_WHAT_WORKS)
