"""One file that cannot become one item."""

from __future__ import annotations

from typing import Self

from indexer.errors.base import CrosslensError


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


class NoVideo(MediaError):
    """A video file without a video stream, or one whose stream has no picture."""

    code = "no_video"
    default_remedy = "Leave the file out; Crosslens does not index sound."


class Encrypted(MediaError):
    """A document that opens with a password only."""

    code = "encrypted"
    default_remedy = "Save a copy without the password, and ingest that."


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


class AccessDenied(MediaError):
    """An object in cloud storage without credentials for it, or with some that do not allow it."""

    code = "access_denied"
    status = 403
    default_remedy = "Set credentials that may list the bucket and read its objects."


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


class MediaStoreUnavailable(CrosslensError):
    """The store of uploads and copies does not answer. No `MediaError`: it says nothing of any file."""

    code = "media_store_unavailable"
    status = 503
    default_remedy = "Try again in a moment; check CROSSLENS_MEDIA_URL, its credentials, and that the store answers."
