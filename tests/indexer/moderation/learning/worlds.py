"""Collections that tests make up, of which the truth is known: clusters, a weak detector, a biased review."""

from dataclasses import dataclass

import numpy as np

from indexer.moderation.learning.samples import Population, Reviewed
from indexer.moderation.policy import Policy
from tests.indexer.moderation.spaces import FINGERPRINT, unit


def policy(threshold: float = 0.5, detectors: list | None = None, **more) -> Policy:
    prompts = {"type": "prompts", "positive": ["a weapon"], "items": ["image"]}
    category = {"name": "weapons", "action": "block", "threshold": threshold, "detectors": detectors or [prompts]}
    return Policy.model_validate({"name": "made-up", "categories": [category | more]})


def linear(items: tuple[str, ...] = ("image", "text"), dimension: int = 8) -> dict:
    return {"type": "linear", "weights": [1.0] * dimension, "bias": 0.0, "fingerprint": FINGERPRINT, "items": items}


@dataclass
class World:
    vectors: np.ndarray
    truth: np.ndarray
    present: np.ndarray
    images: np.ndarray

    @property
    def population(self) -> Population:
        return Population(self.vectors, self.present[:, None], self.images)

    def reviewed(self, rows: np.ndarray, *, placed: bool = True) -> Reviewed:
        return Reviewed(
            vectors=self.vectors[rows],
            probabilities=self.present[rows, None],
            labels=self.truth[rows, None],
            known=np.ones((len(rows), 1), bool),
            images=self.images[rows],
            places=rows if placed else None,
        )


def world(
    seed: int,
    count: int = 20_000,
    *,
    base_rate: float = 0.01,
    apart: float = 4.0,
    told: float = 1.5,
    dimension: int = 8,
) -> World:
    """Two clusters `apart` in one direction of the space; a detector whose log-odds tell them apart by `told`."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < base_rate
    vectors = rng.standard_normal((count, dimension))
    vectors[:, 0] += apart * truth
    # Lengths take part of the truth away from nobody: another direction keeps it.
    vectors = unit(np.column_stack([vectors, np.full(count, 3.0)]))
    logits = rng.standard_normal(count) - 2 + told * truth
    return World(vectors, truth, (1 / (1 + np.exp(-1.5 * logits))).astype(np.float32), np.ones(count, bool))


def as_reviewers_see(made: World, seed: int, count: int = 600, threshold: float = 0.5) -> np.ndarray:
    """Rows by what fired, by uncertainty, and some at random: nothing like a random sample."""
    rng = np.random.default_rng(seed + 1000)
    fired = made.present >= threshold
    likely = np.clip(made.present, 1e-6, 1 - 1e-6)
    near = np.exp(-np.abs(np.log(likely / (1 - likely))))
    chance = 5.0 * fired + 3.0 * near + 0.05
    return np.sort(rng.choice(len(chance), size=count, replace=False, p=chance / chance.sum()))
