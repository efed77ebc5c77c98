"""Every error that Crosslens raises on purpose.

Each has a `code` for machines, a sentence for people, and a `remedy`: what to do next. The command line prints
the sentence and the remedy; the HTTP API answers `application/problem+json` with `status` (RFC 9457).

    CrosslensError
     ├── UsageError                 what was asked for cannot be done as asked
     │    ├── InvalidName           a collection or item name outside the allowed letters
     │    ├── InvalidRequest        a body, option or filter that does not parse
     │    ├── ReservedPayloadKey    a payload that writes into Crosslens' own fields
     │    ├── SourceNotFound        a path, glob or item that is not there
     │    ├── JobNotFound           no job of that id
     │    ├── TooBusy               more is queued than the queue should hold
     │    ├── BrokerUnavailable     the queue does not answer, or there is none
     │    ├── MissingExtra          a source that needs an extra that is not installed
     │    └── InvalidTextSource     a captions file or table with a line that does not parse
     ├── MediaError                 one file that cannot become one item
     │    ├── EmptyFile  NotAnImage  UnsupportedFormat  Truncated  Unreadable
     │    ├── Quarantined           its worker died whenever it was in work
     │    ├── TooManyPixels  TooLarge  SymlinkLoop  MediaGone
     │    ├── UrlRefused            a URL that must not be fetched: its notation, scheme, port or address
     │    └── FetchFailed           a URL whose host cannot be reached, answers with an error, or breaks off
     │         └── FetchTimeout     a URL whose host takes too long
     ├── ModelError                 a bundle or an encoder
     │    ├── BundleNotFound        no bundle of that name
     │    ├── InvalidBundle         a file is missing, or its hash or manifest is wrong
     │    ├── DownloadFailed        a bundle's source cannot be reached, or breaks off
     │    ├── UnknownRecipe         the manifest names a preparation this version does not know
     │    ├── GoldenMismatch        the encoder does not reproduce its golden vectors
     │    ├── ModelMismatch         the collection holds another bundle's vectors
     │    ├── TextsOnly             the bundle has no image tower
     │    ├── DeviceUnavailable     the device that was asked for cannot be used
     │    ├── UnsupportedCheckpoint a checkpoint that cannot become a bundle
     │    ├── HubUnreachable        a checkpoint must be downloaded, and nothing answers
     │    ├── ParityFailed          an exported bundle does not give its checkpoint's vectors
     │    ├── EncoderFailed         a run failed, and again after its session was rebuilt
     │    └── Overloaded            more is waiting for the encoder than it may
     └── VectorIndexError                the index and its process
          ├── CollectionNotFound  ItemNotFound
          ├── IndexOwned            another process owns the data folder's index
          ├── IndexUnavailable      the index does not answer
          ├── ServerTooOld          a Qdrant server below the oldest version that will do
          └── InvalidVector         wrong dimension, not finite, or without length
"""

from typing import Any, ClassVar, Self


class CrosslensError(Exception):
    """The root: a code, a sentence, a remedy.

    `details` holds what a machine may want beside the sentence (numbers, names); it must be JSON-able.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    default_remedy: ClassVar[str] = "Report this with the log; it is a defect in Crosslens."

    def __init__(self, message: str, *, remedy: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy if remedy is not None else self.default_remedy
        self.details = details

    def as_dict(self) -> dict[str, Any]:
        """The error as machines get it: `{"code", "message", "remedy", **details}`."""
        return {**self.details, "code": self.code, "message": self.message, "remedy": self.remedy}


class UsageError(CrosslensError):
    """What was asked for cannot be done as asked."""

    code = "usage"
    status = 400
    default_remedy = "See `crosslens --help`."


class InvalidName(UsageError):
    """A collection or item name outside the allowed letters."""

    code = "invalid_name"
    default_remedy = "Use 1 to 64 letters, digits, '-' and '_', beginning with a letter or digit."


class InvalidRequest(UsageError):
    """A body, option or filter that does not parse."""

    code = "invalid_request"
    default_remedy = "Correct the named field and send the request again."


class ReservedPayloadKey(UsageError):
    """A payload that writes into Crosslens' own fields."""

    code = "reserved_payload_key"
    default_remedy = "Rename the key 'crosslens': it holds the item's own record."


class SourceNotFound(UsageError):
    """A path or glob that names nothing."""

    code = "source_not_found"
    default_remedy = "Check the path; quote a glob so that the shell leaves it alone."


