"""What people decide about items, and what waits for them."""

from indexer.moderation.review.decisions import Reviews
from indexer.moderation.review.state import Decision, Review, State, refreshed, review_of
from indexer.moderation.review.waiting import Waiting, queue

__all__ = ["Decision", "Review", "Reviews", "State", "Waiting", "queue", "refreshed", "review_of"]
