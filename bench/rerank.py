"""BLIP-2 ViT-g's reranker at full size, with random weights: parity, pictures and pairs a second, a search's top 50.

    python -m bench.rerank [--depth 39] [--precision fp32 fp16 int8] [--device cpu] [--top 50] [--rounds 5] [--out FOLDER]

Random weights cost what trained ones cost. `--depth` keeps as many layers of the vision encoder (and of the Q-Former in
proportion), at full width. At full size the export takes about 12 GiB of memory and 12 GB of disk; where there is less
memory it says so and does nothing. Needs the extra `export`.
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import psutil

from bench.common import machine
from bench.encoders import CAPTIONS
from indexer.models.devices import Plan, choose, cpu_count
from indexer.models.rerank.bundle import load_rerank_bundle
from indexer.models.rerank.manifest import read_rerank_manifest
from indexer.models.rerank.reranker import Reranker
from onnx_export.export import Order
from onnx_export.rerank.checkpoint import RerankCheckpoint
from onnx_export.rerank.export import convert, export
from onnx_export.rerank.parity import Agreement, RerankCertificate, bounds_of, certify

FULL_DEPTH = 39
_GIB = 2**30
_PARAMETER_BYTES = 4
_COPIES = 2.4
"""Of all weights, in fp32, that the export holds at its peak."""
_REST_GIB = 2.0


def checkpoint(depth: int) -> RerankCheckpoint:
    """A BLIP-2 of the hub's configuration, but for its depth, with random weights."""
    import torch
    from transformers import Blip2ForImageTextRetrieval, BlipImageProcessorPil

    from onnx_export.rerank import blip2
    from tests.onnx_export.rerank_checkpoints import bert_tokenizer, widen

    tokenizer = bert_tokenizer("[DEC]")
    config = configuration(depth)
    torch.manual_seed(0)
    with torch.no_grad():
        model = Blip2ForImageTextRetrieval(config).eval()
        widen(model)
    size = config.vision_config.image_size
    images = BlipImageProcessorPil(size={"height": size, "width": size})
    return blip2.from_parts(model, images, tokenizer, source="random weights")


def configuration(depth: int):  # type: ignore[no-untyped-def]  # transformers has no types
    """The hub's Salesforce/blip2-itm-vit-g."""
    from transformers import Blip2Config

    layers = max(2, round(12 * depth / FULL_DEPTH))
    return Blip2Config(
        vision_config={"num_hidden_layers": depth, "initializer_range": 0.02},
        qformer_config={"num_hidden_layers": layers, "vocab_size": 30523, "use_qformer_text_input": True},
        image_token_index=30523,
    )


def needed_gib(depth: int) -> float:
    """Memory that the export takes, reckoned from the parameters."""
    import torch
    from transformers import Blip2ForImageTextRetrieval

    with torch.device("meta"):
        parameters = sum(each.numel() for each in Blip2ForImageTextRetrieval(configuration(depth)).parameters())
    print(f"{parameters / 1e6:,.0f} million parameters")
    return parameters * _PARAMETER_BYTES * _COPIES / _GIB + _REST_GIB


def agreement(name: str, certificate: RerankCertificate) -> None:
    def words(each: Agreement) -> str:
        return f"scores within {each.difference:.2g}, ranks {each.rank:.5f}"

    print(f"{name}: two graphs {words(certificate.graphs)}; features kept in half {words(certificate.kept)}")


def measure(folder: Path, device: str, top: int, rounds: int) -> None:
    """Pictures and pairs a second, and what a search waits for when its pictures' features are kept."""
    plan = Plan(choose(device, onnxruntime.get_available_providers()), threads=cpu_count())
    reranker = Reranker(load_rerank_bundle(folder), plan)
    chance = np.random.default_rng(0)
    size = reranker.pixels.size
    pixels = [chance.normal(size=(3, size, size)).astype(np.float32) for _ in range(4)]
    features = (reranker.features_of(pixels) * (-(-top // len(pixels))))[:top]
    reranker.scores(CAPTIONS[0], features)
    pictures = timed(lambda: reranker.features_of(pixels), rounds)
    whole = [timed(lambda text=text: reranker.scores(text, features), 1) for text in CAPTIONS[:rounds]]  # type: ignore[misc]
    seconds = statistics.median(whole)
    kept = features[0].nbytes
    where = ", ".join(sorted(set(reranker.devices.values())))
    disk = sum(file.size for file in reranker.manifest.files.values())
    print(
        f"| {'/'.join(sorted(set(reranker.manifest.precision.values())))} on {where} | {disk / 1e9:.2f} GB "
        f"| {len(pixels) / pictures:.2f} | {top / seconds:.1f} | {seconds * 1000:,.0f} ms | {kept / 1e3:.0f} kB |"
    )


def peak() -> float:
    """The most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def timed(work: Callable[[], object], rounds: int) -> float:
    """Seconds, the median."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=FULL_DEPTH)
    parser.add_argument("--precision", nargs="+", choices=["fp32", "fp16", "int8"], default=["fp32", "int8"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--top", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="Where bundles are made, and left; an fp32 that is there is used.")
    options = parser.parse_args()
    print(machine())
    needed, available = needed_gib(options.depth), psutil.virtual_memory().available / _GIB
    if available < needed:
        print(f"Skipped: this takes {needed:.1f} GiB of memory, and {available:.1f} are available. Try --depth 4.")
        return
    home = options.out or Path(tempfile.mkdtemp(prefix="rerank-"))
    try:
        run(home, options)
    finally:
        if options.out is None:
            shutil.rmtree(home)


def run(home: Path, options: argparse.Namespace) -> None:
    if (home / "fp32").is_dir():
        bounds = bounds_of(home / "fp32", "fp32")
        certificate = certify(home / "fp32", "what it was made of", "fp32", bounds)
    else:
        order = Order("fp32", "fp32", "MIT", "BLIP-2, random weights.")
        started = time.perf_counter()
        certificate = export(lambda: checkpoint(options.depth), order, home / "fp32", lambda said: print(f"  {said}"))
        print(f"made in {time.perf_counter() - started:.0f} s, {peak():.1f} GiB of memory at most")
    agreement("fp32", certificate)
    manifest = read_rerank_manifest(home / "fp32")
    for precision in [each for each in options.precision if each != "fp32"]:
        lower = Order(precision, precision, "MIT", "BLIP-2, random weights.")
        convert(manifest, lower, home / "fp32", home / precision, lambda said: print(f"  {said}"))
        agreement(
            precision,
            certify(home / precision, certificate.reference, precision, bounds_of(home / precision, precision)),
        )
    print(f"{peak():.1f} GiB of memory at most")
    print(f"\n| | on disk | pictures/s | pairs/s | top {options.top}, features kept | a picture's features |")
    print("|---|---|---|---|---|---|")
    for precision in options.precision:
        measure(home / precision, options.device, options.top, options.rounds)


if __name__ == "__main__":
    main()