class InvalidTextSource(UsageError):
    """A captions file or table, or one beside an image, with a line that does not parse."""

    code = "invalid_text_source"
    default_remedy = 'Each line must be a JSON object with "file" or "text", and optionally "payload" and "id".'


class MissingExtra(UsageError):
    """A source that needs an extra that is not installed."""

    code = "missing_extra"
    default_remedy = "Install it as the message says, or convert the source."


class JobNotFound(UsageError):
    """No job of that id."""

    code = "job_not_found"
    status = 404
    default_remedy = "`crosslens jobs list` shows them."


class TooBusy(UsageError):
    """More is queued than the queue should hold."""

    code = "too_busy"
    status = 429
    default_remedy = "Send it again in a while; `Retry-After` says when."


class BrokerUnavailable(UsageError):
    """The queue does not answer, or there is none."""

    code = "broker_unavailable"
    status = 503
    default_remedy = "Start `crosslens serve`, or check CROSSLENS_REDIS_URL."


class MediaError(CrosslensError):
    """One file that cannot become one item; the others go on."""

    code = "media"
    status = 422
    default_remedy = "Leave the file out, or replace it with a good copy."


class EmptyFile(MediaError):
    """A file of no bytes."""

    code = "empty"


class NotAnImage(MediaError):
    """Content that no image format claims, whatever the name says."""

    code = "not_an_image"
    default_remedy = "Crosslens reads JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF and HEIC."


class UnsupportedFormat(MediaError):
    """An image of a kind that is recognised but not read."""

    code = "unsupported_format"
    default_remedy = "Convert it to JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF or HEIC."


class Truncated(MediaError):
    """A file that ends before its image does, or an archive before its last member."""

    code = "truncated"
    default_remedy = "Copy or download the file again; it is incomplete."


class Unreadable(MediaError):
    """A file that cannot be opened or decoded."""

    code = "unreadable"
    default_remedy = "Check its permissions and that a viewer opens it."


class TooManyPixels(MediaError):
    """An image whose header declares more pixels than the cap."""

    code = "too_many_pixels"
    default_remedy = "Scale it down, or raise CROSSLENS_MAX_PIXELS."


class TooLarge(MediaError):
    """A file of more bytes than the cap."""

    code = "too_large"
    status = 413
    default_remedy = "Make it smaller, or raise CROSSLENS_MAX_BYTES."


class SymlinkLoop(MediaError):
    """A symbolic link that leads back to itself or to a folder above it."""

    code = "symlink_loop"
    default_remedy = "Remove the link, or name the folder that it should lead to."


class ArchiveRefused(MediaError):
    """An archive that unpacks to more bytes or members than it may."""

    code = "archive_refused"
    default_remedy = (
        "If you trust it, unpack it and ingest the folder, or raise CROSSLENS_MAX_ARCHIVE_BYTES "
        "or CROSSLENS_MAX_ARCHIVE_MEMBERS."
    )


class BadMember(MediaError):
    """An archive's member that is damaged, or that is no plain file: a link, a device, encrypted, an archive."""

    code = "bad_member"
    default_remedy = "Pack it as a plain file, or leave it out."


class MediaGone(MediaError):
    """An item whose original is no longer where it was."""

    code = "media_gone"
    status = 404
    default_remedy = "Put the file back, or ingest its new place."


class Quarantined(MediaError):
    """An item whose worker died each time that it was alone in work."""

    code = "quarantined"
    default_remedy = "Leave the file out, or have a look at it; retrying the job's failures tries it again."

    @classmethod
    def of(cls, attempts: int) -> Self:
        """After so many attempts."""
        return cls(f"A worker died {attempts} times with this item alone in work.")


class UrlRefused(MediaError):
    """A URL that must not be fetched: its notation, scheme, port or address."""

    code = "url_refused"
    default_remedy = (
        "Name the https:// URL of a public host, or download the file and ingest that. "
        "CROSSLENS_FETCH_ALLOW lets private hosts of your own through."
    )


class FetchFailed(MediaError):
    """A URL whose host cannot be reached, answers with an error, or breaks off."""

    code = "fetch_failed"
    status = 502
    default_remedy = "Open the URL in a browser to see that it answers, or download the file and ingest that."


class FetchTimeout(FetchFailed):
    """A URL whose host takes too long."""

    code = "fetch_timeout"
    status = 504
    default_remedy = "Try again, raise CROSSLENS_FETCH_DEADLINE, or download the file and ingest that."


class ModelError(CrosslensError):
    """A bundle or an encoder."""

    code = "model"
    default_remedy = "Run `crosslens models verify`."


