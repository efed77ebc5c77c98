"""Languages come from a checkpoint's model card, and stay out where it says nothing of them."""

from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="it comes with the extra `export`")

from onnx_export.cards import languages_of


@pytest.mark.parametrize(
    ("card", "languages"),
    [
        ("---\nlanguage: en\n---\n# A model\n", ("en",)),
        ("---\nlanguage:\n- en\n- zh-CN\n- zh-TW\n- code\n---\n", ("en", "zh")),
        ("---\nlanguage:\n- multilingual\n- en\n---\n", "any"),
        ("---\ntags:\n- multilingual\n---\n", "any"),
        ("---\nlanguage: [no]\n---\n", None),  # YAML's `no` is false
        ("---\nlicence: mit\n---\n", None),
        ("# A model without metadata\n", None),
        ("---\nlanguage: [\n---\n", None),
        ("---\n- a\n---\n", None),
        ("", None),
    ],
)
def test_a_card(tmp_path: Path, card: str, languages: object) -> None:
    (tmp_path / "README.md").write_text(card)
    for library in ("open_clip", "transformers", "sentence_transformers"):
        assert languages_of(library, str(tmp_path)) == languages


def test_without_a_card_nothing_is_known(tmp_path: Path) -> None:
    assert languages_of("transformers", str(tmp_path)) is None
    assert languages_of("open_clip", "ViT-B-32/openai") is None
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    assert languages_of("transformers", str(tmp_path)) is None


def test_a_hub_that_does_not_answer_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert languages_of("transformers", "nobody/nothing") is None
    assert languages_of("open_clip", "hf-hub:nobody/nothing") is None
