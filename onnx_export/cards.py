"""What a checkpoint's model card says of the languages that its texts may be written in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from yaml import YAMLError

from indexer.models.manifest import Languages

_MANY = {"multilingual", "mul"}


def languages_of(library: str, name: str) -> Languages | None:
    """The languages of `library:name`; None where nothing says so: open_clip's own models have no card.

    A card that cannot be had, or read, stops no export.
    """
    if library == "open_clip" and not (name.startswith("hf-hub:") or Path(name).is_dir()):
        return None
    name = name.removeprefix("hf-hub:")
    card = Path(name) / "README.md"
    if Path(name).is_dir() and not card.is_file():
        return None
    try:
        said = ModelCard.load(card if card.is_file() else name).data.to_dict()
    except (EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, httpx.TransportError):
        return None
    except (OSError, UnicodeError, ValueError, TypeError, YAMLError):
        return None
    return _of_card(said)


def _of_card(said: dict[str, Any]) -> Languages | None:
    language, tags = said.get("language") or [], said.get("tags") or []
    named = [str(each).lower() for each in ([language] if isinstance(language, str) else language)]
    if _MANY & {*named, *map(str, tags)}:
        return "any"
    # `zh-cn` is written as `zh`; `code`, for programs, is no language that anybody asks in.
    codes = [match[1] for each in named if (match := re.fullmatch(r"([a-z]{2,3})([-_].+)?", each))]
    return tuple(dict.fromkeys(codes)) or None
