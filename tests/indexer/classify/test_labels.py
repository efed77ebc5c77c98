"""Label sets: what is one and what is refused, from JSON and from YAML."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.classify.labels import MOST_BYTES, MOST_LABELS, LabelSet, as_document, parse_label_set, read_label_set
from indexer.errors import InvalidRequest
from indexer.models.templates import SETS


def test_a_label_has_its_own_prompts_or_the_templates() -> None:
    labels = parse_label_set(
        {
            "name": "animals",
            "labels": ["cat", {"name": "dog", "prompts": ["a good {}", "woof"]}],
            "template": "ensemble",
        }
    )
    assert labels.texts == [[prompt.replace("{}", "cat") for prompt in SETS["ensemble"]], ["a good dog", "woof"]]
    assert (labels.target, labels.version_field) == ("labels.animals", "labels_version.animals")
    assert parse_label_set({"name": "a", "labels": ["b"], "template": "my {} photo"}).texts == [["my b photo"]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"labels": []}, "labels"),
        ({"labels": ["cat", "Cat"]}, "labels"),
        ({"labels": ["cat", 3]}, "labels.1"),
        ({"labels": [{"name": "cat", "prompt": "x"}]}, "labels.0.prompt"),
        ({"labels": [str(number) for number in range(MOST_LABELS + 1)]}, "labels"),
        ({"labels": [{"name": str(n), "prompts": ["x"] * 32} for n in range(100)]}, "labels"),
        ({"labels": ["\udcff"]}, "labels.0.name"),
        ({"name": "../x"}, "name"),
        ({"name": "a.b"}, "name"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"template": "{} and {}"}, "template"),
        ({"field": "tags"}, "labels"),
        ({"field": "crosslens.kind"}, "labels"),
        ({"field": "labels_version.other"}, "labels"),
        ({"field": "a..b"}, "field"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_no_label_set_is_refused_by_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_label_set({"name": "animals", "labels": ["cat"], **change})
    assert refused.value.details["field"] == field


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    body = {"labels": [{"name": "cat"}, {"name": "dog", "prompts": ["a dog"]}], "multi": True, "threshold": 0.3}
    (tmp_path / "animals.json").write_text(json.dumps(body))
    (tmp_path / "animals.yaml").write_text(
        "labels:\n  - cat\n  - name: dog\n    prompts: [a dog]\nmulti: yes\nthreshold: .3\n"
    )
    read = [read_label_set(tmp_path / name) for name in ("animals.json", "animals.yaml")]
    assert read[0] == read[1] == parse_label_set({"name": "animals", **body})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'{"labels": ["cat"]'),
        ("a.json", b'{"labels": NaN}'),
        ("a.yaml", b"labels: [cat"),
        ("a.yaml", b"labels: !!python/object/apply:os.system ['true']"),
        ("a.yaml", b"labels: [&a cat, {name: dog, prompts: [*a]}]"),
        ("a.yaml", b"[" * 5000),
        ("a.yaml", b"labels:\n - cat\n" + b"#" * MOST_BYTES),
        ("a.yaml", b"\xff\xfe\x00"),
        ("a.yaml", b""),
        ("a.yaml", b"labels: [yes, no]"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequest):
        read_label_set(tmp_path / name)
    with pytest.raises(InvalidRequest):
        read_label_set(tmp_path / "none.yaml")


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(names, min_size=1, max_size=5, unique_by=str.casefold), st.booleans(), st.floats(0.01, 0.99))
def test_a_set_comes_back_from_its_document(labels: list[str], multi: bool, threshold: float) -> None:
    made = LabelSet.model_validate({"name": "x", "labels": labels, "multi": multi, "threshold": threshold})
    back = parse_label_set(json.loads(json.dumps(as_document(made))))
    assert back == made
    assert back.digest == made.digest
    assert made.model_copy(update={"threshold": threshold / 2}).digest != made.digest
