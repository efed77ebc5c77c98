"""Policy files: what is right is read, and every mistake is told with its line and what to do about it."""

import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import PolicyInvalid, PolicyNotFound
from indexer.moderation.documents import MOST_BYTES, MOST_MISTAKES, read_json, read_yaml
from indexer.moderation.policy import ACTIONS, Action, Policy
from indexer.moderation.policy_file import parse_policy, read_policy
from indexer.moderation.starting import joined, policy_text, starting_policies, starting_policy

GOOD = """\
name: try
categories:
  - name: food
    action: blur
    threshold: 0.3
    detectors:
      - type: prompts
        positive: [a plate of food]
        negative: [a flower]
"""


def mistakes(text: str, form: str = "yaml") -> list[tuple[int, str, str]]:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(text, form=form)
    found = caught.value.details["mistakes"]
    assert caught.value.details["line"] == found[0]["line"]
    assert all(each["remedy"] and each["column"] >= 1 for each in found)
    assert f"line {found[0]['line']}, column {found[0]['column']}" in caught.value.message
    return [(each["line"], each["where"], each["problem"]) for each in found]


def test_a_policy_reads_the_same_from_yaml_and_from_json() -> None:
    policy = parse_policy(GOOD)
    assert policy.categories[0].action is Action.BLUR
    assert parse_policy(json.dumps(yaml.safe_load(GOOD), indent="\t"), form="json") == policy
    assert Policy.model_validate_json(policy.model_dump_json()) == policy


def test_the_version_is_that_of_the_content_alone() -> None:
    version = parse_policy(GOOD).version
    # Verdicts are stored under it. What is as by default is not in it, so that a new option changes none.
    assert version == "b995f67aa122d8ba"
    assert parse_policy("# a remark\n" + GOOD + "    combine: any\n").version == version  # as by default
    assert parse_policy(GOOD.replace("0.3", "0.4")).version != version


def test_actions_are_in_order() -> None:
    assert [each.value for each in sorted(Action, key=lambda each: each.rank)] == [
        "allow",
        "flag",
        "blur",
        "quarantine",
        "block",
    ]
    assert [each.rank for each in ACTIONS] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("old", "new", "line", "where", "problem"),
    [
        ("name: try", "name: try\ncolour: red", 2, "colour", "is no key"),
        ("    threshold: 0.3", "    treshold: 0.3", 5, "categories.0.treshold", "is no key"),
        ("        negative: [a flower]", "        nope: 1", 9, "categories.0.detectors.0.nope", "is no key"),
        ("0.3", "1.5", 5, "categories.0.threshold", "out of range"),
        ("0.3", "0", 5, "categories.0.threshold", "out of range"),
        ("0.3", "1", 5, "categories.0.threshold", "out of range"),
        ("0.3", ".nan", 5, "categories.0.threshold", ""),
        ("0.3", "'0.3'", 5, "categories.0.threshold", "number"),
        ("blur", "hide", 4, "categories.0.action", "is no action"),
        ("prompts", "promts", 7, "categories.0.detectors.0.type", "is no detector"),
        ("type: prompts", "required: true", 7, "categories.0.detectors.0", "has no 'type'"),
        ("[a plate of food]", "[a plate, no]", 8, "categories.0.detectors.0.positive.1", "is no text"),
        ("[a plate of food]", "[]", 8, "categories.0.detectors.0.positive", "is empty"),
        ("    action: blur\n", "", 3, "categories.0", "has no 'action'"),
        ("    action: blur", "    action: blur\n    action: flag", 5, "categories.0.action", "a second time"),
        ("    action: blur", "    action: blur\n    combine: vote(2)", 3, "categories.0", "needs 2"),
        ("    action: blur", "    action: blur\n    combine: most", 5, "categories.0.combine", "vote(n)"),
        ("name: try", "name: [try", 2, "", "is not YAML"),
        ("name: try", "name: &x try\ndescription: *x", 2, "", "is an alias"),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, line: int, where: str, problem: str) -> None:
    assert old in GOOD
    [(at, path, said), *others] = mistakes(GOOD.replace(old, new, 1))
    assert (at, path) == (line, where)
    assert problem in said
    assert not others


def test_a_category_without_a_detector_is_refused() -> None:
    text = GOOD[: GOOD.index("    detectors")]
    assert [(line, said) for line, _, said in mistakes(text)] == [(3, "has no 'detectors'")]
    assert [(line, said) for line, _, said in mistakes(text + "    detectors: []")] == [(6, "is empty")]


def test_a_category_that_stands_twice_is_told_beside_all_other_mistakes() -> None:
    second = (
        "  - name: food\n    action: hide\n    detectors:\n      - {type: text, patterns: ['(a', 'b(?=c)', '(a)\\1']}\n"
    )
    found = mistakes(GOOD.replace("0.3", "7") + second)
    assert [(line, where) for line, where, _ in found] == [
        (5, "categories.0.threshold"),
        (10, "categories.1.name"),
        (11, "categories.1.action"),
        (13, "categories.1.detectors.0.patterns.0"),
        (13, "categories.1.detectors.0.patterns.1"),
        (13, "categories.1.detectors.0.patterns.2"),
    ]
    assert "in line 3" in found[1][2]
    assert mistakes(GOOD + second.replace("hide", "flag").replace("'(a', 'b(?=c)', '(a)\\1'", "a"))[0][0] == 10


