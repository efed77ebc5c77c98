"""The same calls to the index process and to qdrant-client's own local mode: the same answers.

With CROSSLENS_TEST_QDRANT_URL set, a real Qdrant server is held to the same.
"""

import os
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from qdrant_client.http import models as http_models
from qdrant_client.http.exceptions import UnexpectedResponse

from indexer.edge.client import Attached, attach
from indexer.settings import Settings

NAME = "contract"
SIZE = 8
COUNT = 60
IDS = [str(uuid.UUID(int=number + 1)) for number in range(COUNT)]
TAGS = ["beach", "city", "forest"]
INDEXES = {
    "tag": "keyword",
    "year": "integer",
    "crosslens.locations[].source": "keyword",
    "labels": "keyword",
    "numbers": "integer",
    "video": "keyword",
    "flag": "bool",
    "seen": "datetime",
    "score": "float",
    "place": "geo",
}


def payload(number: int) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "tag": TAGS[number % 3],
        "year": 2000 + number % 10,
        "score": number / 7,
        "seen": f"2024-01-{1 + number % 28:02}T00:00:00Z",
        "flag": number % 2 == 0,
        "labels": [f"l{number % 7}", f"l{number % 3}"],
        "numbers": [number % 4, number % 6],
        "video": f"v{int(number**0.5)}",
        "place": {"lon": number / 10, "lat": 40 + number / 20},
        "crosslens": {"locations": [{"source": f"/a/{number}"}, {"source": f"/b/{number % 5}"}]},
    }
    if number % 4 == 0:
        del whole["tag"]
    if number % 5 == 0:
        whole["nothing"] = None
    return whole


def fill(client: QdrantClient) -> None:
    vectors = np.random.default_rng(1).normal(size=(COUNT, SIZE)).astype(np.float32)
    client.create_collection(
        NAME, vectors_config=models.VectorParams(size=SIZE, distance=models.Distance.COSINE), metadata={"model": "m"}
    )
    for field, schema in INDEXES.items():
        client.create_payload_index(NAME, field, field_schema=models.PayloadSchemaType(schema))
    points = [
        models.PointStruct(id=IDS[number], vector=vectors[number].tolist(), payload=payload(number))
        for number in range(COUNT)
    ]
    client.upsert(NAME, points[:30])
    client.upsert(
        NAME, models.Batch(ids=IDS[30:], vectors=vectors[30:].tolist(), payloads=[payload(n) for n in range(30, COUNT)])
    )


pytestmark = [
    pytest.mark.filterwarnings("ignore:Api key is used"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
]


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attached]:
    lease = attach(Settings(data=tmp_path_factory.mktemp("contract")))
    lease.connect()
    yield lease
    lease.close()


@pytest.fixture(scope="module")
def ours(attached: Attached) -> QdrantClient:
    url = os.environ.get("CROSSLENS_TEST_QDRANT_URL")
    client = (
        QdrantClient(url=url)
        if url
        else QdrantClient(url=attached.url, api_key=attached.secret, check_compatibility=False)
    )
    client.delete_collection(NAME)
    fill(client)
    return client


@pytest.fixture(scope="module")
def reference() -> QdrantClient:
    client = QdrantClient(":memory:")
    fill(client)
    return client


def plain(answer: Any) -> Any:
    """An answer without what differs by nature: versions, the last digits of a score, the order of ties."""
    match answer:
        case http_models.QueryResponse():
            answer = plain(answer.points)
        case models.ScoredPoint():
            answer = str(answer.id), round(answer.score, 4), answer.payload, rounded(answer.vector)
        case models.Record():
            answer = str(answer.id), answer.payload, rounded(answer.vector), answer.order_value
        case models.CountResult():
            answer = answer.count
        case models.GroupsResult():
            answer = [(group.id, plain(group.hits)) for group in answer.groups]
        case models.FacetResponse():
            answer = [(hit.value, hit.count) for hit in answer.hits]
        case models.CollectionsAliasesResponse():
            answer = sorted((each.alias_name, each.collection_name) for each in answer.aliases)
        case tuple() | list():
            answer = [plain(each) for each in answer]
    return answer


def rounded(vector: Any) -> Any:
    return None if vector is None else np.round(np.asarray(vector), 4).tolist()


