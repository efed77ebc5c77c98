"""What rerankers run on: proven before it is believed, and prepared for every shape before a request comes."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import structlog

from indexer.errors import DeviceUnavailable, GoldenMismatch
from indexer.models.devices import PROVIDERS, Device, Kind, Plan
from indexer.models.rerank import graphs as rerank_graphs
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.golden import check_golden_pairs
from indexer.models.rerank.reranker import Features, Reranker, TextReranker
from indexer.models.sessions import Graph
from indexer.settings import Settings
from tests.indexer.models.test_rerankers import images
from tests.rerankers import DEPTH, QUERIES, TOKENS, WIDTH, make_reranker, make_text_reranker

CPU = Device(Kind.CPU)
CUDA = Device(Kind.CUDA)
Shapes = set[tuple[tuple[str, tuple[int, ...]], ...]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reranker(tmp_path_factory.mktemp("rerankers"))


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_reranker(tmp_path_factory.mktemp("rerankers"), context=600)


class _Wrong(Graph):
    """A graph that computes something else on anything but the CPU."""

    def __init__(self, *arguments: Any) -> None:
        *others, devices = arguments
        super().__init__(*others, (CPU,) * len(devices))
        self.devices = devices

    def compute(self, feed: Any) -> Any:
        given = super().compute(feed)
        return given if self.devices == (CPU,) else [each + np.float32(0.1) for each in given]


class _Right(_Wrong):
    """One that computes the same everywhere."""

    def compute(self, feed: Any) -> Any:
        return Graph.compute(self, feed)


def test_a_device_that_scores_otherwise_is_passed_over_or_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank_graphs, "Graph", _Wrong)
    reranker = Reranker(load_rerank_bundle(bundle), Plan(((CUDA,), (CPU,))))
    assert reranker.is_gpu  # as far as anybody knows
    with structlog.testing.capture_logs() as logs:
        check_golden_pairs(reranker)
    assert reranker.devices == {"vision": "cpu", "match": "cpu"}
    assert not reranker.is_gpu
    assert [entry["device"] for entry in logs] == ["cuda:0"]
    assert "gives other scores here" in logs[0]["reason"]
    refused = Reranker(load_rerank_bundle(bundle), Plan(((CUDA,),)))
    for _ in range(2):
        with pytest.raises(GoldenMismatch):
            refused.features(images(1))


def test_nobody_uses_a_device_before_it_is_proven(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank_graphs, "Graph", _Right)
    reranker = Reranker(load_rerank_bundle(bundle), Plan(((CUDA,),)))
    kept = Features(np.zeros((TOKENS, WIDTH), np.float16), np.zeros((QUERIES, DEPTH), np.float16))
    other = threading.Thread(target=reranker.scores, args=("red left", [kept]))
    alive: list[bool] = []

    def prove() -> None:
        other.start()
        other.join(0.05)  # it would be over by then
        alive.append(other.is_alive())

    monkeypatch.setattr(reranker._graphs, "_prove", prove)
    reranker.scores("red left", [kept])
    other.join(60)
    assert alive == [True]
    assert not other.is_alive()


def test_a_device_that_is_not_there_is_passed_over(cross: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "providers", lambda self, device: [("CPUExecutionProvider", {})])
    texts = TextReranker(load_rerank_bundle(cross), Plan(((CUDA,), (CPU,))))
    assert texts.scores("cat", ["cat"]).score[0] == pytest.approx(0.9)
    assert texts.devices == {"match": "cpu"}
    with pytest.raises(DeviceUnavailable):
        TextReranker(load_rerank_bundle(cross), Plan(((CUDA,),))).scores("cat", ["cat"])


def test_a_gpu_gets_batches_of_few_sizes_and_gives_the_same(
    bundle: Path, cross: Path, monkeypatch: pytest.MonkeyPatch, runs: list[dict[str, Any]]
) -> None:
    pictures, passages = images(21), ["cat and dog"[: at % 12] for at in range(21)]
    on_cpu = Reranker(load_rerank_bundle(bundle))
    expected = on_cpu.scores("red left", on_cpu.features(pictures)).score
    expected_texts = TextReranker(load_rerank_bundle(cross)).scores("cat", passages).score
    monkeypatch.setattr(rerank_graphs, "Graph", _Right)
    reranker = Reranker(load_rerank_bundle(bundle), Plan(((CUDA,),)))
    reranker.features(images(1))  # proves the device
    runs.clear()
    assert np.allclose(reranker.scores("red left", reranker.features(pictures)).score, expected, atol=1e-5)
    assert [feed["pixels"].shape[0] for feed in runs if "pixels" in feed] == [32]
    assert [feed["rows"].shape[0] for feed in runs if "rows" in feed] == [32]
    assert {feed["input_ids"].shape for feed in runs if "rows" in feed} == {(1, 8)}
    texts = TextReranker(load_rerank_bundle(cross), Plan(((CUDA,),)))
    assert np.allclose(texts.scores("cat", passages).score, expected_texts, atol=1e-5)


def shapes(runs: list[dict[str, Any]]) -> Shapes:
    """Of what was fed since the last time."""
    found = {tuple(sorted((name, rows.shape) for name, rows in feed.items())) for feed in runs}
    runs.clear()
    return found


def test_a_gpu_is_prepared_for_every_shape_of_a_search(
    bundle: Path, cross: Path, monkeypatch: pytest.MonkeyPatch, runs: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(rerank_graphs, "Graph", _Right)
    reranker = Reranker(load_rerank_bundle(bundle), Plan(((CUDA,),)))
    reranker.warm_up()
    prepared = shapes(runs)
    for length in range(1, 14):
        for count in (1, 3, 32, 40):
            reranker.scores("red " * length, reranker.features(images(1)) * count)
    reranker.features(images(21))
    assert shapes(runs) <= {tuple(pair for pair in each if pair[0] != "token_type_ids") for each in prepared}
    texts = TextReranker(load_rerank_bundle(cross), Plan(((CUDA,),)))
    texts.warm_up()
    prepared = shapes(runs)
    assert len(prepared) == 6 * 7  # 8, 16, .. 512 tokens in batches of 1, 2, .. 32; and what proved it was one of them
    for length in (1, 7, 8, 40, 100, 500):
        texts.scores("a cat", ["a " * length] * (1 + length % 37))
    texts.scores("a cat", ["a " * at for at in range(0, 500, 9)])
    assert shapes(runs) <= prepared


def test_an_error_of_any_kind_leaves_a_device_unproven(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank_graphs, "Graph", _Right)
    reranker = Reranker(load_rerank_bundle(bundle), Plan(((CUDA,),)))
    proved: list[bool] = []

    def prove() -> None:
        proved.append(True)
        if len(proved) == 1:
            raise OSError("the disk is gone")

    monkeypatch.setattr(reranker._graphs, "_prove", prove)
    with pytest.raises(OSError, match="the disk is gone"):
        reranker.features(images(1))
    assert reranker.devices == {}
    reranker.features(images(1))
    assert len(proved) == 2


def test_no_pair_is_forgotten_where_the_gpu_is_none(cross: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank_graphs, "Graph", _Wrong)
    passages = ["a cat", "a dog", "cat cat", "bird"] * 20
    expected = TextReranker(load_rerank_bundle(cross)).scores("cat", passages).score
    texts = TextReranker(load_rerank_bundle(cross), Plan(((CUDA,), (CPU,))))
    assert texts.max_batch == rerank_graphs.GPU_BATCH  # as far as anybody knows
    assert np.allclose(texts.scores("cat", passages).score, expected, atol=1e-5)
    assert texts.max_batch == rerank_graphs.CPU_BATCH["match"]


@pytest.fixture
def tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has everything."""
    (tmp_path / "tensorrt.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))


@pytest.mark.usefixtures("tensorrt")
def test_tensorrt_builds_no_engine_for_a_search() -> None:
    def names(device: str) -> list[list[str]]:
        plan = rerank_graphs.plan_of(Settings(device=device), None)
        return [[each.name for each in devices] for devices in plan.candidates]

    assert names("auto") == [["cuda:0"], ["openvino"], ["cpu"]]
    assert names("tensorrt:1") == [["cuda:1"]]
    assert names("cuda:0,tensorrt:0,tensorrt:1") == [["cuda:0", "cuda:1"]]
