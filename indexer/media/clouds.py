"""The object storage of three clouds, each through its fsspec filesystem: pages of a listing, sizes, and bytes.

The filesystems bring configuration, credentials and connections. Their own paths and listings are left alone: those
take `#`, `?` and `@` in a name for more than a name, and hold all of a listing in memory. So each class asks its
service itself, with names that are names, and nothing is cached.
"""

from __future__ import annotations

import hashlib
import io
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

_PAGE = 1000
"""Objects in a page of a listing; S3 and GCS give no more."""
_CHUNK = 2**20


@dataclass(frozen=True)
class Stored:
    """An object as its storage describes it."""

    key: str
    size: int
    version: int
    """When it was written, in nanoseconds since 1970; below the second, digits that tell versions apart."""


Page = tuple[list[Stored], str | None]
"""Objects in the storage's order, and where the next page begins; None at the end."""


class Cloud(ABC):
    """What a storage can be asked, in coroutines that run on `fs`' own loop; they raise what their library does.

    `flat` lists all below a prefix, else what lies directly below it is listed and folders are left out.
    """

    title: ClassVar[str]
    """What people call it."""
    credentials: ClassVar[str]
    """Where its credentials come from, as a remedy."""
    fs: Any
    """Its fsspec filesystem."""

    @abstractmethod
    async def page(self, bucket: str, prefix: str, after: str | None, *, flat: bool) -> Page:
        """A page of the objects whose names begin with `prefix`, from where the page before ended."""

    @abstractmethod
    async def stat(self, bucket: str, key: str) -> Stored:
        """One object's description."""

    @abstractmethod
    async def read(self, bucket: str, key: str, most: int) -> bytes:
        """An object's content as it is stored; of a larger one, the first `most` bytes or some more."""

    def close(self) -> None:  # noqa: B027  there may be nothing to close
        """Close its connections."""


class S3(Cloud):
    """Amazon S3, and what speaks its protocol."""

    title = "S3"
    credentials = (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile of ~/.aws, or give the machine "
        "a role that may list the bucket and get its objects. FSSPEC_S3_ANON=true reads public buckets."
    )

    def __init__(self) -> None:
        from s3fs import S3FileSystem  # noqa: PLC0415  of the extra; it takes half a second to load

        self.fs = S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        self.fs.retries = 1  # botocore retries by itself, as AWS_MAX_ATTEMPTS says; both would multiply
        self.fs.connect()

    async def page(self, bucket: str, prefix: str, after: str | None, *, flat: bool) -> Page:
        """See `Cloud`."""
        more = ({} if flat else {"Delimiter": "/"}) | ({} if after is None else {"ContinuationToken": after})
        answer = await self.fs._call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=_PAGE, **more)
        found = [
            Stored(each["Key"], each["Size"], _version(each["LastModified"], each.get("ETag")))
            for each in answer.get("Contents", ())
        ]
        return found, answer["NextContinuationToken"] if answer.get("IsTruncated") else None

    async def stat(self, bucket: str, key: str) -> Stored:
        """See `Cloud`."""
        answer = await self.fs._call_s3("head_object", Bucket=bucket, Key=key)
        return Stored(key, answer["ContentLength"], _version(answer["LastModified"], answer.get("ETag")))

    async def read(self, bucket: str, key: str, most: int) -> bytes:
        """See `Cloud`."""
        body = (await self.fs._call_s3("get_object", Bucket=bucket, Key=key))["Body"]
        data = io.BytesIO()
        try:
            while data.tell() < most and (chunk := await body.read(_CHUNK)):
                data.write(chunk)
        finally:
            body.close()
        return data.getvalue()

    def close(self) -> None:
        """See `Cloud`."""
        if self.fs._s3 is not None:
            self.fs.close_session(self.fs.loop, self.fs._s3creator)


