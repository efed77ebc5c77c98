"""A rerank bundle's graphs: they open when first used, on the first device that gives the golden score."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np
import structlog
from numpy.typing import NDArray

from indexer.errors import ModelError
from indexer.models.devices import Device, Kind, Plan, choose, cpu_count, without_tensorrt
from indexer.models.manifest import Padding, TextRecipe
from indexer.models.rerank.bundle import RerankBundle
from indexer.models.rerank.manifest import MATCH_FILE, VISION_FILE
from indexer.models.rerank.manifest import Graph as GraphName
from indexer.models.sessions import Feed, Graph, Tensors, fill_bucket
from indexer.settings import Settings

CPU_BATCH: Mapping[GraphName, int] = {"vision": 1, "match": 8}
"""Pictures or pairs per run on a CPU: the most that a search may overrun its deadline by. A large vision model takes a
second for a picture, and is no faster with several."""
GPU_BATCH = 32
SHORTEST = 8
"""Tokens that the shortest text is filled up to on a GPU."""
LONGEST_PREPARED = 512
"""Tokens of the longest that a GPU prepares for: few models read more, and many of them might not fit into it."""

_FILES: Mapping[GraphName, str] = {"vision": VISION_FILE, "match": MATCH_FILE}

_log = structlog.get_logger("rerank")


class Graphs:
    """The graphs of one rerank bundle, all on the same devices. Thread-safe.

    A device may compute something else than the makers' did, so another one than the CPU is believed only after
    `prove`, which runs the first golden pair, came through.
    """

    def __init__(
        self,
        bundle: RerankBundle,
        tensors: Mapping[GraphName, Tensors],
        plan: Plan | None,
        prove: Callable[[], object],
    ) -> None:
        self._bundle = bundle
        self._tensors = tensors
        self._plan = plan or Plan(candidates=((Device(Kind.CPU),),), threads=cpu_count())
        self._prove = prove
        self._opening = threading.RLock()  # proving a device runs the graphs on it
        self._devices: tuple[Device, ...] | None = None
        self._settled = False
        self._open: dict[GraphName, Graph] = {}

    @property
    def devices(self) -> dict[str, str]:
        """The device of each graph that is open: `{"vision": "cuda:0", "match": "cuda:0"}`."""
        return {which: ",".join(device.name for device in graph.devices) for which, graph in dict(self._open).items()}

    @property
    def is_gpu(self) -> bool:
        """Whether they run on a GPU; before the first run, whether they probably will."""
        return (self._devices or self._plan.candidates[0])[0].is_gpu

    def batch(self, which: GraphName) -> int:
        """How many go into a run of a graph."""
        return GPU_BATCH if self.is_gpu else CPU_BATCH[which]

    def sizes(self, which: GraphName) -> list[int]:
        """Every size of a batch that a device prepares for: on a GPU powers of two, else any will do.

        The graph is opened, so that it is known what it runs on.
        """
        self._graph(which)
        return [1 << power for power in range(self.batch(which).bit_length())] if self.is_gpu else [1]

    def filled(self, feed: Feed) -> tuple[Feed, int]:
        """A batch as a GPU likes it, of a size that is a power of two, and how many of its rows are its own."""
        return fill_bucket(feed) if self.is_gpu else (feed, len(next(iter(feed.values()))))

    def lengths(self, recipe: TextRecipe) -> list[int]:
        """Every length of a text that a device prepares for: on a GPU powers of two, and the most that is read."""
        if recipe.padding is Padding.FIXED:
            return [recipe.context_length]
        most = min(recipe.context_length, LONGEST_PREPARED)
        if not self.is_gpu:
            return [min(most, SHORTEST)]
        return [*(1 << power for power in range(SHORTEST.bit_length() - 1, (most - 1).bit_length())), most]

    def padded(self, tokens: Feed, recipe: TextRecipe) -> Feed:
        """Token sequences, int64 (texts, length), filled up to a length that a GPU has prepared for."""
        length = tokens["input_ids"].shape[1]
        if not self.is_gpu or not length:
            return tokens
        missing = min(recipe.context_length, max(SHORTEST, 1 << (length - 1).bit_length())) - length
        return {
            name: np.pad(rows, ((0, 0), (0, missing)), constant_values=recipe.pad_id if name == "input_ids" else 0)
            for name, rows in tokens.items()
        }

    def run(self, which: GraphName, feed: Feed) -> list[NDArray[np.float32]]:
        """A graph's outputs, float32.

        Raises:
            EncoderFailed: the session failed, and again after it was rebuilt.
            InvalidBundle: the graph does not load, or is not the one that was published.
            DeviceUnavailable: none of the devices can be used.
            GoldenMismatch: the one that can gives other scores.
        """
        return [np.asarray(each, dtype=np.float32) for each in self._graph(which).compute(feed)]

    def _graph(self, which: GraphName) -> Graph:
        if self._settled and (graph := self._open.get(which)) is not None:
            return graph  # while another one is just opening
        with self._opening:
            if self._devices is None:
                self._settle()
                self._settled = True
            if which not in self._open:
                self._open[which] = self._opened(which, self._devices or ())
            return self._open[which]

    def _settle(self) -> None:
        """Choose the devices. On the CPU, which readiness checks, nothing opens yet."""
        *optional, last = self._plan.candidates
        for devices in optional:
            try:
                self._try(devices)
            except ModelError as error:
                names = ",".join(device.name for device in devices)
                name = self._bundle.manifest.name
                _log.warning("device passed over", model=name, device=names, reason=error.message)
            else:
                return
        self._try(last)

    def _try(self, devices: tuple[Device, ...]) -> None:
        self._devices = devices
        if all(device.kind is Kind.CPU for device in devices):
            return
        try:
            self._open = {which: self._opened(which, devices) for which in self._tensors}
            self._prove()
        except BaseException:  # whatever it was: nothing has been proven
            self._devices = None
            self._open = {}
            raise

    def _opened(self, which: GraphName, devices: tuple[Device, ...]) -> Graph:
        manifest = self._bundle.manifest
        path = self._bundle.graph(_FILES[which])
        return Graph(path, self._tensors[which], manifest.precision.get(which, "fp32"), self._plan, devices)


def plan_of(settings: Settings, threads: int | None) -> Plan:
    """What the settings say about devices and threads.

    Raises:
        UsageError: `settings.device` does not parse.
        DeviceUnavailable: it names a device that this ONNX Runtime cannot use.
    """
    import onnxruntime  # noqa: PLC0415  only to ask what it can

    return Plan(
        # Texts come in many lengths, and in batches of many sizes.
        candidates=without_tensorrt(choose(settings.device, onnxruntime.get_available_providers())),
        threads=threads or settings.threads or cpu_count(),
        gpu_memory=settings.gpu_memory,
    )
