"""The policy of a collection at work on its items: those that are ingested, and those that are stored.

What cannot be judged, for whatever reason, is held back and not shown.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from indexer.errors import CrosslensError, MediaError
from indexer.flow import batched
from indexer.items import Record, now
from indexer.media.pictures import stored_picture
from indexer.moderation.classifiers.classifier import ImageClassifier
from indexer.moderation.judge import Judge, Judgement
from indexer.moderation.lists import PREFIX
from indexer.moderation.notices import action_changed, open_webhooks, tell
from indexer.moderation.opening import open_policy
from indexer.moderation.policy import Action
from indexer.moderation.review.decisions import deciding
from indexer.moderation.review.state import REVIEW, is_persons, refreshed
from indexer.moderation.stored import StoredPolicy, policy_of
from indexer.moderation.subjects import Subjects
from indexer.moderation.verdicts import Verdict
from indexer.moderation.visible import SHOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.media.originals import Originals
    from indexer.models.encoder import Encoder
    from indexer.moderation.trail import Trail
    from indexer.settings import Settings
    from indexer.store.collection import Collection
    from indexer.store.points import Stored

    Floats = NDArray[np.float32]

_log = structlog.get_logger("moderation")

BATCH = 512
_OPEN_AT_ONCE = 8
_opening = threading.Lock()
_open: OrderedDict[tuple[str, ...], ItemJudge] = OrderedDict()


@dataclass(frozen=True)
class ItemJudge:
    """A policy in force, opened."""

    stored: StoredPolicy
    judge: Judge | None
    """None where it cannot be opened: then nothing can be judged."""
    classifiers: tuple[ImageClassifier, ...] = ()
    """Those that have to see a picture before it is judged."""
    trouble: str = ""

    def verdicts(
        self, records: Sequence[Record], payloads: Sequence[dict[str, Any]], vectors: Floats | None
    ) -> list[dict[str, Any]]:
        """The items' verdicts as records keep them; what a person decided on one stays in force."""
        if self.judge is None:
            judged = [self._held_back() for _ in records]
        else:
            judged = self.judgement(self.judge, records, payloads, vectors).payloads(now())
        return [refreshed(record.verdict, verdict) for record, verdict in zip(records, judged, strict=True)]

    def judgement(
        self, judge: Judge, records: Sequence[Record], payloads: Sequence[dict[str, Any]], vectors: Floats | None
    ) -> Judgement:
        """What the policy itself finds of the items."""
        fields, scores = self.stored.policy.fields, self._scores(records)
        return judge.judge(Subjects.of_items(records, payloads, vectors, fields=fields, scores=scores))

    def settle(self, collection: Collection, parents: Iterable[str | None]) -> None:
        """See that no part of a file is shown while another is withheld: frames, pages and captions stand together."""
        for parent in sorted({each for each in parents if each is not None}):
            parts = {part.id: part for part in collection.parts(parent)}
            if (first := collection.get(parent)) is not None:
                parts[parent] = first  # a picture with a caption is no part of itself
            withheld = any((part.record.verdict or {}).get("action") not in SHOWN for part in parts.values())
            collection.note(
                {part.id: {"withheld": withheld} for part in parts.values() if bool(part.record.withheld) != withheld}
            )

    def _held_back(self) -> dict[str, Any]:
        policy = self.stored.policy
        verdict = Verdict(action=Action.QUARANTINE, policy=policy.name, version=policy.version, at=now())
        return {**verdict.to_payload(), "reason": f"not judged: {self.trouble}"}

    def _scores(self, records: Sequence[Record]) -> dict[str, Floats]:
        columns = {}
        for classifier in self.classifiers:
            name, count = classifier.manifest.name, len(classifier.manifest.labels)
            column = np.full((len(records), count), np.nan, np.float32)
            for row, record in enumerate(records):
                kept = (record.scores or {}).get(score_key(classifier))
                if kept is not None and len(kept) == count:
                    column[row] = kept
            columns[name] = column
        return columns


def score_key(classifier: ImageClassifier) -> str:
    """Under which a record keeps a classifier's scores: another graph by the same name has others."""
    return f"{classifier.manifest.name}@{classifier.manifest.fingerprint[:8]}"