class Gcs(Cloud):
    """Google Cloud Storage."""

    title = "Google Cloud Storage"
    credentials = (
        "Set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, or run "
        "`gcloud auth application-default login`, with an account that may list the bucket and get its objects "
        "(Storage Object Viewer)."
    )
    _FIELDS = "name,size,updated,generation"

    def __init__(self) -> None:
        from gcsfs.core import GCSFileSystem  # noqa: PLC0415  of the extra; it takes half a second to load

        # It logs what it raises, with a traceback.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        self.fs = GCSFileSystem(
            use_listings_cache=False,
            skip_instance_cache=True,
            # What is stored compressed stays so: a small object could become one of any size.
            session_kwargs={"auto_decompress": False, "headers": {"Accept-Encoding": "identity"}},
        )

    async def page(self, bucket: str, prefix: str, after: str | None, *, flat: bool) -> Page:
        """See `Cloud`."""
        answer = await self.fs._call(
            "GET",
            "b/{}/o",
            bucket,
            json_out=True,
            prefix=prefix or None,
            delimiter=None if flat else "/",
            pageToken=after,
            maxResults=_PAGE,
            fields=f"nextPageToken,items({self._FIELDS})",
        )
        return [self._stored(each) for each in answer.get("items", ())], answer.get("nextPageToken") or None

    async def stat(self, bucket: str, key: str) -> Stored:
        """See `Cloud`."""
        answer = await self.fs._call("GET", "b/{}/o/{}", bucket, key, json_out=True, fields=self._FIELDS)
        return self._stored(answer)

    async def read(self, bucket: str, key: str, most: int) -> bytes:
        """See `Cloud`."""
        # Without `gzip`, the service would unpack what is stored so, and disregard the range.
        headers = {"Range": f"bytes=0-{most - 1}", "Accept-Encoding": "gzip"}
        _, data = await self.fs._call("GET", "b/{}/o/{}", bucket, key, headers=headers, alt="media")
        return bytes(data)

    def close(self) -> None:
        """See `Cloud`."""
        from fsspec.asyn import sync  # noqa: PLC0415  of the extra

        if self.fs._session is not None:
            sync(self.fs.loop, self.fs._session.close)  # gcsfs' own way leaves it to a loop that may be asleep

    @staticmethod
    def _stored(answer: dict[str, Any]) -> Stored:
        modified = datetime.fromisoformat(answer["updated"])
        return Stored(answer["name"], int(answer["size"]), _version(modified, answer.get("generation")))


class Azure(Cloud):
    """Azure Blob Storage, and Data Lake Storage Gen2 through its blobs."""

    title = "Azure Storage"
    credentials = (
        "Set AZURE_STORAGE_CONNECTION_STRING; or AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or "
        "AZURE_STORAGE_SAS_TOKEN, with AZURE_STORAGE_ANON=true for public containers, or with `az login` or a managed "
        "identity that may read the container (Storage Blob Data Reader)."
    )
    _ONCE: ClassVar[dict[str, Any]] = {"retry_total": 1}
    """The library waits a minute in three retries."""

    def __init__(self) -> None:
        from adlfs import AzureBlobFileSystem  # noqa: PLC0415  of the extra; it takes half a second to load

        # azure-identity warns of each way to log in that is not there.
        logging.getLogger("azure.identity").setLevel(logging.CRITICAL)
        # adlfs keeps each filesystem alive until the process ends, so there is one: fsspec's own, never closed here.
        self.fs = AzureBlobFileSystem(use_listings_cache=False)

    async def page(self, bucket: str, prefix: str, after: str | None, *, flat: bool) -> Page:
        """See `Cloud`."""
        container = self.fs.service_client.get_container_client(bucket)
        # In their metadata, the folders of a hierarchical account say that they are no files.
        how = {"name_starts_with": prefix, "results_per_page": _PAGE, "include": ["metadata"], **self._ONCE}
        listing = container.list_blobs(**how) if flat else container.walk_blobs(**how, delimiter="/")
        pages = listing.by_page(continuation_token=after)
        async for page in pages:
            blobs = [blob async for blob in page if hasattr(blob, "etag")]  # else it is a folder's name
            return [self._stored(blob) for blob in blobs if not _is_folder(blob)], pages.continuation_token or None
        return [], None

    async def stat(self, bucket: str, key: str) -> Stored:
        """See `Cloud`."""
        blob = await self.fs.service_client.get_blob_client(bucket, key).get_blob_properties(**self._ONCE)
        if _is_folder(blob):
            raise FileNotFoundError(key)
        return self._stored(blob)

    async def read(self, bucket: str, key: str, most: int) -> bytes:
        """See `Cloud`."""
        client = self.fs.service_client.get_blob_client(bucket, key)
        stream = await client.download_blob(offset=0, length=most, decompress=False, **self._ONCE)
        return bytes(await stream.readall())

    @staticmethod
    def _stored(blob: Any) -> Stored:
        return Stored(blob.name, blob.size, _version(blob.last_modified, blob.etag))


CLOUDS: dict[str, type[S3 | Gcs | Azure]] = {"s3": S3, "gs": Gcs, "az": Azure}
"""By the scheme of their URLs."""


def _is_folder(blob: Any) -> bool:
    return (blob.metadata or {}).get("hdi_isfolder") == "true"


def _version(modified: datetime, tag: str | None) -> int:
    """S3 tells times to the second, in which an object may be written twice; its tag tells the versions apart."""
    digest = hashlib.sha256((tag or "").strip('"').encode()).digest()
    return int(modified.timestamp()) * 10**9 + int.from_bytes(digest[:8], "big") % 10**9
