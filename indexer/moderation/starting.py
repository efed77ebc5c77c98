"""Policies to start with, which ship with Crosslens: to be copied, tried and changed, not to be relied on unread."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from indexer.errors import PolicyNotFound
from indexer.moderation.policy import Policy
from indexer.moderation.policy_file import read_policy


def _folder() -> Path:
    return Path(str(files("indexer.moderation") / "policies"))


def starting_policies() -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


def policy_text(name: str) -> str:
    """The file of one of them, as a person would copy it.

    Raises:
        PolicyNotFound: there is none of that name.
    """
    return _path(name).read_text(encoding="utf-8")


def starting_policy(name: str) -> Policy:
    """One of them.

    Raises:
        PolicyNotFound: there is none of that name.
    """
    return read_policy(_path(name))


def joined(name: str, names: Sequence[str]) -> Policy:
    """A policy of this name with the categories of several.

    Raises:
        PolicyNotFound: there is none of a name.
    """
    policies = [starting_policy(each) for each in dict.fromkeys(names)]
    categories = [category for policy in policies for category in policy.categories]
    described = " ".join(policy.description for policy in policies)
    return Policy.model_validate({"name": name, "description": described, "categories": categories})


def _path(name: str) -> Path:
    if name not in starting_policies():
        raise PolicyNotFound(
            f"There is no starting policy {name!r}.", remedy=f"There are: {', '.join(starting_policies())}."
        )
    return _folder() / f"{name}.yaml"
