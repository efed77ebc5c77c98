"""A policy at work: opened once, it judges items in batches, each as if it were judged alone.

A category's probability is the n-th highest of its detectors', n being how many of them have to agree; a detector that
does not apply to an item has no vote. It fails closed: where a detector that is required has nothing to go by, and its
say could have made an item of a category that is quarantined or blocked, the item is quarantined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import ClassifierNotFound, HashListNotFound, ModelMismatch, PolicyInvalid
from indexer.items import now
from indexer.models.devices import cpu_count
from indexer.moderation.cores import over_blocks
from indexer.moderation.detectors.base import Block, Detector
from indexer.moderation.detectors.classifier import ClassifierDetector
from indexer.moderation.detectors.hashes import HashDetector
from indexer.moderation.detectors.linear import LinearDetector
from indexer.moderation.detectors.prompts import open_prompts
from indexer.moderation.detectors.words import WordDetector
from indexer.moderation.directions import BLOCK, Directions
from indexer.moderation.policy import ACTIONS, Action, Classifier, Hash, Linear, Policy, Prompts, Text
from indexer.moderation.verdicts import BY_POLICY, Verdict, finding_of, findings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.classify.classifier import TextEncoder
    from indexer.moderation.classifiers.manifest import ClassifierManifest
    from indexer.moderation.hash_lists import HashList
    from indexer.moderation.subjects import Bools, Floats, Subjects

_METHOD = 1
"""Raised whenever the same policy comes to judge the same items in another way."""


@dataclass(frozen=True)
class Judgement:
    """What was found of some items, as columns; the verdict of one is made when it is asked for."""

    policy: Policy
    actions: NDArray[np.uint8]
    """(n,): `Action.rank`; `ACTIONS[rank]` is the action."""
    probabilities: Floats
    """float32 (n, categories); NaN where a category does not apply, or could not be judged."""
    fired: Bools
    """(n, categories): which categories an item is of."""
    undecided: Bools
    """(n, categories): for which it is held back because something was missing."""
    missing: Bools
    """(n, detectors), in the policy's order: which had nothing to go by."""
    needs: tuple[str, ...]
    """What each detector goes by, in words."""

    def __len__(self) -> int:
        return len(self.actions)

    def action(self, row: int) -> Action:
        """What is done with an item."""
        return ACTIONS[int(self.actions[row])]

    def verdict(self, row: int, at: datetime | None = None) -> Verdict:
        """The verdict of one item; `at` is when it was judged, now unless it is given."""
        found = {
            category.name: finding_of(self.probabilities[row, index], fired=bool(self.fired[row, index]))
            for index, category in enumerate(self.policy.categories)
            if not np.isnan(self.probabilities[row, index])
        }
        return Verdict(
            action=self.action(row),
            categories=found,
            policy=self.policy.name,
            version=self.policy.version,
            at=at or now(),
            reason=self.reason(row),
        )

    def payloads(self, at: datetime) -> list[dict[str, Any]]:
        """Every item's verdict as `Verdict.to_payload` gives it, in a fifth of the time."""
        scores, shares = (each.tolist() for each in findings(self.probabilities))
        applies, fired = ~np.isnan(self.probabilities), self.fired.tolist()
        names = [category.name for category in self.policy.categories]
        about = {"policy": self.policy.name, "version": self.policy.version, "by": BY_POLICY}
        when = at.isoformat().replace("+00:00", "Z")
        found = []
        for row, action in enumerate(self.actions):
            categories = {
                names[index]: {
                    "score": scores[row][index],
                    "probability": shares[row][index],
                    "fired": fired[row][index],
                }
                for index in np.flatnonzero(applies[row])
            }
            verdict = {"action": ACTIONS[action].value, "categories": categories, **about, "at": when}
            if self.undecided[row].any():
                verdict["reason"] = self.reason(row)
            found.append(verdict)
        return found

    def reason(self, row: int) -> str | None:
        """Why an item was not judged in full; None where it was."""
        wanting, begin = [], 0
        for index, category in enumerate(self.policy.categories):
            end = begin + len(category.detectors)
            if self.undecided[row, index]:
                needs = (self.needs[each] for each in range(begin, end) if self.missing[row, each])
                wanting.append(f"{category.name}, for want of {' and '.join(dict.fromkeys(needs))}")
            begin = end
        return f"not judged: {'; '.join(wanting)}" if wanting else None


