"""What a search for duplicates answers: how far it is, and a page of what it found."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from search_api.openapi.answers import Absent, Answer, Count, Payload


class DuplicateItem(Answer):
    """An item that is the same as another."""

    id: str
    source: str | Absent = None
    payload: Payload | Absent = None
    distance: float | Absent = None
    """From the group's first: bits of PDQ, or one less the cosine."""


class DuplicateGroup(DuplicateItem):
    """Items that are the same; the group itself is the one to keep."""

    members: list[DuplicateItem]


class DuplicatesRunning(Answer):
    """A search for duplicates that is under way; ask again."""

    state: Literal["running"]
    done: Count
    total: Count
    groups: list[DuplicateGroup]
    next: None


class Duplicates(Answer):
    """A page of what a search for duplicates found."""

    state: Literal["done"]
    as_of: datetime
    by: Literal["bytes", "picture", "alike"]
    exact: bool
    compared: Count
    left_out: Count
    groups_count: Count
    groups: list[DuplicateGroup]
    next: str | None
    """`after` of the next page; null on the last one."""