class BundleNotFound(ModelError):
    """No bundle of that name or path."""

    code = "bundle_not_found"
    status = 404
    default_remedy = "`crosslens models list` shows what is installed."


class InvalidBundle(ModelError):
    """A bundle with a file missing, a hash that differs or a manifest that does not parse."""

    code = "invalid_bundle"
    default_remedy = "Install the bundle again; its files are not the ones that were published."


class DownloadFailed(ModelError):
    """A bundle's source that cannot be reached, refuses, or breaks off."""

    code = "download_failed"
    status = 502
    default_remedy = (
        "Try again; or pull it where there is a network, copy its folder here and run `crosslens models pull FOLDER`."
    )


class UnknownRecipe(ModelError):
    """A manifest that names a preparation this version does not know."""

    code = "unknown_recipe"
    default_remedy = "Upgrade Crosslens: the bundle was made for a newer version."


class GoldenMismatch(ModelError):
    """An encoder that does not reproduce the bundle's golden vectors on this machine."""

    code = "golden_mismatch"
    default_remedy = "Run `crosslens models verify --json` and report what it prints: vectors made here would be wrong."


class ModelMismatch(ModelError):
    """A collection that holds another bundle's vectors."""

    code = "model_mismatch"
    status = 409
    default_remedy = "Use the collection's own model, or ingest into a new collection with --collection."


class TextsOnly(ModelError):
    """A bundle without an image tower that was given an image."""

    code = "texts_only"
    status = 422
    default_remedy = "Use a model that has an image tower; `crosslens models list` says which do."


class DeviceUnavailable(ModelError):
    """A device that was asked for and cannot be used."""

    code = "device_unavailable"
    status = 503
    default_remedy = "Install `crosslens[gpu]` in place of onnxruntime, or set CROSSLENS_DEVICE=cpu."


class EncoderFailed(ModelError):
    """A run that failed, and failed again after its session was rebuilt."""

    code = "encoder_failed"
    status = 503
    default_remedy = "See the log. If the device is lost or its memory full, restart, or set CROSSLENS_DEVICE=cpu."


class UnsupportedCheckpoint(ModelError):
    """A checkpoint that cannot become a bundle."""

    code = "unsupported_checkpoint"
    status = 422
    default_remedy = "Export another checkpoint; `crosslens models list` names some."


class HubUnreachable(ModelError):
    """A checkpoint that must be downloaded, and nothing answers."""

    code = "hub_unreachable"
    status = 502
    default_remedy = (
        "Check the network (HTTPS_PROXY, HF_ENDPOINT). Without one: copy the checkpoint's folder here and export that, "
        "or set HF_HOME to a cache that holds it; or export on a machine with a network and copy the bundle."
    )


class ParityFailed(ModelError):
    """A bundle that does not give the vectors of the model that it was made from."""

    code = "parity_failed"
    default_remedy = (
        "Nothing was installed. For int8, a lower --bound accepts the loss; else export in another precision, "
        "or report the checkpoint: it is prepared in a way that the exporter misreads."
    )


class Overloaded(ModelError):
    """More is waiting for the encoder than it may."""

    code = "overloaded"
    status = 503
    default_remedy = "Try again in a moment."


class VectorIndexError(CrosslensError):
    """The index and its process."""

    code = "index"


class CollectionNotFound(VectorIndexError):
    """No collection of that name."""

    code = "collection_not_found"
    status = 404
    default_remedy = "Ingest something first: `crosslens ingest FOLDER`."


class ItemNotFound(VectorIndexError):
    """No item of that id in the collection."""

    code = "item_not_found"
    status = 404
    default_remedy = "Take an id from a search result."


class IndexOwned(VectorIndexError):
    """The data folder's index belongs to another process."""

    code = "index_owned"
    status = 409
    default_remedy = "Stop that process, or name another folder with --data."


class IndexUnavailable(VectorIndexError):
    """The index does not answer."""

    code = "index_unavailable"
    status = 503
    default_remedy = "Try again in a moment; the log in the data folder, or the Qdrant server's, says more."


class ServerTooOld(VectorIndexError):
    """A Qdrant server below the oldest version that will do."""

    code = "server_too_old"
    status = 503
    default_remedy = "Upgrade the server, one minor version at a time; or unset CROSSLENS_QDRANT_URL."


class InvalidVector(VectorIndexError):
    """A vector of the wrong dimension, with a value that is not finite, or without length."""

    code = "invalid_vector"
    status = 422
    default_remedy = "Send a finite, non-zero vector of the collection's dimension."
