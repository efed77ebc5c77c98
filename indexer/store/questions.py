"""What is asked of a collection: searches, facets, counts, orders and scans, through qdrant-client alone.

A filter, a facet or an order over a payload field needs that field declared (`Store.declare`): the embedded
index then answers from an index, and a server in strict mode answers at all.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from qdrant_client import QdrantClient, models

from indexer.errors import InvalidRequest
from indexer.items import RECORD_KEY
from indexer.store.connection import Connection
from indexer.store.fields import ACTION_KEY, WITHHELD_KEY
from indexer.store.lean import LeanClient
from indexer.store.ordering import Order, Placed
from indexer.store.points import Hit, Place, Stored, Vector, hit_of, stored_of, vector_of

SEARCH = models.SearchParams(hnsw_ef=384, quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0))
"""What the embedded index does unasked and a server on request: find twice as many by their quantized vectors, score
those again with the originals, keep the best. `bench/recall.py` measures what it misses."""
EXACT = models.SearchParams(exact=True)
_QUERIES_AT_ONCE = 100
_IDS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Query:
    """One search of several."""

    vector: Vector
    limit: int
    filter: models.Filter | None = None
    exclude_ids: Sequence[str] = ()
    offset: int = 0
    """How many of the best to pass over."""
    least_score: float | None = None
    exact: bool = False
    """Compare with every vector that passes the filter, instead of going through the graph."""
    with_vectors: bool = False

    def request(self, within: models.Filter | None = None) -> models.QueryRequest:
        """The query as qdrant-client takes it; not validated, as that takes longer than the search of 1,000 items."""
        return models.QueryRequest.model_construct(
            query=self.vector.tolist(),
            filter=_without(self.exclude_ids, both(within, self.filter)),
            limit=self.limit,
            offset=self.offset or None,
            score_threshold=self.least_score,
            params=EXACT if self.exact else SEARCH,
            with_payload=True,
            with_vector=self.with_vectors,
        )


class Questions:
    """The questions that a collection answers. Thread-safe.

    All raise `InvalidRequest` where the index refuses one: a filter that is not well formed, a field that is not
    declared, too much at a time.
    """

    def __init__(self, connection: Connection, physical: str, indexes: Mapping[str, models.PayloadIndexInfo]) -> None:
        self._connection = connection
        self.physical = physical
        """The index's own name of it, never an alias: what is asked and written goes there, whatever is switched."""
        self.types = _types(indexes)
        """The types of all fields that have a payload index, as they were when this object was made."""
        self.within: models.Filter | None = None
        """What there is, for whoever asks through this object: what does not pass it is not there."""

    def only(self, within: models.Filter | None) -> Self:
        """The same, as if only those items were there that pass a filter."""
        narrowed = copy.copy(self)
        narrowed.within = both(self.within, within)
        return narrowed

    @property
    def fields(self) -> dict[str, str]:
        """The declared fields of the callers' payload and their types."""
        return {field: kind for field, kind in self.types.items() if not field.startswith(f"{RECORD_KEY}.")}

    def showing(self, actions: Sequence[str]) -> Self:
        """The same, as if only those items were there whose verdict is one of these, and no part of a withheld file."""
        verdict = models.FieldCondition(key=ACTION_KEY, match=models.MatchAny(any=list(actions)))
        withheld = models.FieldCondition(key=WITHHELD_KEY, match=models.MatchValue(value=True))
        return self.only(models.Filter(must=[verdict], must_not=[withheld]))

    def count(self, filter: models.Filter | None = None) -> int:
        """How many items it holds, or how many of them pass a filter."""
        among = both(self.within, filter)
        return self._connection.call(lambda client: client.count(self.physical, among, exact=True)).count

    def search(
        self,
        vector: Vector,
        limit: int,
        *,
        filter: models.Filter | None = None,
        exclude_ids: Sequence[str] = (),
        exact: bool = False,
        with_vectors: bool = False,
    ) -> list[Hit]:
        """The items nearest to a vector, best first."""
        query = Query(vector, limit, filter, exclude_ids, exact=exact, with_vectors=with_vectors)
        return self.search_many([query])[0]

    def search_many(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """The hits of each query, in one round trip for every hundred of them."""
        found: list[list[Hit]] = []
        for at in range(0, len(queries), _QUERIES_AT_ONCE):
            requests = [query.request(self.within) for query in queries[at : at + _QUERIES_AT_ONCE]]
            answers = self._connection.call(
                lambda client, requests=requests: client.query_batch_points(self.physical, requests)  # type: ignore[misc]
            )
            found += [[hit_of(point) for point in answer.points] for answer in answers]
        return found

    def facet(
        self, field: str, *, filter: models.Filter | None = None, limit: int = 100
    ) -> dict[str | int | bool, int]:
        """The values of a keyword, integer or bool field and how many items have each, exactly; most frequent first."""
        answer = self._connection.call(
            lambda client: client.facet(
                self.physical, field, facet_filter=both(self.within, filter), limit=limit, exact=True
            )
        )
        return {hit.value: hit.count for hit in answer.hits}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those items that are there, by id: float32 (dimension,), L2-normalised."""
        found: dict[str, Vector] = {}
        if self.within is not None:
            ids = [str(record.id) for record in self._retrieve(ids, with_payload=False, with_vectors=False)]
        for at in range(0, len(ids), _IDS_AT_ONCE):
            some = list(ids[at : at + _IDS_AT_ONCE])
            found |= self._connection.call(lambda client, some=some: _vectors(client, self.physical, some))  # type: ignore[misc]
        return found

    def _retrieve(self, ids: Sequence[str], *, with_payload: bool, with_vectors: bool) -> list[models.Record]:
        """The points of these ids that are there."""
        if not ids:
            return []
        if self.within is None:
            return self._connection.call(
                lambda client: client.retrieve(
                    self.physical, list(ids), with_payload=with_payload, with_vectors=with_vectors
                )
            )
        these = models.Filter(must=[self.within, models.HasIdCondition(has_id=list(ids))])
        records, _ = self._connection.call(
            lambda client: client.scroll(
                self.physical, these, limit=len(ids), with_payload=with_payload, with_vectors=with_vectors
            )
        )
        return records

    def scan(
        self, filter: models.Filter | None = None, *, batch: int = 256, with_vectors: bool = False
    ) -> Iterator[Stored]:
        """All items, or those that pass a filter, in the order of their ids; `batch` of them in memory at a time.

        Items that are written while it runs may come or not; the others come once.
        """
        for records in self._pages(filter, batch, with_payload=True, with_vectors=with_vectors):
            yield from map(stored_of, records)

    def scroll(
        self,
        limit: int,
        *,
        filter: models.Filter | None = None,
        after: str | None = None,
        with_vectors: bool = False,
    ) -> tuple[list[Stored], str | None]:
        """A page of items in the order of their ids, and where the next one begins; None when nothing can follow."""
        records, offset = self._connection.call(
            lambda client: client.scroll(
                self.physical,
                both(self.within, filter),
                limit=limit,
                offset=after,
                with_payload=True,
                with_vectors=with_vectors,
            )
        )
        return [stored_of(record) for record in records], None if offset is None else str(offset)

    def ids(self, batch: int) -> Iterator[list[str]]:
        """The ids of all items in their order, in lists of `batch`; cheap, as neither vectors nor payloads are read."""
        for records in self._pages(None, batch, with_payload=False, with_vectors=False):
            if records:
                yield [str(record.id) for record in records]

    def _pages(
        self, filter: models.Filter | None, batch: int, *, with_payload: bool, with_vectors: bool
    ) -> Iterator[list[models.Record]]:
        offset: models.ExtendedPointId | None = None
        while True:
            records, offset = self._connection.call(
                lambda client, offset=offset: client.scroll(  # type: ignore[misc]
                    self.physical,
                    scroll_filter=both(self.within, filter),
                    limit=batch,
                    offset=offset,
                    with_payload=with_payload,
                    with_vectors=with_vectors,
                )
            )
            yield records
            if offset is None:
                return

    def scroll_ordered(
        self,
        order_by: str,
        limit: int,
        *,
        descending: bool = False,
        filter: models.Filter | None = None,
        after: Place | None = None,
    ) -> tuple[list[Stored], Place | None]:
        """A page of items in the order of a declared integer, float or datetime field, and where it ends.

        Those of the same value are in the order of their ids, so the next page, `after` the place where this one
        ended, neither repeats an item nor passes one over. The place is None when nothing can follow. Items without
        a value do not come; one with several comes for each.

        Raises:
            InvalidRequest: the field is not declared, or has no order.
        """
        order = Order(order_by, self._type_of(order_by), descending)
        filter = both(self.within, filter)
        # The index leaves open which of those with the same value come first; so what is left of the value where the
        # last page ended, and the value where this one ends, are asked for by id.
        found = self._ties(order, filter, limit, after) if after is not None else []
        if (wanted := limit - len(found)) > 0:
            records, _ = self._connection.call(
                lambda client: client.scroll(self.physical, filter, limit=wanted, order_by=order.after(after))
            )
            further = order.sorted((_value(record), stored_of(record)) for record in records)
            if len(further) == wanted:
                last = further[-1][0]
                found += [each for each in further if each[0] != last]
                further = self._ties(order, filter, limit - len(found), Place(last, ""))
            found += further
        items = [item for _, item in found]
        return items, Place(found[-1][0], items[-1].id) if len(found) == limit else None

    def _ties(self, order: Order, filter: models.Filter | None, limit: int, after: Place) -> list[Placed]:
        """Those with the value of a place whose ids come after its id."""
        records, _ = self._connection.call(
            lambda client: client.scroll(
                self.physical,
                models.Filter(must=[order.equal(after.value), *([filter] if filter else [])]),
                limit=limit + 1,  # as an offset is itself part of the answer
                offset=after.id or None,
            )
        )
        items = [stored_of(record) for record in records]
        return [(after.value, item) for item in items if item.id != after.id][:limit]

    def _type_of(self, field: str) -> str:
        if field not in self.types:  # it may have been declared since
            self.types = _types(
                self._connection.call(lambda client: client.get_collection(self.physical)).payload_schema
            )
        if field not in self.types:
            raise InvalidRequest(f"The field {field!r} is not declared.", remedy="Declare it, then ask again.")
        return self.types[field]


def _types(indexes: Mapping[str, models.PayloadIndexInfo]) -> dict[str, str]:
    return {field: str(schema.data_type.value) for field, schema in indexes.items()}


def _value(record: models.Record) -> float:
    if record.order_value is None:
        raise TypeError("the index gave a point without the value that it is in order of")
    return record.order_value


def both(one: models.Filter | None, other: models.Filter | None) -> models.Filter | None:
    """A filter that lets through what passes both; None lets everything through."""
    return models.Filter(must=[one, other]) if one is not None and other is not None else one or other


def _vectors(client: QdrantClient, physical: str, ids: list[str]) -> dict[str, Vector]:
    if isinstance(client, LeanClient):
        rows = client.vectors(physical, ids)
        return {item_id: row for item_id, row in zip(ids, rows, strict=True) if not np.isnan(row[0])}
    records = client.retrieve(physical, ids, with_payload=False, with_vectors=True)
    found = {str(record.id): vector_of(record) for record in records}
    return {item_id: vector for item_id, vector in found.items() if vector is not None}


def _without(ids: Sequence[str], filter: models.Filter | None) -> models.Filter | None:
    """A filter that lets none of the ids through."""
    return models.Filter(must=filter, must_not=[models.HasIdCondition(has_id=list(ids))]) if ids else filter
