"""What was asked for cannot be done as asked."""

from __future__ import annotations

from indexer.errors.base import CrosslensError


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


class InvalidCursor(UsageError):
    """A cursor that was not given out here, or whose life is over."""

    code = "invalid_cursor"
    default_remedy = "Search again without the cursor; a cursor lives for ten minutes."


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


class LabelSetNotFound(UsageError):
    """No label set of that name with the collection."""

    code = "label_set_not_found"
    status = 404
    default_remedy = "GET /v1/collections/NAME/labels lists them; PUT .../labels/SET makes one."


class PruneRefused(UsageError):
    """A folder that is gone or empty, of which the index holds items: a disk may only not be mounted."""

    code = "prune_refused"
    status = 409
    default_remedy = "Mount the disk, or check the path; if the files are gone for good, use --prune-all."


class InvalidBackup(UsageError):
    """A backup that is cut short, was altered, or is none."""

    code = "invalid_backup"
    default_remedy = "Nothing was restored. Use another backup, or fetch this one again from where it was kept."


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
