"""Embedding texts with the weights of all-MiniLM-L6-v2, in this process: each library as its documentation has it.

python -m bench.peers.texts NAME FOLDER [--rounds 5] prints one line of JSON.

FOLDER holds `model/` (the checkpoint), `onnx/` (the same as Hugging Face's exporter makes it: token embeddings),
Crosslens' bundle `minilm` (as `crosslens models export` makes it), and `texts.json`. Vectors go to `vectors-NAME.npy`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import Floats
from bench.peers.measure import latencies, resident

Embedder = Callable[[list[str]], Floats]
"""Texts to unit vectors, (n, 384)."""


def crosslens(folder: Path) -> Embedder:
    """`Encoder.encode_texts` of the exported bundle, fp32."""
    from indexer.models.bundle import load_bundle
    from indexer.models.encoder import Encoder
    from indexer.settings import Settings

    encoder = Encoder(load_bundle(Settings(data=folder).models_folder / "minilm"))
    return lambda texts: encoder.encode_texts(texts).vectors


def sentence_transformers(folder: Path) -> Embedder:
    """Eager torch."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "model"), device="cpu")
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def _infinity(folder: Path, **options: Any) -> Embedder:
    from infinity_emb import EngineArgs, SyncEngineArray

    arguments = EngineArgs(model_name_or_path=str(folder), device="cpu", **options)
    engines = SyncEngineArray.from_args([arguments])

    def embed(texts: list[str]) -> Floats:
        vectors, _usage = engines.embed(model=arguments.served_model_name, sentences=texts).result()
        return np.asarray(vectors, np.float32)

    return embed


def infinity_torch(folder: Path) -> Embedder:
    """Infinity's engine with torch."""
    return _infinity(folder / "model", engine="torch", bettertransformer=False)


def infinity_optimum(folder: Path) -> Embedder:
    """Infinity's engine with ONNX Runtime, which it recommends for CPUs.

    It takes the graph's path from where it runs for one inside the model, so it runs there.
    """
    os.chdir(folder / "onnx")
    return _infinity(Path(), engine="optimum", pooling_method="mean", served_model_name="minilm")


def fastembed(folder: Path) -> Embedder:
    """fastembed with a custom model: the graph of the same weights."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "bench/all-MiniLM-L6-v2"
    TextEmbedding.add_custom_model(name, PoolingType.MEAN, True, ModelSource(hf=name), dim=384, model_file="model.onnx")
    model = TextEmbedding(name, specific_model_path=str(folder / "onnx"))
    return lambda texts: np.stack(list(model.embed(texts)))


EMBEDDERS: dict[str, Callable[[Path], Embedder]] = {
    "Crosslens Encoder": crosslens,
    "sentence-transformers": sentence_transformers,
    "Infinity, engine torch": infinity_torch,
    "Infinity, engine optimum": infinity_optimum,
    "fastembed": fastembed,
}


def prepare(folder: Path) -> None:
    """Write `onnx/` from `model/`."""
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    ORTModelForFeatureExtraction.from_pretrained(str(folder / "model"), export=True).save_pretrained(folder / "onnx")
    for path in (folder / "model").glob("*.*"):
        if path.suffix in {".json", ".txt"} and not (folder / "onnx" / path.name).exists():
            shutil.copy(path, folder / "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*EMBEDDERS, "prepare"])
    parser.add_argument("folder", type=lambda folder: Path(folder).absolute())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    answer, sys.stdout = sys.stdout, sys.stderr  # libraries print, too
    result: dict[str, Any] = {}
    if options.name == "prepare":
        prepare(options.folder)
    else:
        texts = json.loads((options.folder / "texts.json").read_text())
        embed = EMBEDDERS[options.name](options.folder)
        vectors = embed(texts)
        np.save(options.folder / f"vectors-{options.name}.npy", vectors)
        rates = []
        for _ in range(options.rounds):
            started = time.perf_counter()
            embed(texts)
            rates.append(len(texts) / (time.perf_counter() - started))
        latencies(lambda at: embed([texts[at % len(texts)]]), 20, options.seconds)
        spent = latencies(lambda at: embed([texts[at % len(texts)]]), 300, options.seconds)
        p50, p95 = (np.percentile(spent, [50, 95]) * 1000).tolist()
        result = {"rate": statistics.median(rates), "p50": p50, "p95": p95, "resident": resident([os.getpid()])}
    print(json.dumps(result), file=answer, flush=True)


if __name__ == "__main__":
    main()
