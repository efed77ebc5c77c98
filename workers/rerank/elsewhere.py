"""The rerankers that an API process has where reranking is the workers': the same questions, asked over the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from indexer.errors import EncoderFailed, NoReranker, RerankerAway
from indexer.items import Modality
from indexer.rerank.comparing import Compared, Elsewhere, Match, Text
from indexer.settings import Settings
from indexer.store.points import Stored
from workers.rerank.line import Asked, Line
from workers.rerank.messages import MODALITIES, Answer, is_cut

_ALIVE_SECONDS = 1.0
"""How often a search that waits looks whether anybody is still there."""
_NAMES_SECONDS = 1.0
"""How long the names of models are waited for, of a queue that was not asked before."""
_USUAL: Mapping[Modality, tuple[str, str]] = {"image": ("pictures", "blip2-itm"), "text": ("texts", "cross-encoder")}


class WorkerRerankers:
    """As `indexer.rerank.rerankers.Rerankers`, of which it opens none. Thread-safe; close it after use."""

    def __init__(
        self, settings: Settings, *, line: Line | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._line = line or Line(settings)
        self._clock = clock

    def of(self, modality: Modality) -> Elsewhere:
        """What compares items of a modality.

        Raises:
            NoReranker: workers are there, and none has a model for that.
        """
        try:
            there = self._line.workers()
        except RerankerAway:
            return _Queued(self._line, modality, self._clock)  # what it is asked will say so
        if all(worker.model(modality) is None for worker in there):
            what, usual = _USUAL[modality]
            raise NoReranker(
                f"No worker has a model that reranks {what}.",
                remedy=f"Run `crosslens models export {usual}` where the workers run.",
            )
        return _Queued(self._line, modality, self._clock)

    def names(self) -> Mapping[str, str | None]:
        """Which models rerank pictures and texts; None where no worker says that it has one."""
        try:
            there = self._line.workers(_NAMES_SECONDS)
        except RerankerAway:
            return dict.fromkeys(MODALITIES)
        models = {each: [worker.model(each) for worker in there] for each in MODALITIES}
        return {each: next((model.name for model in some if model is not None), None) for each, some in models.items()}

    def is_open(self, modality: Modality, seconds: float | None) -> bool:
        """Whether a worker can score at once; that one is opened is not waited for.

        Raises:
            RerankerAway: no worker is there, or it is not known.
            NoReranker, EncoderFailed: none has a model for that, or one that opens.
        """
        there = self._line.workers(_NAMES_SECONDS if seconds is None else seconds)
        states = {model.state for worker in there if (model := worker.model(modality)) is not None}
        if not states:
            self.of(modality)
        if states == {"failed"}:
            raise EncoderFailed("The model of the workers that rerank does not open.")
        return "open" in states

    def check(self) -> None:
        """Ask for a sign of life.

        Raises:
            RerankerAway: no worker that can score is there.
        """
        there = self._line.workers(_NAMES_SECONDS)
        models = [worker.model(each) for worker in there for each in MODALITIES]
        if not any(model is not None and model.state == "open" for model in models):
            raise RerankerAway("No worker that reranks has a model open.")

    def close(self) -> None:
        """Let go of the queue."""
        self._line.close()


class _Queued(Elsewhere):
    """Compares lists by way of the queue."""

    def __init__(self, line: Line, modality: Modality, clock: Callable[[], float]) -> None:
        self._line = line
        self._modality: Modality = modality
        self._clock = clock

    def compare_list(self, texts: Sequence[Text], items: Sequence[Stored], seconds: float) -> Compared:
        """As `Elsewhere.compare_list`; what came before the time was up, or before the worker failed, counts."""
        ends = self._clock() + seconds
        found: dict[int, Match | None] = {}
        truncated = False
        hindered = ""
        self._line.workers(seconds)  # where nobody is there, nothing is sent
        with self._line.ask(self._modality, texts, items, ends) as asked:
            try:
                while len(found) < asked.count and (answer := self._next(asked, ends)) is not None:
                    if answer.error is not None:
                        raise EncoderFailed(f"A worker that reranks failed: {answer.error}; its log says more.")
                    new = answer.matches()
                    if answer.over or not new or found.keys() & new or max(new) >= asked.count:
                        break  # the last three nobody of ours says
                    found |= new
                    truncated = truncated or answer.truncated
            except (RerankerAway, EncoderFailed) as error:
                if not found:
                    raise
                hindered = error.message
        if len(found) == asked.count < len(items):
            hindered = "More does not fit in a request to the workers."
        cut = any(match is not None and is_cut(items[place].record) for place, match in found.items())
        return Compared(len(items), found, truncated or cut, hindered)

    def _next(self, asked: Asked, ends: float) -> Answer | None:
        """The next answer; None once the time is up.

        Raises:
            RerankerAway: nobody is there any more who could answer.
        """
        while (left := ends - self._clock()) > 0:
            if (answer := asked.next(min(left, _ALIVE_SECONDS))) is not None:
                return answer
            self._line.workers()
        return None
