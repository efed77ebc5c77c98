"""Another model for a collection that is in use: filled beside it, compared with it, then put in its place.

    prepare   a second collection in the new model's space, `<name>__<fingerprint>`
    carry     passes that make it hold what the first one holds: what differs is embedded, rewritten or removed
    compare   counts, neighbours and times of both
    switch    a last pass under a lock, then the name leads to the new one; back again; and the old one goes

What is guaranteed: at the switch the new collection was compared with the whole of the old one, item by item, while
nobody wrote, and nothing differed but the items that are listed as missing. So whatever was acknowledged before is in
it. Writers look for the lock once a second, and it is waited for longer than that; a single write that takes longer
to arrive than `moving.GRACE_SECONDS` after its writer looked is the one that could be missed. Whoever holds the old
collection longer than that is refused (`model_mismatch`) and writes nothing.
"""

from indexer.reindex.carry import Carried, Carrier
from indexer.reindex.moving import Move, find_move, finish, prepare, roll_back, statuses, switch

__all__ = ["Carried", "Carrier", "Move", "find_move", "finish", "prepare", "roll_back", "statuses", "switch"]
