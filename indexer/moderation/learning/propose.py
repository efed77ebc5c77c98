"""What reviewers taught, as a proposal: a policy with better thresholds and heads, and what each would change.

Nothing is applied, and nothing is recommended that is no better than what is in force by more than chance explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.evaluation.fit import sigmoid
from indexer.moderation.learning.curves import Curve
from indexer.moderation.learning.estimates import differences, ordering
from indexer.moderation.learning.heads import Head, calibration, cross_validated
from indexer.moderation.learning.picture import Line, Mark, drawn
from indexer.moderation.learning.samples import NAMES, Sample, check, sample_of
from indexer.moderation.policy import MOST_DETECTORS, Category, Classifier, Hash, Linear, Policy, Prompts, Text

if TYPE_CHECKING:
    from indexer.evaluation.estimate import Estimate
    from indexer.moderation.learning.estimates import Measured
    from indexer.moderation.learning.samples import Floats, Population, Reviewed

_STEEPEST = 300.0
"""Longest weights: a judge's cosines are exact to 0.0001, which should not be seen in the log-odds."""
_STRICT = 0.99
"""The threshold of detectors that reach the goal nowhere, beside a head: a hash, which is certain, still reaches it."""
_LOWEST, _HIGHEST = 0.01, 0.99
"""Of a head's threshold."""


@dataclass(frozen=True)
class Option:
    """A threshold, and how well it does."""

    threshold: float
    """Of the category, and of the scores of its curve: a head's are log-odds."""
    measured: Measured


@dataclass(frozen=True)
class Fitted:
    """A head and the curve of what it would make of the category."""

    head: Head
    scale: float
    bias: float
    """From the head's own log-odds to those at the collection's base rate."""
    curve: Curve
    beside: float | None
    """The threshold of the present detectors, if they stay beside it."""


@dataclass(frozen=True)
class Learned:
    """What was learned of one category."""

    category: Category
    goal: float | None
    sample: Sample
    present: Curve
    before: Measured
    """The category as it is."""
    orders: dict[str, Estimate]
    """How well the `present` detectors and the `head` order items, whatever the threshold (`ordering`)."""
    tuned: Option | None
    """Its own detectors with the threshold that serves the goal best; None where none serves it."""
    fitted: Fitted | None
    headed: Option | None
    """The same of the head."""
    gains: dict[str, dict[str, Estimate]]
    """`tuned` over the category as it is, `headed` over the better of the two."""
    notes: tuple[str, ...]

    @cached_property
    def recommends(self) -> str | None:
        """`head`, `threshold`, or None: to leave it as it is."""
        if self.headed and self._tells("head", self.headed):
            gain = self.gains["head"]
            if gain["average_precision"].low > 0 and self._serves(gain):
                return "head"
        if self.tuned and self._tells("present", self.tuned) and self._serves(self.gains["threshold"]):
            return "threshold"
        return None

    def _tells(self, of: str, option: Option) -> bool:
        """Whether it tells anything at all: a threshold that is picked among many looks good by chance."""
        precision = option.measured.precision
        return precision is not None and precision.low > self.before.base_rate.value and self.orders[of].low > 0.5

    def _serves(self, gain: dict[str, Estimate]) -> bool:
        """Whether it is nearer to the goal, for certain: more precise where that is wanting, else more found."""
        if self.goal is None:
            return gain["f1"].low > 0
        precision = self.before.precision
        if precision is None or precision.value >= self.goal:
            return gain["recall"].low > 0
        return gain["recall"].low > 0 or (precision.high < self.goal and gain["precision"].low > 0)

    def proposed(self, fingerprint: str) -> Category:
        """The category as recommended; as it is where nothing is."""
        if self.recommends == "head" and self.headed and self.fitted:
            return _with_head(self, self.fitted, self.headed, fingerprint)
        if self.recommends == "threshold" and self.tuned:
            return self.category.model_copy(update={"threshold": self.tuned.threshold})
        return self.category

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        after = {"head": self.headed, "threshold": self.tuned, None: None}[self.recommends]
        positive = int(self.sample.labels.sum())
        fitted = None
        if self.fitted:
            fitted = {"strength": self.fitted.head.strength, "beside": self.fitted.beside is not None}
        return {
            "category": self.category.name,
            "kinds": list(self.sample.kinds),
            "reviewed": len(self.sample.labels),
            "positive": positive,
            "base_rate": self.before.base_rate.as_dict(),
            "unreviewed": round(self.sample.unreviewed, 4),
            "threshold": self.category.threshold,
            "ordering": {of: each.as_dict() for of, each in self.orders.items()},
            "before": self.before.as_dict(),
            "tuned": self.tuned and {"threshold": self.tuned.threshold, **self.tuned.measured.as_dict()},
            "head": self.headed and {**self.headed.measured.as_dict(), **(fitted or {})},
            "gains": {of: {name: each.as_dict() for name, each in gain.items()} for of, gain in self.gains.items()},
            "after": after.measured.as_dict() if after else None,
            "recommended": self.recommends is not None,
            "change": self.recommends,
            "notes": list(self.notes),
        }

    def picture(self) -> str:
        """The precision-recall curve as SVG."""
        marks = [Mark("as it is", "present", self.before)]
        lines = [Line("present", "Present detectors", self.present.points())]
        if self.tuned:
            marks.append(Mark(f"threshold {self.tuned.threshold:.3g}", "present", self.tuned.measured))
        if self.fitted:
            lines.append(Line("head", "New head, held out", self.fitted.curve.points()))
        if self.headed:
            marks.append(Mark("head's threshold", "head", self.headed.measured))
        return drawn(self.category.name, lines, marks, self.before.base_rate.value, self.goal)