def test_the_lines_of_json_are_told_as_well() -> None:
    text = json.dumps(yaml.safe_load(GOOD), indent=2).replace("0.3", "3").replace('"blur"', '"blur",\n"action": "flag"')
    assert [(line, where) for line, where, _ in mistakes(text, "json")] == [
        (7, "categories.0.action"),
        (8, "categories.0.threshold"),
    ]
    assert mistakes('{"name": "x",\n "categories": [}', "json")[0][0] == 2
    assert any("behind its end" in said for _, _, said in mistakes('{"name": "x"} 3', "json"))
    assert mistakes("[" * 100_000, "json")[0][2].startswith("is nested too deep")


def test_no_file_is_too_hostile(tmp_path: Path) -> None:
    assert mistakes("[" * 100_000)[0][2].startswith("is nested too deep")
    bomb = "a: &a [x, x]\n" + "\n".join(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert mistakes(bomb)[0][2] == "is an alias"
    assert mistakes("x" * (MOST_BYTES + 1))[0][2].startswith("has 1,048,577 bytes")
    assert mistakes("!!python/object/apply:os.system [ls]")[0][2].startswith("is no mapping")
    many = GOOD + "".join(f"  - {{name: c{index}, action: x, detectors: []}}\n" for index in range(200))
    assert len(mistakes(many)) == MOST_MISTAKES
    (tmp_path / "broken.yaml").write_bytes(b"name: \xff")
    for path in (tmp_path / "broken.yaml", tmp_path / "none.yaml", tmp_path):
        with pytest.raises(PolicyInvalid):
            read_policy(path)


def test_there_is_a_cap_on_everything() -> None:
    category = {"name": "c", "action": "flag", "detectors": [{"type": "text", "words": ["a"]}]}

    def refused(categories: list[object]) -> str:
        return mistakes(json.dumps({"name": "x", "categories": categories}), "json")[0][2]

    assert "64" in refused([{**category, "name": f"c{index}"} for index in range(65)])
    prompts = [{"type": "prompts", "positive": [f"a{index}" for index in range(200)]}]
    assert "2,048" in refused([{**category, "name": f"c{index}", "detectors": prompts} for index in range(2)])
    patterns = [{"type": "text", "patterns": [f"a{index}" for index in range(100)]}]
    assert "128" in refused([{**category, "name": f"c{index}", "detectors": patterns} for index in range(2)])
    for hash_ in (
        {"distance": 65},
        {"distance": -1},
        {"distance": 1.5},
        {"kinds": []},
        {"kinds": ["md5"]},
        {"list": "../x"},
    ):
        refused([{**category, "detectors": [{"type": "hash", "list": "x", **hash_}]}])
    for rule in ({}, {"words": ["\u200b"]}, {"patterns": ["a{1000}{1000}"]}, {"words": ["a"], "fields": ["a..b"]}):
        refused([{**category, "detectors": [{"type": "text", **rule}]}])
    for head in ({"weights": []}, {"weights": [1e300]}, {"fingerprint": "x"}, {"weights": [True]}):
        linear = {"type": "linear", "weights": [1.0], "bias": 0.0, "fingerprint": "0" * 16, **head}
        refused([{**category, "detectors": [linear]}])


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**14), 10**14)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(_plain)
def test_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    for indent in (None, 2):
        document = read_json(json.dumps(value, indent=indent))
        assert not document.mistakes
        assert document.value == value


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200) | st.text("{}[]:,\"' \n-&*!ab1.", max_size=80))
def test_no_text_is_too_odd_for_a_reader(text: str) -> None:
    for read in (read_yaml, read_json):
        read(text)
    for form in ("yaml", "json"):
        with pytest.raises(PolicyInvalid):
            parse_policy(text, form=form)


@settings(max_examples=200)
@given(st.data())
def test_a_policy_with_letters_changed_is_read_or_refused_with_a_line(data: st.DataObject) -> None:
    text = policy_text(data.draw(st.sampled_from(starting_policies())))
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from(["", "x", ":", "\n", "[", "- ", "'", "\t", "9", "{", "&a ", "*a", "? "]))
    try:
        parse_policy(text[:at] + put + text[at + 1 :])
    except PolicyInvalid as error:
        assert 1 <= error.details["line"] <= text.count("\n") + 3


def test_a_hostile_pattern_takes_no_time() -> None:
    from indexer.moderation.texts import pattern_of

    begin = time.process_time()
    assert pattern_of("(a*)*(a|aa)+$").search("a" * 50_000 + "b") is None
    assert time.process_time() - begin < 5  # a backtracking engine would not end in this world


@pytest.mark.parametrize("name", starting_policies())
def test_a_starting_policy_says_how_far_to_trust_it(name: str) -> None:
    policy = starting_policy(name)
    assert policy.name == name
    for category in policy.categories:
        assert category.trust
        assert category.description or name == "neutral"
        if any(each.type == "prompts" for each in category.detectors):
            assert "bridge" in category.trust


def test_starting_policies_join_to_one() -> None:
    wanted = {"adult", "violence", "weapons", "drugs", "hate-symbols", "self-harm", "child-safety", "faces"}
    assert wanted | {"personal-data", "neutral"} == set(starting_policies())
    policy = joined("house", [*starting_policies(), "adult"])
    assert policy.models == ("open-nsfw",)
    assert policy.lists == ("child-safety",)
    [hashes] = [category for category in policy.categories if category.name == "child-safety"]
    assert {each.type for each in hashes.detectors} == {"hash"}
    with pytest.raises(PolicyNotFound):
        joined("house", ["../adult"])