def scroll(client: QdrantClient, **options: Any) -> Any:
    return client.scroll(NAME, **{"limit": 100, **options})


SEARCH = {"query": [0.5, -1.0, 0.25, 2.0, 1.0, -0.5, 0.0, 1.5], "limit": 7}
FILTER = models.Filter
CREATE, DELETE, RENAME = models.CreateAliasOperation, models.DeleteAliasOperation, models.RenameAliasOperation
FIELD = models.FieldCondition
CITY = FILTER(must=[FIELD(key="tag", match=models.MatchValue(value="city"))])


def recommend(client: QdrantClient, **examples: Any) -> Any:
    wanted = models.RecommendQuery(recommend=models.RecommendInput(**examples))
    return client.query_points(NAME, query=wanted, limit=100)


def groups(client: QdrantClient, group_by: str, **options: Any) -> Any:
    return client.query_points_groups(NAME, group_by=group_by, **{**SEARCH, **options})


def ordered(client: QdrantClient, limit: int = 100, **order: Any) -> Any:
    """Points in an order, those of the same value by id: the engine leaves that open."""
    records = client.scroll(NAME, limit=limit, order_by=models.OrderBy(**order), with_payload=["year"])[0]
    assert len(records) == limit or limit == 100
    values = [record.order_value for record in records]
    assert values == sorted(values, reverse=order.get("direction") == "desc")
    return values if limit < 100 else sorted((record.order_value, str(record.id)) for record in records)


