"""A data folder's whole content, saved while it is served, and brought back into an empty one.

    manifest.json                        what it is: versions, collections, aliases, counts; the hash of parts.jsonl
    parts.jsonl                          every other file with its length and SHA-256, a line each
    collections/media/000000.jsonl       ids and payloads of some points, a line each
    collections/media/000000.f32         their vectors, float32, little-endian, one after the other
    media/3f/3f0b...                     uploads and copies by their hash
    broker/..., models/..., access/...   the queue's file, bundles, keys: as they lie in the data folder

In a folder or in one .zip. Points are saved as such, not as the engine's files: so a backup moves between the embedded
index and a Qdrant server, and between versions of either.

The queue comes first, then the index, then the media. So what is in the backup of one has what it needs in the next:
a job that was saved as done has its items, an item has its upload. All that was acknowledged before the backup began
is in it, unless it was changed or removed meanwhile; what is written meanwhile may be in it or not.
"""

from indexer.backup.restore import restore
from indexer.backup.save import Saved, save

__all__ = ["Saved", "restore", "save"]