def open_judge(collection: Collection, encoder: Encoder, settings: Settings) -> ItemJudge | None:
    """The policy of a collection, as its metadata has it; None without one. Kept open for the next who ask."""
    stored = policy_of(collection)
    if stored is None:
        return None
    lists = [str(collection.metadata.get(PREFIX + name)) for name in stored.policy.lists]
    key = (collection.physical, str(stored.number), stored.policy.version, encoder.fingerprint, *lists)
    with _opening:
        if key not in _open:
            _open[key] = _opened(stored, collection, encoder, settings)
            while len(_open) > _OPEN_AT_ONCE:
                _open.popitem(last=False)
        _open.move_to_end(key)
        return _open[key]


def _opened(stored: StoredPolicy, collection: Collection, encoder: Encoder, settings: Settings) -> ItemJudge:
    try:
        judge, classifiers = open_policy(stored.policy, encoder, settings, collection)
    except CrosslensError as error:
        return ItemJudge(stored, None, trouble=error.message)
    return ItemJudge(stored, judge, classifiers)


@dataclass
class Judged:
    """What became of stored items that were judged again."""

    changed: int = 0
    unchanged: int = 0

    def add(self, other: Judged) -> None:
        """Add what became of others."""
        self.changed += other.changed
        self.unchanged += other.unchanged


def judge_stored(
    collection: Collection,
    judge: ItemJudge,
    ids: Sequence[str],
    *,
    settings: Settings,
    originals: Originals,
    trail: Trail,
) -> Judged:
    """Judge stored items again, from their vectors, hashes, texts and kept scores; write what changed alone.

    A picture is decoded only if the policy asks a classifier that has not seen it.
    """
    done = Judged()
    webhooks = open_webhooks(settings)
    parents: set[str | None] = set()
    for some in batched(ids, BATCH):
        _score_unseen(collection, judge, some, originals, settings)
        with deciding(trail):
            there = collection.get_many(some)
            vectors = collection.vectors(list(there))
            items = [item for item in there.values() if item.id in vectors]
            changes = {
                item.id: {"verdict": verdict}
                for item, verdict in zip(items, _verdicts(judge, items, vectors), strict=True)
                if matters(item.record.verdict, verdict)
            }
            collection.note(changes)
        verdicts = {item: change["verdict"] for item, change in changes.items()}
        news = {item: each for item, each in verdicts.items() if action_changed(there[item].record.verdict, each)}
        tell(webhooks, collection.name, news)
        done.changed += len(changes)
        done.unchanged += len(items) - len(changes)
        parents |= {item.record.parent for item in items}
    judge.settle(collection, parents)
    return done


def _verdicts(judge: ItemJudge, items: Sequence[Stored], vectors: dict[str, Floats]) -> list[dict[str, Any]]:
    if not items:
        return []
    rows = np.stack([vectors[item.id] for item in items])
    return judge.verdicts([item.record for item in items], [item.payload for item in items], rows)


def _score_unseen(
    collection: Collection, judge: ItemJudge, ids: Sequence[str], originals: Originals, settings: Settings
) -> None:
    """Let the policy's classifiers see the pictures that they have not seen; those whose original is gone stay so."""
    for classifier in judge.classifiers:
        key = score_key(classifier)
        unseen = [
            item
            for item in collection.get_many(ids).values()
            if item.record.kind.modality == "image" and key not in (item.record.scores or {})
        ]
        for item in unseen:
            try:
                picture = stored_picture(item.record, originals=originals, settings=settings, target=classifier.target)
            except MediaError as error:
                _log.warning("not classified", item=item.id, code=error.code)
                continue
            row = [round(float(score), 6) for score in classifier.classify([picture])[0]]
            collection.note({item.id: {"scores": {**(item.record.scores or {}), key: row}}})


def matters(before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
    """Whether a verdict differs in more than when it was found, and by which policy.

    A verdict says which policy first found it so: one that a later policy agrees with stays, or else a change of one
    category would write every item. Where a person decided or said something, the policy counts too, as what they said
    is put beside what it finds.
    """
    passed_over = {"at"} if is_persons(after) or REVIEW in after else {"at", "policy", "version"}
    return before is None or any(
        before.get(name) != after.get(name) for name in (before.keys() | after.keys()) - passed_over
    )
