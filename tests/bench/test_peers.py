"""The comparison with other stores measures what it says: the same items, the same answers, and no ratio of nothing."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.peers import QUESTIONS, SIZE, classes, passes, payloads
from bench.peers.compare import API, INDEX, Runner, embedder_table, searcher_tables, searchers, write_vectors
from bench.peers.crosslens import Index
from bench.peers.measure import TUNING, latencies, rate, tune
from indexer.models.encoder import load_encoder
from indexer.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


class Choosy:
    """A searcher that finds the truth from a setting on."""

    settings = (10, 20, 30)
    pids = ()

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.setting = 0

    def use(self, setting: int) -> None:
        self.setting = setting

    def search(self, vector: np.ndarray, k: int, only: object) -> list[int]:
        return list(range(k)) if self.setting >= self.enough else list(range(k, 2 * k))

    def close(self) -> None:
        pass


def test_payloads_and_filters_are_of_the_same_items() -> None:
    kept = list(payloads(2000))
    for only in QUESTIONS.values():
        expected = [only is None or payload[only[0]] == only[1] for payload in kept]
        assert passes(only, 2000).tolist() == expected
    assert classes(10).tolist() == [payload["hundredth"] for payload in payloads(10)]
    assert 0.08 < passes(QUESTIONS["10 %"], 20_000).mean() < 0.12
    assert 0.008 < passes(QUESTIONS["1 %"], 20_000).mean() < 0.012


def test_the_truth_is_exact_and_within_the_filter(tmp_path: Path) -> None:
    write_vectors(tmp_path, 3000, 16, 70)
    vectors, queries = np.load(tmp_path / "vectors.npy"), np.load(tmp_path / "queries.npy")
    for name, only in QUESTIONS.items():
        among = set(np.flatnonzero(passes(only, 3000)).tolist())
        for query, found in zip(queries, np.load(tmp_path / f"truth-{name}.npy").tolist(), strict=True):
            assert found == sorted(among, key=lambda number: -float(query @ vectors[number]))[:SIZE]


@pytest.mark.parametrize(("enough", "chosen"), [(10, 10), (20, 20), (99, 30)])
def test_settings_are_raised_until_enough_is_found(enough: int, chosen: int) -> None:
    searcher = Choosy(enough)
    truth = np.tile(np.arange(SIZE), (12, 1))
    assert tune(searcher, np.zeros((12, 4), np.float32), truth, None, 5) == chosen
    assert searcher.setting == chosen


def test_calls_are_counted_and_their_errors_are_not_lost() -> None:
    asked: list[int] = []
    assert len(latencies(asked.append, 25, 60)) == 25
    assert asked == list(range(25))
    assert len(latencies(asked.append, 25, 0)) == 10  # the least, however long they take

    def fail(at: int) -> None:
        raise ValueError(at)

    with pytest.raises(ValueError, match=r"\d"):
        rate(fail, 2, 0.1)


def test_the_index_finds_what_is_true(tmp_path: Path) -> None:
    write_vectors(tmp_path, 400, load_encoder(Settings()).dimension, 12)
    index = Index()
    index.build(tmp_path / "index", np.load(tmp_path / "vectors.npy"))
    searcher = index.open(tmp_path / "index")
    try:
        for setting in searcher.settings:
            searcher.use(setting)
            for name, only in QUESTIONS.items():
                truth = np.load(tmp_path / f"truth-{name}.npy").tolist()
                for query, right in zip(np.load(tmp_path / "queries.npy"), truth, strict=True):
                    assert set(searcher.search(query, SIZE, only)) == set(right)
    finally:
        searcher.close()


def test_a_whole_comparison_with_a_peer_that_is_not_there(tmp_path: Path) -> None:
    runner = Runner(tmp_path, None, ["--searches=10", "--seconds=0.2", "--threads=2"])
    size = load_encoder(Settings()).dimension
    found = searchers(runner, 400, size, [INDEX, "Chroma"])
    assert found["Chroma"] == "no --peers-python was given"
    of_ours = found[INDEX]
    assert isinstance(of_ours, dict), of_ours
    assert of_ours["questions"].keys() == QUESTIONS.keys()
    assert all(each["recall"] >= 0.98 for each in of_ours["questions"].values())
    lines = list(searcher_tables(found))
    assert "| Chroma | not measured: no --peers-python was given | | | |" in lines
    rows = [line for line in lines if line.startswith(f"| {INDEX} | in process |")]
    assert len(rows) == 1 + len(QUESTIONS)
    assert all("| 1.00 |" in row for row in rows[1:])
    assert not (tmp_path / "index").exists()


def test_what_fails_says_why(tmp_path: Path) -> None:
    found = searchers(Runner(tmp_path, "/nowhere/python", []), TUNING, 8, ["LanceDB, IVF_PQ"])
    assert "/nowhere/python" in str(found["LanceDB, IVF_PQ"])
    found = searchers(Runner(tmp_path, sys.executable, []), TUNING, 8, ["LanceDB, IVF_PQ"])
    assert "No module named" in str(found["LanceDB, IVF_PQ"])


def test_best_are_those_that_find_enough() -> None:
    def row(http: bool, recall: float, p50: float) -> dict[str, object]:
        each = {"setting": None, "recall": recall, "searches": 1, "p50": p50, "p95": p50, "rate": 100.0}
        return {"http": http, "built": 1.0, "opened": 1.0, "resident": 1.0, "questions": dict.fromkeys(QUESTIONS, each)}

    found = {API: row(True, 1.0, 4.0), INDEX: row(False, 0.99, 2.0), "Chroma": row(False, 0.9, 1.0)}
    lines = list(searcher_tables(found))  # type: ignore[arg-type]
    assert f"Lowest p50 at recall@10 of 0.98 and more, in process: {INDEX}, 2.00 ms." in lines
    assert any(line.startswith("| Chroma | in process |") and "| 0.25 | 0.50 |" in line for line in lines)


def test_another_models_vectors_are_called_that() -> None:
    same: dict[str, object] = {"rate": 100.0, "p50": 1.0, "p95": 2.0, "resident": 10.0, "cosine": 0.9999}
    lines = list(embedder_table({"Crosslens Encoder": same, "fastembed": {**same, "rate": 50.0, "cosine": 0.5}}))
    assert lines[2].endswith("| 0.999900 |")
    assert "| 0.50 |" in lines[3]
    assert lines[3].endswith("| 0.500000, another model |")


def test_peers_run_where_nothing_of_crosslens_is() -> None:
    ours = {"crosslens.py", "compare.py"}
    for path in (ROOT / "bench" / "peers").glob("*.py"):
        if path.name in ours:
            continue
        top = ast.parse(path.read_text()).body
        names = [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
        assert not [name for name in names if name.startswith(("indexer", "search_api", "bench.common"))], path.name
