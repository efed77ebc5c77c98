"""The short form of filters: what it says in Qdrant's language, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client.http.models import Filter

from indexer.errors import InvalidRequest
from search_api.filters import parse_filter
from search_api.short_filters import parse_short

TYPES = {
    "year": "integer", "tags": "keyword", "taken_at": "datetime", "sharp": "bool", "title": "text", "score": "float",
    "place": "geo",
}  # fmt: skip


def must(text: str) -> list:
    parsed = parse_short(text, TYPES)
    assert parsed["must_not"] == []
    return parsed["must"]


def equal(key: str, value: object) -> dict:
    return {"key": key, "match": {"value": value}}


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("tags:beach", equal("tags", "beach")),
        ("tags:2020", equal("tags", "2020")),
        ("year:2020", equal("year", 2020)),
        ("year>=2020", {"key": "year", "range": {"gte": 2020}}),
        ("year<-5", {"key": "year", "range": {"lt": -5}}),
        ("year:2018..2020", {"key": "year", "range": {"gte": 2018, "lte": 2020}}),
        ("year:..2020", {"key": "year", "range": {"lte": 2020}}),
        ("score:0.5", {"key": "score", "range": {"gte": 0.5, "lte": 0.5}}),
        ("sharp:true", equal("sharp", True)),
        ("title:lake", {"key": "title", "match": {"text": "lake"}}),
        ("tags:a,b", {"should": [equal("tags", "a"), equal("tags", "b")]}),
        ('tags:"a, b",c', {"should": [equal("tags", "a, b"), equal("tags", "c")]}),
        (r'tags:"a \"b\" \\ c"', equal("tags", 'a "b" \\ c')),
        ("tags:..", equal("tags", "..")),
        ("kind:video", equal("crosslens.kind", "video")),
        ("width>=100", {"key": "crosslens.width", "range": {"gte": 100}}),
        ("a.b:c", equal("a.b", "c")),
        ("taken_at:2020", {"key": "taken_at", "range": {"gte": "2020-01-01T00:00:00", "lt": "2021-01-01T00:00:00"}}),
        ("taken_at<=2020-12", {"key": "taken_at", "range": {"lt": "2021-01-01T00:00:00"}}),
        ("taken_at>2020-02-28", {"key": "taken_at", "range": {"gte": "2020-02-29T00:00:00"}}),
        ("taken_at>2020-02-28T10:00Z", {"key": "taken_at", "range": {"gt": "2020-02-28T10:00:00+00:00"}}),
        ("has:place", {"must_not": [{"is_empty": {"key": "place"}}]}),
        (
            "near:48.85,-2.35,1.5km",
            {"key": "place", "geo_radius": {"center": {"lat": 48.85, "lon": -2.35}, "radius": 1500.0}},
        ),
        ("new:5", {"should": [{"key": "new", "range": {"gte": 5, "lte": 5}}, equal("new", "5")]}),
        ('new:"5"', equal("new", "5")),
        ("new:http://x/?a=b", equal("new", "http://x/?a=b")),
    ],
)
def test_a_condition(text: str, condition: dict) -> None:
    assert must(text) == [condition]
    assert isinstance(parse_filter(text, TYPES), Filter)


def test_conditions_hold_together_and_minus_turns_one_round() -> None:
    parsed = parse_short("  tags:sea  -kind:video year>2000 ", TYPES)
    assert parsed["must"] == [equal("tags", "sea"), {"key": "year", "range": {"gt": 2000}}]
    assert parsed["must_not"] == [equal("crosslens.kind", "video")]


def test_a_declared_field_outranks_our_own_of_that_name() -> None:
    assert parse_short("kind:cat", {"kind": "keyword"})["must"] == [equal("kind", "cat")]
    assert parse_short("has:it", {"has": "keyword"})["must"] == [equal("has", "it")]


@pytest.mark.parametrize(
    "text",
    [
        "beach", "tags:", ":beach", 'tags:"open', "tags:a,,b", 'tags:"a"b', "year:soon", "year:1.5", "year>=soon",
        "tags>3", "sharp:maybe", "sharp>true", "near:1,2", "near:91,0,1km", "near:0,181,1km", "taken_at:2020-13",
        "taken_at:9999", "year:..", "has:a,b", "tags:a -", "x" * 5000,
    ],
)  # fmt: skip
def test_what_does_not_parse_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_short(text, TYPES)
    assert "year>=2020" in (refused.value.remedy or "")


@given(st.text(alphabet=st.sampled_from('ab:<>=-",. \\\n0123456789é'), max_size=60))
def test_any_text_gives_a_filter_or_a_refusal(text: str) -> None:
    try:
        parsed = parse_filter(text, TYPES)
    except InvalidRequest:
        return
    assert parsed is None or isinstance(parsed, Filter)


@given(st.text(min_size=1).filter(str.strip))
def test_a_quoted_value_is_that_value(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert must(f'tags:"{quoted}"') == [equal("tags", value)]


def test_a_tag_is_one_of_the_tags_unless_there_is_a_field_of_that_name() -> None:
    assert parse_short("tag:beach", {"tags": "keyword"})["must"] == [{"key": "tags", "match": {"value": "beach"}}]
    both = {"tags": "keyword", "tag": "keyword"}
    assert parse_short("tag:beach", both)["must"] == [{"key": "tag", "match": {"value": "beach"}}]
    assert parse_short("-has:tag", {"tags": "keyword"})["must_not"][0]["must_not"] == [{"is_empty": {"key": "tags"}}]
