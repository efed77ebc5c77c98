"""Text as rules read it: in one notation, so that no invisible letter or look-alike hides a word; and linear patterns.

Rules are matched by RE2, in time linear in the text whatever the pattern; it has no backreferences and no look-around,
which cannot be had so. Text is only ever matched: nothing in it is an instruction.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import re2

MOST_CHARACTERS = 2**20
"""Of an item's texts: what has more is not judged, rather than judged in part."""

_MEMORY = 2 * 2**20
"""Bytes that one pattern's automaton may take; past it, RE2 goes on more slowly, still in linear time."""
_BLANKS = dict.fromkeys(map(ord, "\t\n\r\v\f\x85"), " ")
_MARKS = dict.fromkeys(range(0x0300, 0x0370))
"""Combining diacritics, Zalgo's too: removed after decomposition. Those of Indic scripts stay: they are letters."""
_INVISIBLE = frozenset(("Cf", "Cc", "Co", "Cs"))
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800")
"""Letters by their category that show nothing."""
_ALIKE = (
    "aаɑαᴀ", "bвβʙ", "cсᴄ", "dԁᴅ", "eеεᴇ", "fꜰ", "gɡցɢ", "hһհʜ", "iіιıɪ", "jјᴊ", "kкκᴋ", "lӏʟ", "mмᴍ", "nηɴ",
    "oоοօᴏ", "pрρᴘ", "qԛ", "rʀ", "sѕꜱƽ", "tтτᴛ", "uυսᴜ", "vѵνᴠ", "wԝᴡ", "xхχ", "yуγʏ", "zᴢ",
)  # fmt: skip
_LOOKALIKES = {ord(other): row[0] for row in _ALIKE for other in row[1:]}
"""Cyrillic, Greek, Armenian and small-capital letters that look like Latin ones, as in Unicode's `confusables`."""
_UNSPACED = ("CJK ", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts that write words without blanks between: there is no boundary to ask for."""
_OUTSIDE = r"[^\pL\pN\pM_]"


def cleaned(text: str) -> str:
    """NFKC, without what shows nothing (zero-width and control characters); patterns are matched with it."""
    composed = unicodedata.normalize("NFKC", text).translate(_BLANKS)
    if composed.isascii() and composed.isprintable():
        return composed
    return "".join(each for each in composed if unicodedata.category(each) not in _INVISIBLE and each not in _FILLERS)


def folded(text: str) -> str:
    """A cleaned text without case, diacritics and look-alikes, blanks made one; words are matched with it."""
    bare = unicodedata.normalize("NFKD", text.casefold()).translate(_MARKS).translate(_LOOKALIKES)
    return " ".join(unicodedata.normalize("NFC", bare).split())


def pattern_of(pattern: str) -> Any:
    """A pattern, compiled; case does not count.

    Raises:
        ValueError: RE2 does not read it, with the reason.
    """
    try:
        return _compiled(pattern, fold=True)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"is no pattern that RE2 reads: {reason}") from error


def words_of(words: Iterable[str]) -> Any:
    """One pattern that finds any of the words, whole, in a folded text.

    Raises:
        ValueError: one of them has nothing left once it is folded, or there are too many for one automaton.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for word in dict.fromkeys(words):
        bare = folded(cleaned(word))
        if not bare:
            raise ValueError(f"has the word {word!r}, of which nothing is left to look for")
        begin = "" if _is_unspaced(bare[0]) else f"(?:^|{_OUTSIDE})"
        end = "" if _is_unspaced(bare[-1]) else f"(?:$|{_OUTSIDE})"
        groups.setdefault((begin, end), []).append(re2.escape(bare))
    # A boundary is a large class of characters: once a group, not once a word.
    alternatives = [f"{begin}(?:{'|'.join(some)}){end}" for (begin, end), some in groups.items()]
    try:
        return _compiled("|".join(alternatives), fold=False)
    except re2.error as error:
        raise ValueError("has too many words for one detector") from error


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)


@lru_cache(maxsize=256)
def _compiled(pattern: str, *, fold: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not fold
    options.never_capture = True
    # A list of words is longer than a pattern that a person writes.
    options.max_mem = _MEMORY if fold else 8 * _MEMORY
    return re2.compile(pattern, options)
