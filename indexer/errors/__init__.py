"""Every error that Crosslens raises on purpose.

Each has a `code` for machines, a sentence for people, and a `remedy`: what to do next. The command line prints
the sentence and the remedy; the HTTP API answers `application/problem+json` with `status` (RFC 9457).

    CrosslensError
     ├── UsageError                 what was asked for cannot be done as asked
     │    ├── InvalidName           a collection or item name outside the allowed letters
     │    ├── InvalidCursor         a cursor that was not given out here, or whose life is over
     │    ├── InvalidRequest        a body, option or filter that does not parse
     │    ├── ReservedPayloadKey    a payload that writes into Crosslens' own fields
     │    ├── SourceNotFound        a path, glob or item that is not there
     │    ├── JobNotFound           no job of that id
     │    ├── LabelSetNotFound      no label set of that name with the collection
     │    ├── PruneRefused          a folder that is gone or empty, of which the index holds items
     │    ├── InvalidBackup         a backup that is cut short, was altered, or is none
     │    ├── TooBusy               more is queued than the queue should hold
     │    ├── BrokerUnavailable     the queue does not answer, or there is none
     │    ├── MissingExtra          a source that needs an extra that is not installed
     │    └── InvalidTextSource     a captions file or table with a line that does not parse
     ├── AccessError                who may ask for what, and how often
     │    ├── KeyRequired  KeyInvalid  KeyForbids  KeyNotFound
     │    ├── RateLimited           more than a key or an address may send
     │    └── KeysUnavailable       the keys cannot be read: nobody is let in
     ├── MediaError                 one file that cannot become one item
     │    ├── EmptyFile  NotAnImage  UnsupportedFormat  Truncated  Unreadable
     │    ├── NoVideo               a video file without a picture, or without a video stream
     │    ├── Encrypted             a document that needs a password
     │    ├── Quarantined           its worker died whenever it was in work
     │    ├── TooManyPixels  TooLarge  SymlinkLoop  MediaGone
     │    ├── UrlRefused            a URL that must not be fetched: its notation, scheme, port or address
     │    ├── AccessDenied          an object in cloud storage that there are no credentials for
     │    └── FetchFailed           a URL whose host cannot be reached, answers with an error, or breaks off
     │         └── FetchTimeout     a URL whose host takes too long
     ├── MediaStoreUnavailable      the store of uploads and copies does not answer
     ├── ModelError                 a bundle or an encoder
     │    ├── BundleNotFound        no bundle of that name
     │    ├── InvalidBundle         a file is missing, or its hash or manifest is wrong
     │    ├── DownloadFailed        a bundle's source cannot be reached, or breaks off
     │    ├── UnknownRecipe         the manifest names a preparation this version does not know
     │    ├── GoldenMismatch        the encoder does not reproduce its golden vectors
     │    ├── ModelMismatch         the collection holds another bundle's vectors
     │    ├── TextsOnly             the bundle has no image tower
     │    ├── NoReranker            a search asks for a reranker that is not installed
     │    ├── RerankerAway          reranking is the workers', and none is there
     │    ├── NoFeatures            a picture for which a reranker gives no features
     │    ├── DeviceUnavailable     the device that was asked for cannot be used
     │    ├── UnsupportedCheckpoint a checkpoint that cannot become a bundle
     │    ├── HubUnreachable        a checkpoint must be downloaded, and nothing answers
     │    ├── ParityFailed          an exported bundle does not give its checkpoint's vectors
     │    ├── EncoderFailed         a run failed, and again after its session was rebuilt
     │    └── Overloaded            more is waiting for the encoder than it may
     ├── ModerationError            what moderation refuses
     │    ├── PolicyInvalid         a policy with mistakes, each with its line
     │    ├── PolicyNotFound        no starting policy of that name
     │    ├── OriginalWithheld      an original that the policy does not let out as it is
     │    ├── HashListInvalid       a list of hashes that does not parse
     │    ├── HashListNotFound      a policy names a hash list that is not here
     │    ├── ClassifierNotFound    a policy names an image classifier that is not here
     │    ├── PolicyChanged         another policy is in force than the one that was to be changed
     │    ├── QueryBlocked          a search by what the policy does not show
     │    ├── ReviewConflict        somebody else decided on an item meanwhile
     │    └── TrailEntryNotFound    no entry of that number in the audit trail
     ├── ApiError                   a server that was asked over HTTP answered with an error, under its code
     │    └── ServerUnreachable     it did not answer at all
     └── VectorIndexError                the index and its process
          ├── CollectionNotFound  ItemNotFound
          ├── IndexOwned            another process owns the data folder's index
          ├── IndexUnavailable      the index does not answer
          ├── ServerTooOld          a Qdrant server below the oldest version that will do
          └── InvalidVector         wrong dimension, not finite, or without length
"""