CALLS = {
    "count": lambda c: c.count(NAME),
    "count some": lambda c: c.count(NAME, count_filter=FILTER(must=[FIELD(key="tag", match=models.MatchValue(value="city"))])),
    "exists": lambda c: (c.collection_exists(NAME), c.collection_exists("nope")),
    "retrieve": lambda c: sorted(c.retrieve(NAME, [*IDS[:3], str(uuid.uuid4())], with_vectors=True), key=lambda r: r.id),
    "retrieve fields": lambda c: c.retrieve(NAME, IDS[:1], with_payload=["year", "tag"]),
    "retrieve without": lambda c: c.retrieve(NAME, IDS[:1], with_payload=models.PayloadSelectorExclude(exclude=["crosslens"])),
    "scroll": scroll,
    "scroll a page": lambda c: scroll(c, limit=10),
    "scroll on": lambda c: scroll(c, limit=10, offset=IDS[20]),
    "search": lambda c: c.query_points(NAME, **SEARCH),
    "search with payload": lambda c: c.query_points(NAME, **SEARCH, with_payload=["year"]),
    "search from an offset": lambda c: c.query_points(NAME, **SEARCH, offset=3),
    "search above a score": lambda c: c.query_points(NAME, **SEARCH, score_threshold=0.3),
    "search exactly": lambda c: c.query_points(NAME, **SEARCH, search_params=models.SearchParams(exact=True)),
    "search without an item": lambda c: c.query_points(NAME, **SEARCH, query_filter=FILTER(must_not=[models.HasIdCondition(has_id=IDS[:30])])),
    "search by item": lambda c: c.query_points(NAME, query=IDS[7], limit=5),
    "search in batches": lambda c: [r.points for r in c.query_batch_points(NAME, [models.QueryRequest(query=SEARCH["query"], limit=n, with_payload=True) for n in (1, 3)])],
    "search with vectors": lambda c: c.query_points(NAME, **SEARCH, with_vectors=True, query_filter=CITY),
    "search by item from an offset": lambda c: c.query_points(NAME, query=IDS[7], limit=5, offset=2, score_threshold=0.1),
    "search by items in batches": lambda c: [r.points for r in c.query_batch_points(NAME, [models.QueryRequest(query=IDS[n], limit=4, filter=CITY) for n in (7, 8)])],
    "recommend": lambda c: recommend(c, positive=IDS[1:4]),
    "recommend away": lambda c: recommend(c, positive=[IDS[1], SEARCH["query"]], negative=[IDS[5]], strategy="average_vector"),
    "recommend by the best score": lambda c: recommend(c, positive=IDS[1:3], negative=[IDS[5]], strategy="best_score"),
    "recommend by the sum of scores": lambda c: recommend(c, positive=IDS[1:3], negative=[IDS[5]], strategy="sum_scores"),
    "groups": lambda c: groups(c, "tag"),
    "groups of one": lambda c: groups(c, "video", group_size=1, limit=3),
    "groups under a filter": lambda c: groups(c, "video", group_size=2, query_filter=CITY, with_payload=["year"], with_vectors=True),
    "groups of numbers": lambda c: groups(c, "year", group_size=4),
    "groups that overlap": lambda c: groups(c, "labels", group_size=5, limit=6),
    "groups of a nested field": lambda c: groups(c, "crosslens.locations[].source", limit=30),
    "groups above a score": lambda c: groups(c, "year", score_threshold=0.3),
    "groups like an item": lambda c: groups(c, "year", query=IDS[3]),
    "groups of what cannot be grouped": lambda c: (groups(c, "flag"), groups(c, "score"), groups(c, "gone")),
    "groups without a query": lambda c: sorted(group.id for group in groups(c, "tag", query=None).groups),
    "facet": lambda c: c.facet(NAME, "tag", exact=True),
    "facet of numbers": lambda c: c.facet(NAME, "year", exact=True, limit=4),
    "facet of booleans": lambda c: c.facet(NAME, "flag", exact=True),
    "facet of lists under a filter": lambda c: c.facet(NAME, "labels", exact=True, facet_filter=CITY),
    "facet of a nested field": lambda c: c.facet(NAME, "crosslens.locations[].source", exact=True, limit=5),
    "in order": lambda c: ordered(c, key="year"),
    "in falling order": lambda c: ordered(c, key="score", direction="desc"),
    "in order of time": lambda c: ordered(c, key="seen", start_from="2024-01-05T00:00:00Z"),
    "the first in order": lambda c: (ordered(c, 7, key="year", start_from=2004), ordered(c, 7, key="seen", direction="desc")),
    "in order of a list": lambda c: ordered(c, key="numbers"),
    "true": lambda c: scroll(c, scroll_filter=FILTER(must=[FIELD(key="flag", match=models.MatchValue(value=True))])),
    "not true": lambda c: scroll(c, scroll_filter=FILTER(must_not=[FIELD(key="flag", match=models.MatchValue(value=True))])),
    "a number is no boolean": lambda c: c.count(NAME, count_filter=FILTER(should=[FIELD(key="flag", match=models.MatchValue(value=n)) for n in (0, 1)])),
    "in a polygon": lambda c: scroll(c, scroll_filter=FILTER(must=[FIELD(key="place", geo_polygon=models.GeoPolygon(exterior=models.GeoLineString(points=[models.GeoPoint(lon=x, lat=y) for x, y in ((1, 39), (4, 39), (2.5, 43), (1, 39))])))])),
    "by nested source": lambda c: scroll(c, scroll_filter=FILTER(must=[FIELD(key="crosslens.locations[].source", match=models.MatchAny(any=["/a/3", "/b/4"]))])),
    "by date": lambda c: scroll(c, scroll_filter=FILTER(must=[FIELD(key="seen", range=models.DatetimeRange(gte="2024-01-05T00:00:00Z", lt="2024-01-09T00:00:00Z"))])),
    "any of two": lambda c: scroll(c, scroll_filter=FILTER(min_should=models.MinShould(min_count=2, conditions=[FIELD(key="year", match=models.MatchValue(value=2003)), FIELD(key="year", match=models.MatchAny(any=[2001, 2003])), FIELD(key="tag", match=models.MatchExcept(**{"except": ["city"]}))]))),
    "nested": lambda c: scroll(c, scroll_filter=FILTER(must=[models.NestedCondition(nested=models.Nested(key="crosslens.locations", filter=FILTER(must=[FIELD(key="source", match=models.MatchValue(value="/b/2"))])))])),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_the_same_call_has_the_same_answer(ours: QdrantClient, reference: QdrantClient, call: Any) -> None:
    assert plain(call(ours)) == plain(call(reference))


conditions = st.one_of(
    st.builds(lambda v: FIELD(key="tag", match=models.MatchValue(value=v)), st.sampled_from(TAGS)),
    st.builds(lambda v: FIELD(key="tag", match=models.MatchAny(any=v)), st.lists(st.sampled_from(TAGS), min_size=1)),
    st.builds(lambda v: FIELD(key="year", match=models.MatchValue(value=v)), st.integers(1999, 2010)),
    st.builds(
        lambda a, b: FIELD(key="year", range=models.Range(gte=a, lt=b)),
        st.integers(1999, 2011),
        st.integers(1999, 2011),
    ),
    st.builds(lambda v: FIELD(key="flag", match=models.MatchValue(value=v)), st.booleans()),
    st.builds(lambda a: FIELD(key="score", range=models.Range(gt=a)), st.floats(-1, 9)),
    st.builds(
        lambda k: models.IsEmptyCondition(is_empty=models.PayloadField(key=k)),
        st.sampled_from(["tag", "nothing", "gone"]),
    ),
    st.builds(
        lambda k: models.IsNullCondition(is_null=models.PayloadField(key=k)), st.sampled_from(["tag", "nothing"])
    ),
    st.builds(lambda ids: models.HasIdCondition(has_id=ids), st.lists(st.sampled_from(IDS), min_size=1, max_size=9)),
)
some = st.none() | st.lists(conditions, min_size=1, max_size=3)
filters = st.recursive(
    st.builds(FILTER, must=some, should=some, must_not=some),
    lambda inner: st.builds(FILTER, must=st.lists(inner, min_size=1, max_size=2), must_not=some),
    max_leaves=3,
)


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(among=filters)
def test_any_filter_lets_the_same_items_through(
    ours: QdrantClient, reference: QdrantClient, among: models.Filter
) -> None:
    assert plain(scroll(ours, scroll_filter=among)) == plain(scroll(reference, scroll_filter=among))


def test_writes_have_the_same_effect(ours: QdrantClient, reference: QdrantClient) -> None:
    answers = []
    for client in (ours, reference):
        client.set_payload(NAME, {"year": 1, "new": [1, 2]}, points=IDS[:2])
        client.set_payload(
            NAME, {"seen_in": "forest"}, points=FILTER(must=[FIELD(key="tag", match=models.MatchValue(value="forest"))])
        )
        client.overwrite_payload(
            NAME, {"year": 3}, points=FILTER(must=[FIELD(key="year", match=models.MatchValue(value=2008))])
        )
        client.overwrite_payload(NAME, {"only": True}, points=IDS[2:3])
        client.delete_payload(NAME, ["flag"], points=IDS[3:5])
        client.clear_payload(NAME, points_selector=IDS[5:6])
        client.delete(NAME, models.PointIdsList(points=IDS[6:8]))
        client.delete(
            NAME, models.FilterSelector(filter=FILTER(must=[FIELD(key="year", match=models.MatchValue(value=2009))]))
        )
        client.upsert(NAME, [models.PointStruct(id=IDS[8], vector=[1.0] * SIZE, payload={"again": 1})])
        answers.append(plain(scroll(client, with_vectors=True)))
    assert answers[0] == answers[1]


def test_aliases_are_the_same(ours: QdrantClient, reference: QdrantClient) -> None:
    """Made, followed, repointed, renamed and removed; and what cannot be done changes nothing."""
    answers = []
    for client in (ours, reference):
        client.delete_collection("second")
        client.create_collection("second", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
        seen: list[Any] = []

        def change(*operations: Any, client: QdrantClient = client, seen: list[Any] = seen) -> None:
            try:
                client.update_collection_aliases(list(operations))
            except (UnexpectedResponse, ValueError):
                seen.append("refused")
            seen.append(plain(client.get_aliases()))

        change(CREATE(create_alias=models.CreateAlias(collection_name=NAME, alias_name="now")))
        seen.append((plain(client.retrieve("now", IDS[:1])), client.collection_exists("now")))
        to_second = CREATE(create_alias=models.CreateAlias(collection_name="second", alias_name="now"))
        change(DELETE(delete_alias=models.DeleteAlias(alias_name="now")), to_second)
        seen.append(client.count("now").count)
        change(RENAME(rename_alias=models.RenameAlias(old_alias_name="now", new_alias_name="then")))
        change(RENAME(rename_alias=models.RenameAlias(old_alias_name="now", new_alias_name="x")))
        change(CREATE(create_alias=models.CreateAlias(collection_name=NAME, alias_name="second")))
        change(CREATE(create_alias=models.CreateAlias(collection_name="then", alias_name="x")))
        change(DELETE(delete_alias=models.DeleteAlias(alias_name="nowhere")))
        seen.append(plain(client.get_collection_aliases("second")))
        client.delete_collection("second")
        seen.append(plain(client.get_aliases()))
        answers.append(seen)
    assert answers[0] == answers[1]
    assert answers[0].count("refused") == 3


def test_metadata_is_merged_as_a_server_does(ours: QdrantClient, reference: QdrantClient) -> None:
    """PATCH /collections/NAME: members that are named are set, those that are null go; all else stays as it was."""
    name = "patched"
    answers = []
    for client in (ours, reference):
        client.delete_collection(name)
        vectors = models.VectorParams(size=4, distance=models.Distance.COSINE)
        client.create_collection(name, vectors_config=vectors, metadata={"model": "m", "kept": {"a": 1}, "gone": 1})
        client.upsert(name, [models.PointStruct(id=IDS[0], vector=[1, 0, 0, 0], payload={"tag": "x"})])
        seen: list[Any] = []
        for change in (
            {"model": "n", "new": ["b", None, {"c": None}]},
            {"kept": {"d": 2}},
            {"gone": None, "never": None},
            {},
            {"unicode é": "ü", "deep": {"x": {"y": []}}},
        ):
            seen.append(client.update_collection(name, metadata=change))
            seen.append(client.get_collection(name).config.metadata)
        seen.append(plain(client.retrieve(name, IDS[:1])))
        client.delete_collection(name)
        try:
            client.update_collection(name, metadata={"x": 1})
        except (UnexpectedResponse, ValueError):
            seen.append("refused")
        answers.append(seen)
    assert answers[0] == answers[1]
    assert answers[0][-1] == "refused"
    assert answers[0][-3]["kept"] == {"d": 2}, "a member is set as a whole"


def test_metadata_is_changed_beside_indexes_and_by_an_alias(ours: QdrantClient) -> None:
    before = ours.get_collection(NAME)
    ours.update_collection_aliases([CREATE(create_alias=models.CreateAlias(collection_name=NAME, alias_name="also"))])
    try:
        assert ours.update_collection("also", metadata={"by": "alias"})
        after = ours.get_collection(NAME)
        assert after.config.metadata == {**(before.config.metadata or {}), "by": "alias"}
        assert (after.points_count, after.payload_schema) == (before.points_count, before.payload_schema)
    finally:
        ours.update_collection(NAME, metadata={"by": None})
        ours.update_collection_aliases([DELETE(delete_alias=models.DeleteAlias(alias_name="also"))])
    assert ours.get_collection(NAME).config.metadata == before.config.metadata


def test_what_is_wrong_is_refused_by_status(ours: QdrantClient) -> None:
    with pytest.raises(UnexpectedResponse) as missing:
        ours.count("nope")
    assert missing.value.status_code == 404
    for vector in ([1.0] * (SIZE + 1), [float("inf")] * SIZE, [0.0] * SIZE):
        with pytest.raises((UnexpectedResponse, ValueError)):
            ours.upsert(NAME, [models.PointStruct(id=1, vector=vector)])


def test_who_has_no_secret_is_refused(attached: Attached) -> None:
    stranger = QdrantClient(url=attached.url, check_compatibility=False)
    with pytest.raises(UnexpectedResponse) as refused:
        stranger.get_collections()
    assert refused.value.status_code == 401


def test_what_is_not_supported_is_said_never_ignored(ours: QdrantClient) -> None:
    if os.environ.get("CROSSLENS_TEST_QDRANT_URL"):
        pytest.skip("a real server supports more")
    with pytest.raises(UnexpectedResponse, match="not supported"):
        ours.create_collection(
            "other", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT), shard_number=3
        )
    with pytest.raises(UnexpectedResponse, match="not supported"):
        ours.query_points(
            NAME, query=models.FusionQuery(fusion=models.Fusion.RRF), prefetch=[models.Prefetch(query=[1.0] * SIZE)]
        )