@dataclass(frozen=True)
class Proposal:
    """A policy as reviewers would have it, beside the one that it was learned from."""

    before: Policy
    policy: Policy
    """With what is recommended; equal to `before` where nothing is."""
    learned: dict[str, Learned]
    """By category."""
    refused: dict[str, str]
    """Of which categories nothing was learned, and what that needs."""
    goal: float | None

    def as_dict(self) -> dict[str, Any]:
        """The report, as JSON has it; the policy is not in it."""
        return {
            "goal": {"precision": self.goal} if self.goal is not None else "f1",
            "policy": self.before.name,
            "from": self.before.version,
            "to": self.policy.version,
            "recommended": self.policy.version != self.before.version,
            "categories": [
                self.learned[each.name].as_dict()
                if each.name in self.learned
                else {"category": each.name, "recommended": False, "refused": self.refused[each.name]}
                for each in self.before.categories
            ],
        }


def learn(
    policy: Policy,
    reviewed: Reviewed,
    population: Population,
    *,
    fingerprint: str,
    precision: float | None = 0.95,
    seed: int = 0,
) -> Proposal:
    """Learn each category of a policy from what people decided.

    `fingerprint` is of the vectors' space; `precision` is wanted in the collection, None for the highest F1. The same
    columns and seed give the same proposal.

    Raises:
        InvalidRequest: columns that do not fit each other or the policy.
    """
    check(reviewed, population, len(policy.categories))
    learned, refused = {}, {}
    for index, category in enumerate(policy.categories):
        sample = sample_of(index, reviewed, population)
        if isinstance(sample, str):
            refused[category.name] = sample
        else:
            learned[category.name] = _learned(index, category, sample, reviewed, population, precision, seed)
    categories = [
        learned[each.name].proposed(fingerprint) if each.name in learned else each for each in policy.categories
    ]
    # Not model_copy of the policy: it takes along the version that was worked out before.
    proposed = Policy(name=policy.name, description=policy.description, categories=tuple(categories))
    return Proposal(policy, proposed, learned, refused, precision)


def _learned(
    index: int,
    category: Category,
    sample: Sample,
    reviewed: Reviewed,
    population: Population,
    goal: float | None,
    seed: int,
) -> Learned:
    present = Curve(sample, sample.present, sample.population_present, digits=6, within=(0.0, 1.0))
    line = float(np.float32(category.threshold))
    before = present.measure(line, seed)
    tuned = _option(present, goal, seed)
    gains: dict[str, dict[str, Estimate]] = {}
    if tuned:
        gains["threshold"] = differences(sample, present.at(line), present.at(tuned.threshold), seed)
    orders = {"present": ordering(sample, present.scores, seed)}
    notes = _notes(index, sample, population)
    made = _fitted(category, sample, reviewed, population, tuned, seed)
    if isinstance(made, str):
        return Learned(category, goal, sample, present, before, orders, tuned, None, None, gains, (*notes, made))
    orders["head"] = ordering(sample, made.curve.scores, seed)
    headed = _option(made.curve, goal, seed)
    if headed:
        rival = tuned.threshold if tuned else line
        gains["head"] = differences(sample, present.at(rival), made.curve.at(headed.threshold), seed)
    return Learned(category, goal, sample, present, before, orders, tuned, made, headed, gains, tuple(notes))


