"""Prompts around a text: models trained on captions understand "a photo of a dog" better than "dog".

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 3.1.4. A set of
several is an ensemble: the mean of their embeddings.
"""

from __future__ import annotations

PLACE = "{}"
"""Where the text goes."""

SETS: dict[str, tuple[str, ...]] = {
    "none": (PLACE,),
    "photo": ("a photo of {}",),
    "ensemble": (
        "a photo of {}",
        "a close-up of {}",
        "a picture with {} in it",
        "a blurry photo of {}",
        "a bright photo of {}",
        "a dark photo of {}",
        "a drawing of {}",
    ),
}
"""By the names that requests use."""


def is_template(text: str) -> bool:
    """Whether a string names a set or is a prompt of its own."""
    return text in SETS or text.count(PLACE) == 1


def filled(text: str, template: str | None) -> list[str]:
    """A text in every prompt of a set, or in the one prompt; as it is without a template."""
    if template is None:
        return [text]
    return [prompt.replace(PLACE, text) for prompt in SETS.get(template, (template,))]
