"""Items that are the same: the same bytes, the same picture, or alike; over a whole collection, or for one new item.

Three notions, never one number: `By` names them, and a search is by one of them. `find_duplicates` groups a collection;
`HashIndex` finds the hashes near one.
"""

from indexer.duplicates.find import Duplicates, Group, find_duplicates
from indexer.duplicates.gather import EXACT_VECTORS, By, Entry
from indexer.duplicates.hashes import HashIndex, Hits

__all__ = ["EXACT_VECTORS", "By", "Duplicates", "Entry", "Group", "HashIndex", "Hits", "find_duplicates"]