from indexer.errors.access import (
    AccessError,
    KeyForbids,
    KeyInvalid,
    KeyNotFound,
    KeyRequired,
    KeysUnavailable,
    RateLimited,
)
from indexer.errors.base import CrosslensError
from indexer.errors.index import (
    CollectionNotFound,
    IndexOwned,
    IndexUnavailable,
    InvalidVector,
    ItemNotFound,
    ServerTooOld,
    VectorIndexError,
)
from indexer.errors.media import (
    AccessDenied,
    ArchiveRefused,
    BadMember,
    EmptyFile,
    Encrypted,
    FetchFailed,
    FetchTimeout,
    MediaError,
    MediaGone,
    MediaStoreUnavailable,
    NotAnImage,
    NoVideo,
    Quarantined,
    SymlinkLoop,
    TooLarge,
    TooManyPixels,
    Truncated,
    Unreadable,
    UnsupportedFormat,
    UrlRefused,
)
from indexer.errors.models import (
    BundleNotFound,
    DeviceUnavailable,
    DownloadFailed,
    EncoderFailed,
    GoldenMismatch,
    HubUnreachable,
    InvalidBundle,
    ModelError,
    ModelMismatch,
    NoFeatures,
    NoReranker,
    Overloaded,
    ParityFailed,
    RerankerAway,
    TextsOnly,
    UnknownRecipe,
    UnsupportedCheckpoint,
)
from indexer.errors.moderation import (
    ClassifierNotFound,
    HashListInvalid,
    HashListNotFound,
    ModerationError,
    OriginalWithheld,
    PolicyChanged,
    PolicyInvalid,
    PolicyNotFound,
    QueryBlocked,
    ReviewConflict,
    TrailEntryNotFound,
)
from indexer.errors.remote import ApiError, ServerUnreachable
from indexer.errors.usage import (
    BrokerUnavailable,
    InvalidBackup,
    InvalidCursor,
    InvalidName,
    InvalidRequest,
    InvalidTextSource,
    JobNotFound,
    LabelSetNotFound,
    MissingExtra,
    PruneRefused,
    ReservedPayloadKey,
    SourceNotFound,
    TooBusy,
    UsageError,
)

__all__ = [
    "AccessDenied",
    "AccessError",
    "ApiError",
    "ArchiveRefused",
    "BadMember",
    "BrokerUnavailable",
    "BundleNotFound",
    "ClassifierNotFound",
    "CollectionNotFound",
    "CrosslensError",
    "DeviceUnavailable",
    "DownloadFailed",
    "EmptyFile",
    "EncoderFailed",
    "Encrypted",
    "FetchFailed",
    "FetchTimeout",
    "GoldenMismatch",
    "HashListInvalid",
    "HashListNotFound",
    "HubUnreachable",
    "IndexOwned",
    "IndexUnavailable",
    "InvalidBackup",
    "InvalidBundle",
    "InvalidCursor",
    "InvalidName",
    "InvalidRequest",
    "InvalidTextSource",
    "InvalidVector",
    "ItemNotFound",
    "JobNotFound",
    "KeyForbids",
    "KeyInvalid",
    "KeyNotFound",
    "KeyRequired",
    "KeysUnavailable",
    "LabelSetNotFound",
    "MediaError",
    "MediaGone",
    "MediaStoreUnavailable",
    "MissingExtra",
    "ModelError",
    "ModelMismatch",
    "ModerationError",
    "NoFeatures",
    "NoReranker",
    "NoVideo",
    "NotAnImage",
    "OriginalWithheld",
    "Overloaded",
    "ParityFailed",
    "PolicyChanged",
    "PolicyInvalid",
    "PolicyNotFound",
    "PruneRefused",
    "Quarantined",
    "QueryBlocked",
    "RateLimited",
    "RerankerAway",
    "ReservedPayloadKey",
    "ReviewConflict",
    "ServerTooOld",
    "ServerUnreachable",
    "SourceNotFound",
    "SymlinkLoop",
    "TextsOnly",
    "TooBusy",
    "TooLarge",
    "TooManyPixels",
    "TrailEntryNotFound",
    "Truncated",
    "UnknownRecipe",
    "Unreadable",
    "UnsupportedCheckpoint",
    "UnsupportedFormat",
    "UrlRefused",
    "UsageError",
    "VectorIndexError",
]
