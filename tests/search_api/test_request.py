"""Requests are checked before anything runs, and the sentence names the field."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import InvalidRequest
from indexer.items import Kind
from search_api.filters import of_kind, parse_filter
from search_api.request import SearchRequest, parse_json

PNG = b"\x89PNG not really"


def one(**term: Any) -> dict[str, Any]:
    return {"query": [term]}


def test_the_least_request_has_defaults() -> None:
    request = SearchRequest.parse(one(text="a cat"))
    assert (request.limit, request.kind, request.filter, request.query[0].weight) == (10, None, None, 1.0)


@pytest.mark.parametrize(
    "image", ["photo", base64.b64encode(PNG).decode(), "data:image/png;base64," + base64.b64encode(PNG).decode()]
)
def test_an_image_is_a_part_or_base64_or_a_data_url(image: str) -> None:
    assert SearchRequest.parse(one(image=image), {"photo": PNG}).query[0].image == PNG


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ("a cat", "body"),
        ({"dislike": ["a"]}, "body"),
        ({"diversity": 0.5}, "body"),
        ({**one(text="x"), "cursor": "abc"}, "body"),
        ({"like": ["a"] * 9, "dislike": ["b"] * 8}, "body"),
        ({**one(text="x"), "diversity": 1.5}, "diversity"),
        ({**one(text="x"), "group_by": "a..b"}, "group_by"),
        ({**one(text="x"), "collapse": ["colour"]}, "collapse.0"),
        (one(text="x", template="no place"), "query.0.template"),
        (one(item="x", template="photo"), "query.0"),
        (one(text="x", modality="text"), "query.0"),
        ({"query": "a cat"}, "query"),
        ({"query": [{"text": "x"}] * 17}, "query"),
        (one(), "query.0"),
        (one(text="x", item="y"), "query.0"),
        (one(text=""), "query.0.text"),
        (one(text=7), "query.0.text"),
        (one(text="\ud800"), "query.0.text"),
        (one(text="x" * 10_001), "query.0.text"),
        (one(text="x", weight=0), "query.0"),
        (one(text="x", weight=float("nan")), "query.0.weight"),
        (one(text="x", weight="heavy"), "query.0.weight"),
        (one(vector=[]), "query.0.vector"),
        (one(vector=[1.0, float("inf")]), "query.0.vector.1"),
        (one(vector=["a"]), "query.0.vector.0"),
        (one(image="no such part!"), "query.0.image"),
        (one(image=""), "query.0.image"),
        (one(words="x"), "query.0.words"),
        ({**one(text="x"), "limit": 0}, "limit"),
        ({**one(text="x"), "limit": 10**12}, "limit"),
        ({**one(text="x"), "kind": "sound"}, "kind"),
        ({**one(text="x"), "filter": []}, "filter"),
        ({**one(text="x"), "reranked": True}, "reranked"),
        ({**one(text="x"), "rerank": {"top": 201}}, "rerank.top"),
    ],
)
def test_what_is_wrong_is_named(body: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SearchRequest.parse(body)
    assert caught.value.details["field"] == field
    assert caught.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"bogus": 1}, "filter.bogus"),
        ({"must": [{"key": "tag", "match": {"value": 1}, "no": 1}]}, "filter.must.0.no"),
        ({"must": {"key": "tag", "range": {"gt": "x"}}}, "filter.must.range.gt"),
        ({"must": 3}, "filter.must"),
    ],
)
def test_a_filter_is_checked_with_its_field_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(body, {})
    assert caught.value.details["field"].startswith(field)


def test_a_kind_narrows_a_filter_and_leaves_it_whole() -> None:
    among = parse_filter({"should": [{"key": "tag", "match": {"value": "a"}}]}, {"tag": "keyword"})
    narrowed = of_kind(Kind.TEXT, among).model_dump(exclude_none=True)
    assert narrowed["must"][0] == {"key": "crosslens.kind", "match": {"value": "text"}}
    assert narrowed["must"][1] == {"should": [{"key": "tag", "match": {"value": "a"}}]}


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a": NaN}', b'{"a": "\\ud800"}', b"[" * 100_000, b"\xff", b"{'a': 1}", b"{} {}"]
)
def test_only_strict_json_is_json(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_json(body)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["query", "text", "image", "item", "vector", "weight", "filter", "limit"]), inner
        )
    ),
    max_leaves=12,
)


@given(_anything)
def test_no_body_does_anything_but_parse_or_be_refused(body: Any) -> None:
    try:
        request = SearchRequest.parse(body)
    except InvalidRequest:
        return
    assert len(request.terms) <= 16
