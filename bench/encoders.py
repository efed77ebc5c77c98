"""ViT-B/32 against its own library: images and texts a second, and the way from file bytes, in one run.

    python -m bench.encoders [--photos 192] [--rounds 5] [--device auto]

Random weights: they cost what trained ones cost. Contenders take turns, round by round, and medians are compared, so
that what else the machine does falls on all of them alike. Needs the extra `export`.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.common import machine
from bench.ingest import make_photos
from indexer.flow import batched, map_ahead
from indexer.media.decode import decode, read_file
from indexer.models.bundle import load_bundle
from indexer.models.devices import Device, Kind, Plan, choose, cpu_count
from indexer.models.encoder import Encoder
from indexer.models.preprocess import decode_target
from onnx_export.export import Order, export
from onnx_export.sources import load_checkpoint
from tests.onnx_export.checkpoints import clip_tokenizer, open_clip_file

BATCH = 32
CAPTIONS = [
    "a dog running along the beach at sunset",
    "two children playing football in the rain",
    "a red bicycle leaning against a brick wall",
    "a plate of pasta with tomatoes and basil on a wooden table",
    "people waiting for a train on a crowded platform",
    "an old man reading a newspaper on a park bench",
    "a small airplane flying over snowy mountains",
    "a cat asleep on a pile of books",
]


def race(contenders: dict[str, Callable[[], object]], count: int, rounds: int) -> dict[str, float]:
    """Items a second of each contender, the median of rounds in which they take turns; a first round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            started = time.perf_counter()
            work()
            if turn:
                rates[name].append(count / (time.perf_counter() - started))
    return {name: statistics.median(each) for name, each in rates.items()}


def sentence_clip(folder: Path) -> Callable[[Sequence[Path]], object]:
    """sentence-transformers' `encode` of a CLIP ViT-B/32, from image files."""
    from PIL import Image
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules.clip_model import CLIPModel as Module
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    config = CLIPConfig()
    config.text_config.eos_token_id = 49407
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    model = SentenceTransformer(modules=[Module(str(folder))], device="cpu")
    return lambda paths: model.encode([Image.open(path) for path in paths], batch_size=BATCH, show_progress_bar=False)


def from_files(encoder: Encoder, paths: Sequence[Path]) -> NDArray[np.float32]:
    """Vectors of image files as the pipeline makes them: decoding and encoding side by side."""
    target = decode_target(encoder.pixels)

    def prepared(path: Path) -> NDArray[np.float32]:
        return encoder.prepare(decode(read_file(path, max_bytes=10**9), target=target, max_pixels=10**9))

    threads = cpu_count()
    with ThreadPoolExecutor(threads) as decoders, ThreadPoolExecutor(threads) as encoders:
        pixels = batched(map_ahead(decoders, prepared, paths, ahead=2 * BATCH), 16)
        vectors = map_ahead(encoders, lambda rows: encoder.encode_pixels(np.stack(rows)), pixels, ahead=threads + 1)
        return np.concatenate(list(vectors))


def table(title: str, rates: dict[str, float], against: str) -> None:
    """The rates as a Markdown table, with each one's ratio to one of them."""
    print(f"\n| {title} | per second | ratio |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / rates[against]:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(cpu_count())
    print(machine())
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        home = Path(folder)
        checkpoint = load_checkpoint(open_clip_file(home, "ViT-B-32"))
        for precision in ("fp32", "int8"):
            order = Order(f"b32-{precision}", precision, "MIT", "ViT-B/32, random weights.")
            certificate = export(checkpoint, order, home / precision, lambda _message: None)
            tower, _, cosine = certificate.worst()
            print(f"{precision}: worst cosine {cosine:.6f} ({tower}); overlap@10 {certificate.overlap or 'not needed'}")
        import onnxruntime

        plans = {
            "all": Plan(choose(options.device, onnxruntime.get_available_providers()), threads=cpu_count()),
            "one": Plan(((Device(Kind.CPU),),), threads=1),
        }
        ours = {name: Encoder(load_bundle(home / name), plans["all"]) for name in ("fp32", "int8")}
        side_by_side = {name: Encoder(load_bundle(home / name), plans["one"]) for name in ("fp32", "int8")}
        images(checkpoint, ours, options.rounds)
        texts(checkpoint, ours, options.rounds)
        paths = make_photos(home / "photos", options.photos, 640)
        reference = sentence_clip(home / "st")
        rates = race(
            {
                "sentence-transformers `encode`": lambda: reference(paths),
                "crosslens fp32": lambda: from_files(side_by_side["fp32"], paths),
                "crosslens int8": lambda: from_files(side_by_side["int8"], paths),
            },
            len(paths),
            options.rounds,
        )
        table("photos, from 640 x 480 JPEG files to vectors", rates, "sentence-transformers `encode`")


def images(checkpoint: object, ours: dict[str, Encoder], rounds: int) -> None:
    """Prepared pixels to vectors, batch 32."""
    pixels = np.random.default_rng(0).normal(size=(BATCH, 3, 224, 224)).astype(np.float32)
    tensor = torch.from_numpy(pixels)
    model = checkpoint.image.module.model  # type: ignore[attr-defined]

    def eager() -> object:
        with torch.inference_mode():
            return model.encode_image(tensor)

    runs: dict[str, Callable[[], object]] = {"open_clip, eager torch": eager}
    runs |= {
        f"crosslens {name}": lambda encoder=encoder: encoder.encode_pixels(pixels) for name, encoder in ours.items()
    }  # type: ignore[misc]
    table("images, batch 32", race(runs, BATCH, rounds), "open_clip, eager torch")


def texts(checkpoint: object, ours: dict[str, Encoder], rounds: int) -> None:
    """Captions of ordinary length to vectors, tokenizing included, batch 32."""
    import open_clip

    captions = [CAPTIONS[index % len(CAPTIONS)] for index in range(BATCH)]
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    model = checkpoint.image.module.model  # type: ignore[attr-defined]

    def eager() -> object:
        with torch.inference_mode():
            return model.encode_text(tokenizer(captions))

    runs: dict[str, Callable[[], object]] = {"open_clip, eager torch": eager}
    runs |= {
        f"crosslens {name}": lambda encoder=encoder: encoder.encode_texts(captions) for name, encoder in ours.items()
    }  # type: ignore[misc]
    table("texts of 7 to 12 words, batch 32", race(runs, BATCH, rounds), "open_clip, eager torch")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
