"""What of a collection the caller of the current request sees: what may be shown, unless it asks as a moderator.

Nobody sees more by being somebody: a moderator who searches sees what everybody sees, and has to say `?view=moderator`
to see what was withheld.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import g, request

from indexer.errors import InvalidRequest, KeyForbids
from indexer.items import check_collection_name
from indexer.moderation.visible import visible
from search_api.access.keys import Role
from search_api.services import services

if TYPE_CHECKING:
    from indexer.store.collection import Collection

VIEWS = ("visitor", "moderator")


def as_moderator() -> bool:
    """Whether the caller asks as a moderator.

    Raises:
        KeyForbids: its key has not that role.
        InvalidRequest: there is no such view.
    """
    view = request.args.get("view", VIEWS[0])
    if view not in VIEWS:
        raise InvalidRequest(f"view: must be one of {', '.join(VIEWS)}.", field="view")
    if view == VIEWS[0]:
        return False
    if not g.key.may(Role.MODERATE):
        raise KeyForbids(f"The key {g.key.id} has no role {Role.MODERATE.value!r}.")
    return True


def seen(name: str) -> Collection:
    """A collection as the caller sees it.

    Raises:
        CollectionNotFound: there is none of that name.
        KeyForbids, InvalidRequest: as `as_moderator`.
    """
    everything = as_moderator()
    collection = services().collection(check_collection_name(name))
    return collection if everything else visible(collection)
