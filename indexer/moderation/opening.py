"""A policy made ready to judge: its texts embedded, its hash lists read, its image classifiers found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer.moderation.classifiers.classifier import ImageClassifier, load_classifier
from indexer.moderation.judge import Judge
from indexer.moderation.lists import hash_list

if TYPE_CHECKING:
    from indexer.models.encoder import Encoder
    from indexer.moderation.policy import Policy
    from indexer.settings import Settings
    from indexer.store.collection import Collection


def open_policy(
    policy: Policy, encoder: Encoder, settings: Settings, collection: Collection | None = None
) -> tuple[Judge, tuple[ImageClassifier, ...]]:
    """The judge of a policy and the classifiers that see pictures before it; hash lists are the collection's.

    Raises:
        HashListNotFound, ClassifierNotFound: it names one that is not here.
        HashListInvalid, InvalidBundle: one that is here was altered, or is broken.
        PolicyInvalid, ModelMismatch, InvalidVector: as `Judge`.
    """
    folders = (settings.data / "classifiers",)
    classifiers = tuple(load_classifier(name, folders) for name in policy.models)
    names = policy.lists if collection is not None else ()
    judge = Judge(
        policy,
        encoder,
        hash_lists={name: hash_list(collection, name, settings) for name in names if collection is not None},
        classifiers={each.manifest.name: each.manifest for each in classifiers},
    )
    return judge, classifiers