class Judge:
    """A policy, opened: its prompts embedded, its lists and patterns ready. Thread-safe.

    Usage:
        judge = Judge(policy, encoder, hash_lists={"known": hashes})
        judgement = judge.judge(Subjects.of_items(records, payloads, vectors, fields=policy.fields))
        judgement.verdict(0).to_payload()
    """

    def __init__(
        self,
        policy: Policy,
        encoder: TextEncoder | None = None,
        *,
        hash_lists: Mapping[str, HashList] | None = None,
        classifiers: Mapping[str, ClassifierManifest] | None = None,
        threads: int | None = None,
    ) -> None:
        """`encoder` is of the collection's bundle; a policy without prompts and linear heads needs none.

        `threads` is how many cores a batch may take: all unless it is given.

        Raises:
            PolicyInvalid: it needs an encoder and there is none, or names a label that a classifier does not have.
            ModelMismatch: a linear head was fitted in another vector space.
            InvalidVector: a linear head has another number of weights than the space has dimensions.
            HashListNotFound, ClassifierNotFound: it names one that is not given.
        """
        self.policy = policy
        self._threads = threads or cpu_count()
        self._lists, self._classifiers = hash_lists or {}, classifiers or {}
        self._directions = _space(policy, encoder)
        prompts = [each for each in policy.detectors if isinstance(each, Prompts)]
        opened = iter(open_prompts(encoder, self._directions, prompts) if encoder else ())
        self._detectors: list[Detector] = [
            next(opened) if isinstance(each, Prompts) else self._open(each, encoder) for each in policy.detectors
        ]
        decisive = (
            _METHOD,
            policy.version,
            encoder.fingerprint if encoder else None,
            [self._lists[name].digest for name in policy.lists],
            [self._classifiers[name].fingerprint for name in policy.models],
        )
        self.stamp = hashlib.sha256(repr(decisive).encode()).hexdigest()[:16]
        """Names everything that decides a verdict, the lists and models too: 16 hex digits."""

    def _open(self, detector: Classifier | Linear | Hash | Text, encoder: TextEncoder | None) -> Detector:
        match detector:
            case Linear():
                if encoder is not None and detector.fingerprint != encoder.fingerprint:
                    raise ModelMismatch(
                        f"A linear head was fitted in the space {detector.fingerprint}, not {encoder.fingerprint}.",
                        remedy="Fit it again with the bundle in use, or take it out of the policy.",
                    )
                return LinearDetector(self._directions, detector)
            case Hash():
                if detector.list not in self._lists:
                    raise HashListNotFound(f"There is no hash list {detector.list!r}, which the policy names.")
                return HashDetector(detector, self._lists[detector.list])
            case Classifier():
                if detector.model not in self._classifiers:
                    raise ClassifierNotFound(
                        f"There is no image classifier {detector.model!r}, which the policy names."
                    )
                return ClassifierDetector(detector, self._classifiers[detector.model])
            case Text():
                return WordDetector(detector)

    def judge(self, subjects: Subjects) -> Judgement:
        """Judge items; vectors may be memory-mapped, and are read block by block.

        Raises:
            InvalidVector: vectors of another dimension.
            InvalidRequest: scores with another number of labels.
        """
        count, width = len(subjects), len(self.policy.categories)
        judgement = Judgement(
            policy=self.policy,
            actions=np.zeros(count, dtype=np.uint8),
            probabilities=np.empty((count, width), dtype=np.float32),
            fired=np.zeros((count, width), dtype=bool),
            undecided=np.zeros((count, width), dtype=bool),
            missing=np.zeros((count, len(self._detectors)), dtype=bool),
            needs=tuple(detector.needs for detector in self._detectors),
        )
        over_blocks(lambda rows: self._judge(subjects, judgement, rows), count, BLOCK, self._threads)
        return judgement

    def _judge(self, subjects: Subjects, judgement: Judgement, rows: slice) -> None:
        """Judge some rows, into the columns."""
        block = self._block(subjects.rows(rows))
        actions = judgement.actions[rows]
        begin = 0
        for index, category in enumerate(self.policy.categories):
            some = slice(begin, begin + len(category.detectors))
            begin = some.stop
            found = [detector.judge(block) for detector in self._detectors[some]]
            missing = np.stack([each.missing for each in found])
            required = np.array([[each.required] for each in category.detectors])
            threshold = np.float32(category.threshold)
            likely, undecided = _combined(
                np.stack([each.probabilities for each in found]), missing & required, category.needed, threshold
            )
            fired = likely >= threshold
            np.maximum(actions, category.action.rank, out=actions, where=fired)
            if category.action.rank >= Action.QUARANTINE.rank:
                np.maximum(actions, Action.QUARANTINE.rank, out=actions, where=undecided)
                judgement.undecided[rows, index] = undecided
            judgement.probabilities[rows, index] = likely
            judgement.fired[rows, index] = fired
            judgement.missing[rows, some] = missing.T

    def _block(self, subjects: Subjects) -> Block:
        if subjects.vectors is None or not len(self._directions):
            return Block(subjects)
        return Block(subjects, *self._directions.cosines(subjects.vectors))


def _space(policy: Policy, encoder: TextEncoder | None) -> Directions:
    if encoder is not None:
        return Directions(encoder.manifest.dimension)
    if any(isinstance(each, Prompts | Linear) for each in policy.detectors):
        raise PolicyInvalid(
            f"The policy {policy.name!r} has prompts or linear heads, and no encoder is given.",
            remedy="Judge with the collection's bundle.",
        )
    return Directions(1)


def _combined(votes: Floats, missing: Bools, needed: int, threshold: np.float32) -> tuple[Floats, Bools]:
    """A category's probability for every item, and where what is missing could have made the item one of it.

    Both given are (detectors, n); a vote of NaN is none.
    """
    votes = np.where(np.isnan(votes), np.float32(-1), votes)
    nth = votes.max(axis=0) if needed == 1 else np.sort(votes, axis=0)[-needed]
    possible = (votes >= threshold).sum(axis=0) + missing.sum(axis=0) >= needed
    likely = np.where(nth < 0, np.float32(np.nan), nth)
    return likely, possible & (nth < threshold) & missing.any(axis=0)
