"""The index and its process."""

from __future__ import annotations

from indexer.errors.base import CrosslensError


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
