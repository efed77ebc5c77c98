"""`crosslens eval`: how well a collection answers pairs of the user's own, and probabilities fitted on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import EXIT_FAILURES, common_options, print_json
from indexer.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from indexer.evaluation.fit import Fitted
    from indexer.evaluation.gain import Gain
    from indexer.evaluation.measure import Measured, Reorder
    from indexer.evaluation.pairs import Pair, Target
    from indexer.items import Modality
    from indexer.models.encoder import Encoder
    from indexer.store import Collection, Hit, Store
    from search_api.reranking import Reranking

_WORST = 10
_NEGATIVES = 512
"""Other items that each query is compared with, at most; ids are hashes, so the first ones are a random choice."""
_COMPARISONS = 2_000_000
"""Of all queries together."""
_RERANKED = 50
"""Of each text query's answers, the best."""


@click.command(name="eval")
@click.argument("pairs_file", metavar="PAIRS.jsonl", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--fit", is_flag=True, help="Fit the probabilities that searches answer on these pairs, and keep them.")
@click.option(
    "--rerank", is_flag=True, help=f"Measure once more with the best {_RERANKED} reranked, as long as it takes."
)
@common_options()
def evaluate(pairs_file: Path, fit: bool, rerank: bool, settings: Settings, as_json: bool) -> None:
    """Measure how well the collection answers the queries of PAIRS.jsonl.

    Each line is a query and what it should find, by source or id:

    \b
    {"query": "a dog on a beach", "relevant": ["photos/dog.jpg"]}
    {"query": {"image": "query.jpg"}, "relevant": ["3f0b6c1e-..."]}

    Recall and mean reciprocal rank are given for each direction, with the bounds within which 95 of 100 such sets of
    queries would lie. Reranking is recommended where the first answer is right more often with it, and the bounds of
    that difference are above zero.
    """
    from indexer.evaluation.pairs import find_targets, read_pairs  # noqa: PLC0415  heavy
    from indexer.models.encoder import load_encoder_of  # noqa: PLC0415
    from indexer.store import open_store  # noqa: PLC0415

    pairs = read_pairs(pairs_file)
    with open_store(settings) as store:
        collection = store.get(settings.collection)
        encoder = load_encoder_of(settings, collection.model, collection.fingerprint)
        targets, missing = find_targets(pairs, collection, beside=pairs_file.absolute().parent)
        asked = [number for number, wanted in enumerate(targets) if wanted]
        chosen, wanted = [pairs[number] for number in asked], [targets[number] for number in asked]
        vectors, own = _embedded(chosen, encoder, settings, beside=pairs_file.absolute().parent)
        measured = _measured(chosen, vectors, wanted, own, collection)
        gained = _gained(chosen, vectors, wanted, own, collection, measured, settings) if rerank else None
        fitted = _fitted(measured, vectors, wanted, collection, encoder) if fit else {}
        if fitted:
            _keep(store, collection, fitted, pairs_file.name)
    if as_json:
        document = _document(collection, pairs, chosen, measured, missing, fitted)
        print_json(document if gained is None else {**document, "reranking": _reranking(gained)})
    else:
        from search_api.cli.eval_table import print_evaluation  # noqa: PLC0415  rich

        print_evaluation(collection.name, pairs, chosen, measured, missing, fitted, worst=_WORST, gained=gained or ())
    if missing or not measured:
        click.get_current_context().exit(EXIT_FAILURES)


def _embedded(
    pairs: Sequence[Pair], encoder: Encoder, settings: Settings, *, beside: Path
) -> tuple[NDArray[np.float32], list[str | None]]:
    """The queries' vectors, float32 (n, D), and the SHA-256 of those that are pictures."""
    import numpy as np  # noqa: PLC0415

    from indexer.evaluation.pairs import ImageQuery  # noqa: PLC0415
    from indexer.flow import batched  # noqa: PLC0415
    from indexer.items import sha256_hex  # noqa: PLC0415
    from indexer.media.decode import decode, read_file  # noqa: PLC0415
    from indexer.models.encoder import MAX_BATCH  # noqa: PLC0415
    from indexer.models.preprocess import decode_target  # noqa: PLC0415

    vectors = np.empty((len(pairs), encoder.dimension), np.float32)
    own: list[str | None] = [None] * len(pairs)
    texts = [number for number, pair in enumerate(pairs) if isinstance(pair.query, str)]
    if texts:
        vectors[texts] = encoder.encode_texts([str(pairs[number].query) for number in texts]).vectors
    images = [(number, pair.query) for number, pair in enumerate(pairs) if isinstance(pair.query, ImageQuery)]
    for some in batched(images, MAX_BATCH):
        decoded = []
        for number, query in some:
            path = beside / query.image
            content = read_file(path if path.exists() else Path(query.image), max_bytes=settings.max_bytes)
            own[number] = sha256_hex(content)
            decoded.append(decode(content, target=decode_target(encoder.pixels), max_pixels=settings.max_pixels))
        vectors[[number for number, _ in some]] = encoder.encode_images(decoded)
    return vectors, own


def _measured(
    pairs: Sequence[Pair],
    vectors: NDArray[np.float32],
    targets: Sequence[Sequence[Target]],
    own: Sequence[str | None],
    collection: Collection,
    reorder: Reorder | None = None,
) -> list[Measured]:
    from indexer.evaluation.measure import measure  # noqa: PLC0415
    from indexer.items import Kind  # noqa: PLC0415
    from search_api.filters import no_texts, of_kind  # noqa: PLC0415

    among = {"image": no_texts(), "text": of_kind(Kind.TEXT)}
    return measure(pairs, vectors, targets, collection, among=among, own=own, reorder=reorder)  # type: ignore[arg-type]


def _gained(
    pairs: Sequence[Pair],
    vectors: NDArray[np.float32],
    targets: Sequence[Sequence[Target]],
    own: Sequence[str | None],
    collection: Collection,
    before: Sequence[Measured],
    settings: Settings,
) -> list[Gain]:
    """What reranking adds where texts look for what a reranker is installed for."""
    from contextlib import closing  # noqa: PLC0415

    from indexer.errors import InvalidRequest  # noqa: PLC0415
    from indexer.evaluation.gain import gains  # noqa: PLC0415
    from indexer.media.originals import Originals  # noqa: PLC0415
    from indexer.rerank.rerankers import Rerankers  # noqa: PLC0415
    from search_api.reranking import Reranking  # noqa: PLC0415

    texts = [isinstance(pair.query, str) for pair in pairs]
    looked_for = {target.modality for some, is_text in zip(targets, texts, strict=True) if is_text for target in some}
    if not looked_for:
        raise InvalidRequest("--rerank: no pair's query is a text, which reranking compares with.")
    with closing(Rerankers(settings, lambda: Originals.of(settings), threads=None)) as rerankers:
        reranking = Reranking(rerankers)
        installed = reranking.installed(sorted(looked_for))
        reranked = [
            [target for target in some if is_text and target.modality in installed]
            for some, is_text in zip(targets, texts, strict=True)
        ]
        after = _measured(pairs, vectors, reranked, own, collection, _reorder(reranking))
    return gains(before, after)


def _reorder(reranking: Reranking) -> Reorder:
    from indexer.rerank.comparing import Text  # noqa: PLC0415

    def reorder(pair: Pair, toward: Modality, hits: list[Hit]) -> list[Hit]:
        best = hits[:_RERANKED]
        order = reranking.compare(toward, [Text(str(pair.query), 1.0)], best).order
        return [best[place] for place in order] + hits[_RERANKED:]

    return reorder


def _reranking(gained: Sequence[Gain]) -> dict[str, Any]:
    return {"top": _RERANKED, "directions": {each.direction: each.as_dict() for each in gained}}


def _fitted(
    measured: Sequence[Measured],
    vectors: NDArray[np.float32],
    targets: Sequence[Sequence[Target]],
    collection: Collection,
    encoder: Encoder,
) -> dict[str, Fitted]:
    """Every direction's logistic; all or none, so that nothing is kept by halves."""
    import numpy as np  # noqa: PLC0415

    from indexer.evaluation.fit import fit, scored_of  # noqa: PLC0415
    from indexer.items import Kind  # noqa: PLC0415
    from search_api.filters import no_texts, of_kind  # noqa: PLC0415

    found = {}
    for each in measured:
        toward = each.direction.rpartition("_to_")[2]
        numbers = [ranked.pair for ranked in each.queries]
        count = max(20, min(_NEGATIVES, _COMPARISONS // len(numbers)))
        among = of_kind(Kind.TEXT) if toward == "text" else no_texts()
        others, _ = collection.scroll(count, filter=among, with_vectors=True)
        wanted = [[target for target in targets[number] if target.modality == toward] for number in numbers]
        there = collection.vectors(list({target.id for some in wanted for target in some}))
        files = [{target.file for target in some} for some in wanted]
        stacked = np.stack([item.vector for item in others if item.vector is not None])
        file_of = [item.record.parent or item.id for item in others if item.vector is not None]
        scored = scored_of(
            vectors[numbers],
            [np.stack([there[target.id] for target in some]) for some in wanted],
            [stacked[[file not in right for file in file_of]] for right in files],
        )
        before = encoder.manifest.calibration.get(each.direction)  # type: ignore[call-overload]
        found[each.direction] = fit(scored, each.direction, before)
    return found


def _keep(store: Store, collection: Collection, fitted: dict[str, Fitted], name: str) -> None:
    from indexer.items import now  # noqa: PLC0415

    there = dict(collection.metadata.get("calibration") or {})
    for direction, each in fitted.items():
        words = f"{each.pairs} pairs of {name}, {now():%Y-%m-%d}, at a base rate of one match in 100 items"
        there[direction] = {"scale": each.scale, "bias": each.bias, "fitted_on": words}
    store.annotate(collection.name, "calibration", there)


def _document(
    collection: Collection,
    pairs: Sequence[Pair],
    chosen: Sequence[Pair],
    measured: Sequence[Measured],
    missing: Sequence[tuple[int, str]],
    fitted: dict[str, Fitted],
) -> dict[str, Any]:
    return {
        "collection": collection.name,
        "model": collection.model,
        "fingerprint": collection.fingerprint,
        "pairs": len(pairs),
        "unmatched": [{"query": pairs[number].words, "relevant": name} for number, name in missing],
        "directions": {
            each.direction: {
                **each.as_dict(),
                "worst": [
                    {
                        "query": chosen[ranked.pair].words,
                        "rank": ranked.rank,
                        "instead": [
                            {"id": hit.id, "source": hit.record.locations[0].source, "score": round(hit.score, 6)}
                            for hit in ranked.instead
                        ],
                    }
                    for ranked in each.worst(_WORST)
                    if ranked.rank != 1
                ],
            }
            for each in measured
        },
        "fitted": {direction: each.as_dict() for direction, each in fitted.items()},
    }
