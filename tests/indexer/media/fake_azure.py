"""The part of Azure Blob Storage's REST API that listing and reading take, in memory: what Azurite answers, no more."""

import re
import threading
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT = "devstoreaccount1"


class FakeAzure(ThreadingHTTPServer):
    """A storage account; `containers` has each container's blobs, with the number that is their ETag."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.containers: dict[str, dict[str, tuple[bytes, int]]] = {}
        self.folders: set[str] = set()
        """Keys that are a hierarchical account's folders."""
        self.writes = 0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, container: str, key: str, data: bytes) -> None:
        """Write a blob."""
        self.writes += 1
        self.containers[container][key] = (data, self.writes)


class _Handler(BaseHTTPRequestHandler):
    server: FakeAzure
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        _, _, container, *key = url.path.split("/", 3)
        blobs = self.server.containers.get(unquote(container))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if blobs is None:
            self._error(404, "ContainerNotFound")
        elif query.get("comp") == "list":
            self._answer(200, _listing(blobs, self.server.folders, query), {"Content-Type": "application/xml"})
        elif unquote(key[0]) not in blobs:
            self._error(404, "BlobNotFound")
        else:
            self._blob(unquote(key[0]), *blobs[unquote(key[0])])

    do_HEAD = do_GET

    def _blob(self, key: str, data: bytes, tag: int) -> None:
        headers = {"ETag": f'"{tag}"', "Last-Modified": _WRITTEN, "x-ms-blob-type": "BlockBlob"}
        if key in self.server.folders:
            headers["x-ms-meta-hdi_isfolder"] = "true"
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("x-ms-range") or self.headers.get("Range") or "")
        if asked is None:
            self._answer(200, data, headers)
        elif int(asked[1]) >= len(data):
            self._error(416, "InvalidRange")
        else:
            last = min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {asked[1]}-{last}/{len(data)}"
            self._answer(206, data[int(asked[1]) : last + 1], headers)

    def _error(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0' encoding='utf-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._answer(status, body.encode(), {"x-ms-error-code": code, "Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "x-ms-version": "2026-02-06"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


_WRITTEN = format_datetime(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), usegmt=True)


def _listing(blobs: dict[str, tuple[bytes, int]], folders: set[str], query: dict[str, str]) -> bytes:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    entries: dict[str, str] = {}
    for key, (data, tag) in sorted(blobs.items()):
        if not key.startswith(prefix):
            continue
        at = key.find(delimiter, len(prefix)) if delimiter else -1
        if delimiter and at >= 0:
            name = key[: at + 1]
            entries[name] = f"<BlobPrefix><Name>{_text(name)}</Name></BlobPrefix>"
        else:
            about = (
                f"<Last-Modified>{_WRITTEN}</Last-Modified><Etag>{tag}</Etag>"
                f"<Content-Length>{len(data)}</Content-Length><BlobType>BlockBlob</BlobType>"
            )
            meta = "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>" if key in folders else "<Metadata />"
            entries[key] = f"<Blob><Name>{_text(key)}</Name><Properties>{about}</Properties>{meta}</Blob>"
    names = sorted(entries)
    first, most = int(query.get("marker") or 0), int(query.get("maxresults", 5000))
    page = names[first : first + most]
    more = str(first + most) if first + most < len(names) else ""
    return (
        "<?xml version='1.0' encoding='utf-8'?><EnumerationResults ServiceEndpoint='http://127.0.0.1/' "
        f"ContainerName='c'><Blobs>{''.join(entries[name] for name in page)}</Blobs>"
        f"<NextMarker>{more}</NextMarker></EnumerationResults>"
    ).encode()


def _text(name: str) -> str:
    return escape(name, {"\n": "&#10;", "\r": "&#13;"})