def _option(curve: Curve, goal: float | None, seed: int) -> Option | None:
    threshold = curve.choose(goal)
    return None if threshold is None else Option(threshold, curve.measure(threshold, seed))


def _fitted(
    category: Category,
    sample: Sample,
    reviewed: Reviewed,
    population: Population,
    tuned: Option | None,
    seed: int,
) -> Fitted | str:
    """A head for a category, or why there is none.

    It takes the place of detectors that judge by looks. Lists of hashes and text rules know what no vector tells: with
    them, all detectors stay and the head is one more. Where several detectors have to agree, that cannot be said.
    """
    certain = any(isinstance(each, Hash | Text) for each in category.detectors)
    if category.needed > 1 and (certain or _for(category, sample.other_kinds)):
        return f"No head is fitted: it would be one of the detectors that have to agree ({category.combine})."
    if len(category.detectors) >= MOST_DETECTORS:
        return f"No head is fitted: the category has {MOST_DETECTORS} detectors already, which is the most."
    groups = None if reviewed.groups is None else reviewed.groups[sample.rows]
    vectors = reviewed.vectors[sample.rows].astype(np.float64)
    head = cross_validated(vectors, sample.labels, groups, seed)
    scale, bias = calibration(head.held_out, sample.labels, sample.weights)
    if scale <= 0:
        return "No head is proposed: on items held out, it orders no better than chance."
    scores = scale * head.held_out + bias
    theirs = head.logits(population.vectors, sample.population_rows) * np.float32(scale) + np.float32(bias)
    there = sample.places >= 0
    theirs[sample.places[there]] = scores[there, None]  # not by the heads that were fitted with it
    beside = None
    if certain:
        beside = tuned.threshold if tuned else max(_STRICT, category.threshold)
        scores = np.where(sample.present >= beside, np.inf, scores)
        theirs = np.where(sample.population_present[:, None] >= beside, np.float32(np.inf), theirs)
    return Fitted(head, scale, bias, Curve(sample, scores, theirs, digits=4), beside)


def _with_head(learned: Learned, fitted: Fitted, option: Option, fingerprint: str) -> Category:
    """The category with its head, shifted so that what was chosen is where the category's threshold is."""
    category, sample = learned.category, learned.sample
    staying = list(category.detectors) if fitted.beside is not None else _for(category, sample.other_kinds)
    if fitted.beside is not None:
        threshold = fitted.beside
    elif staying:
        threshold = category.threshold
    else:
        threshold = round(min(max(float(sigmoid(np.array(option.threshold))), _LOWEST), _HIGHEST), 4)
    weights, bias = fitted.scale * fitted.head.weights, fitted.scale * fitted.head.bias + fitted.bias
    shrink = min(1.0, _STEEPEST / max(float(np.linalg.norm(weights)), 1e-12))
    at = math.log(threshold / (1 - threshold))
    head = Linear(
        type="linear",
        weights=tuple(_short(weights * shrink)),
        bias=float(f"{(bias - option.threshold) * shrink + at:.6g}"),
        fingerprint=fingerprint,
        items=sample.kinds,
    )
    update = {"threshold": threshold, "combine": "any", "detectors": (*staying, head)}
    return Category.model_validate(category.model_copy(update=update).model_dump())


def _for(category: Category, kinds: tuple[str, ...]) -> list[Prompts | Classifier | Linear | Hash | Text]:
    """Its detectors that judge by looks, for these kinds of item alone."""
    kept: list[Prompts | Classifier | Linear | Hash | Text] = []
    for each in category.detectors:
        if isinstance(each, Prompts | Linear):
            if items := tuple(kind for kind in each.items if kind in kinds):
                kept.append(each.model_copy(update={"items": items}))
        elif "image" in kinds:
            kept.append(each)
    return kept


def _short(weights: Floats) -> list[float]:
    return [float(f"{weight:.6g}") for weight in weights]


def _notes(index: int, sample: Sample, population: Population) -> list[str]:
    notes = []
    if sample.unreviewed > 0.01:
        notes.append(
            f"Of {sample.unreviewed:.0%} of the collection nothing was reviewed, so recall and the base rate cannot be "
            "told: review some of it, picked at random."
        )
    judged = ~np.isnan(population.probabilities[:, index])
    for kind in sample.other_kinds:
        if (judged & (population.images == (kind == "image"))).any():
            notes.append(f"Too few {NAMES[kind]} were reviewed: what is stated is not of them.")
    return notes
