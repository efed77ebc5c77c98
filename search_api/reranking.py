"""The best results of a search in another order: that of a model which sees the query's text and a result at once.

An embedding has to say everything of a picture before it knows the question; a reranker looks at both together, and
tells "a red circle left of a blue square" from its mirror image. It costs a run a pair, so it works down the list in
batches until its time is up. What takes part is said: the texts that lead toward something are compared with each
result, and their scores averaged by weight; the query's other terms, and results that no model is installed for, stay
what the embedding made of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from indexer.errors import ModelError, NoReranker, RerankerAway
from indexer.items import Kind, Modality
from indexer.rerank.comparing import Compared, Elsewhere, Match, Text
from indexer.rerank.walk import DeviceTurns, Turns, Walk

if TYPE_CHECKING:
    from indexer.rerank.rerankers import Rerankers
    from indexer.store.points import Stored
    from search_api.ranking import Ranking
    from search_api.request import Rerank, SearchRequest
    from workers.rerank.elsewhere import WorkerRerankers

UNHURRIED = 86_400.0
"""Seconds that are as good as no deadline."""
_WORDS: dict[Modality, str] = {"image": "Pictures", "text": "Texts"}
_log = structlog.get_logger("rerank")


class Reranking:
    """Reranks for all searches of a process. Thread-safe.

    A search waits for its turns on the device, which are `DeviceTurns` unless given, until its time is up. `patient`:
    models that are not open are waited for before the clock starts, as a single command does, while a server tells
    whoever asks first to ask again. `clock` is in seconds.
    """

    def __init__(
        self,
        rerankers: Rerankers | WorkerRerankers,
        *,
        patient: bool = False,
        turns: Turns | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rerankers = rerankers
        self._patient = patient
        self._turns = turns
        self._turns_by_device = DeviceTurns()
        self._clock = clock

    def check(self, kind: Kind | None) -> None:
        """See that something can be reranked among items of a kind; None: among all.

        Raises:
            NoReranker: no model for that is installed.
            InvalidBundle, UnknownRecipe: none is that could be used: one is broken, or for a newer version.
        """
        self.installed(["image", "text"] if kind is None else [kind.modality])

    def installed(self, modalities: Sequence[Modality]) -> list[Modality]:
        """Those of the modalities, of which there is one at least, whose items can be reranked; raises as `check`."""
        missing = {modality: self._missing(modality) for modality in modalities}
        if found := [modality for modality, error in missing.items() if error is None]:
            return found
        errors = [error for error in missing.values() if error is not None]
        raise next((error for error in errors if not isinstance(error, NoReranker)), errors[0])

    def rerank(self, ranking: Ranking, asked: Rerank, *, most_ms: float = math.inf) -> None:
        """Put the best of a ranked list in another order, within the deadline asked for and `most_ms`.

        Pictures change places with pictures and texts with texts, since their scores are on different scales. What has
        to be said of it is added to the ranking's warnings.
        """
        texts = texts_of(ranking.request)
        ranking.reranked = 0
        ranking.warnings += _left_out(ranking.request, texts)
        milliseconds = min(float(asked.deadline_ms), max(0.0, most_ms))
        ends = self._clock() + milliseconds / 1000
        places = self._places(ranking, asked.top) if texts else {}
        ready = [modality for modality in places if self._is_ready(modality, ends, ranking)]
        if self._patient:
            ends = self._clock() + milliseconds / 1000
        late = False
        for modality in ready:
            some = places[modality]
            before = [ranking.ranked[place] for place in some]
            try:
                done = self.compare(modality, texts, [each.hit for each in before], ends - self._clock())
            except ModelError as error:
                self._note(error, modality, ranking)
                continue
            for place, chosen in zip(some, done.order, strict=True):
                match = done.found.get(chosen) if ranking.request.explain else None
                ranking.ranked[place] = replace(before[chosen], rerank=_explained(match, some[chosen]))
            ranking.reranked += done.scored
            ranking.warnings += _cautions(modality, done)
            late = late or (len(done.found) < done.count and not done.hindered)
        if late:
            wanted = sum(len(places[modality]) for modality in ready)
            ranking.warnings.append(
                f"Reranked {ranking.reranked} of {wanted} within {milliseconds:.0f} ms: the others keep their order."
            )

    def compare(
        self, modality: Modality, texts: Sequence[Text], items: Sequence[Stored], seconds: float = UNHURRIED
    ) -> Compared:
        """How well items of a modality fit texts, of as many as there is time for.

        Raises:
            NoReranker: no model for them is installed.
            RerankerAway: that is the workers', and none is there.
            ModelError: it does not open, or does not run.
        """
        comparer = self._rerankers.of(modality)
        if isinstance(comparer, Elsewhere):
            return comparer.compare_list(texts, items, seconds)
        found: dict[int, Match | None] = {}
        truncated = False
        turns = self._turns or self._turns_by_device.of(comparer.model)
        for batch in comparer.compare(texts, items, Walk(seconds, turns, self._clock)):
            found |= batch.found
            truncated = truncated or batch.truncated
        return Compared(len(items), found, truncated)

    def _missing(self, modality: Modality) -> ModelError | None:
        """Why nothing of a modality can be reranked; None if it can."""
        try:
            self._rerankers.of(modality)
        except ModelError as error:
            return error
        return None

    def _places(self, ranking: Ranking, top: int) -> dict[Modality, list[int]]:
        """Where the best of the list have what can be compared, by modality; what cannot is said."""
        places: dict[Modality, list[int]] = {"image": [], "text": []}
        for place, each in enumerate(ranking.ranked[:top]):
            places[each.hit.record.kind.modality].append(place)
        for modality, some in list(places.items()):
            missing = self._missing(modality) if some else None
            if isinstance(missing, NoReranker):
                ranking.warnings.append(_kept(modality, f"no model that reranks them is installed. {missing.remedy}"))
            elif missing is not None:
                _log.error("not reranked", modality=modality, code=missing.code, reason=missing.message)
                why = f"the model that reranks them cannot be used ({missing.code}). {missing.remedy}"
                ranking.warnings.append(_kept(modality, why))
            if missing is not None or not some:
                del places[modality]
        return places

    def _is_ready(self, modality: Modality, ends: float, ranking: Ranking) -> bool:
        """Whether a model can score; what hinders it is said."""
        try:
            if self._rerankers.is_open(modality, None if self._patient else max(0.0, ends - self._clock())):
                return True
            ranking.warnings.append(_kept(modality, "the model that reranks them is being opened. Ask again shortly."))
        except ModelError as error:
            self._note(error, modality, ranking)
        return False

    def _note(self, error: ModelError, modality: Modality, ranking: Ranking) -> None:
        if isinstance(error, RerankerAway):  # whose line logs it once, not at every search
            ranking.warnings.append(_kept(modality, _within(error.message)))
            return
        _log.error("not reranked", modality=modality, code=error.code, reason=error.message)
        ranking.warnings.append(_kept(modality, "the model that reranks them does not run; the log says why."))


def texts_of(request: SearchRequest) -> list[Text]:
    """The texts that results are compared with: as they were given, without the encoder's templates."""
    return [Text(term.text, term.weight) for term in request.terms if term.text is not None and term.weight > 0]


def _left_out(request: SearchRequest, texts: Sequence[Text]) -> list[str]:
    if not texts:
        return ["Nothing was reranked: the query has no text that leads toward something, to compare results with."]
    if others := len(request.terms) - len(texts):
        terms = "another term" if others == 1 else f"{others} other terms"
        return [f"Results are reranked by texts that lead toward something; {terms} of the query took no part in it."]
    return []


def _kept(modality: Modality, why: str) -> str:
    return f"{_WORDS[modality]} keep their order: {why}"


def _within(sentence: str) -> str:
    """A sentence as it stands behind a colon."""
    return sentence[:1].lower() + sentence[1:]


def _cautions(modality: Modality, done: Compared) -> list[str]:
    said = []
    if done.gone:
        some = "1 picture" if done.gone == 1 else f"{done.gone} pictures"
        said.append(f"{some} could not be looked at (gone or damaged): behind those reranked.")
    if done.hindered:
        some = f"Reranked {done.scored} of {done.count} {_WORDS[modality].lower()}"
        said.append(f"{some}, and the others keep their order: {_within(done.hindered)}")
    if done.truncated and modality == "image":
        said.append("The query is longer than the reranker reads: its end was cut off.")
    elif done.truncated:
        said.append("Query and text together are longer than the reranker of texts reads: the longer was cut off.")
    return said


def _explained(match: Match | None, place: int) -> dict[str, Any] | None:
    if match is None:
        return None
    return {
        "matching": round(match.matching, 4),
        "contrastive": None if match.contrastive is None else round(match.contrastive, 4),
        "score": round(match.score, 4),
        "place_before": place + 1,
    }
