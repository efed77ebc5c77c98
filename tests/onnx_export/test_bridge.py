"""The built-in bundle as it ships, and the steps that build it on data small enough for a test."""

import numpy as np
import pytest

from indexer.models.bundle import find_bundle
from indexer.models.encoder import Encoder, load_encoder
from indexer.models.golden import check_golden
from indexer.models.recall import image_to_text, text_to_image
from indexer.settings import Settings
from tests.test_architecture import ROOT

EXAMPLES = ROOT / "examples" / "media"
NEEDS_TORCH = "torch comes with the extra `export`"


@pytest.fixture(scope="module")
def bridge() -> Encoder:
    return load_encoder(Settings(), "bridge")


def test_every_file_is_the_one_that_was_published(bridge: Encoder) -> None:
    bridge.bundle.verify_files()
    assert {"MODEL_CARD.md", "NOTICE", "LICENSE"} <= bridge.manifest.files.keys()
    inside = {str(path.relative_to(bridge.bundle.folder)) for path in bridge.bundle.folder.rglob("*") if path.is_file()}
    assert inside == bridge.manifest.files.keys() | {"manifest.json"}


def test_this_machine_gives_the_golden_vectors(bridge: Encoder) -> None:
    report = check_golden(bridge)
    assert min(report.image, report.text) >= bridge.manifest.golden_cosine


def test_a_text_hangs_little_on_its_batch(bridge: Encoder) -> None:
    texts = ["a dog", "a very long description of a dog that runs along the beach at sunset with its owner", "x"]
    alone = np.concatenate([bridge.encode_texts([text]).vectors for text in texts])
    assert (alone * bridge.encode_texts(texts).vectors).sum(axis=1).min() > 0.99


@pytest.mark.parametrize(
    ("text", "photo"),
    [
        ("a cat", "cat.jpg"),
        ("a cup of coffee", "coffee.webp"),
        ("a raccoon", "raccoon.avif"),
        ("a rocket", "rocket.jpg"),
        ("old coins", "coins.png"),
        ("stairs", "stairs.png"),
        ("a flower", "flower.heic"),
        ("a temple", "pagoda.jpg"),
    ],
)
def test_it_finds_the_sample_photos_by_what_they_show(bridge: Encoder, text: str, photo: str) -> None:
    from indexer.media.decode import decode

    names = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix not in {".md", ".jsonl"})
    images = [decode((EXAMPLES / name).read_bytes(), target=292, max_pixels=10**8) for name in names]
    scores = bridge.encode_images(images) @ bridge.encode_texts([text]).vectors[0]
    assert names[int(scores.argmax())] == photo


def test_it_is_found_as_package_data() -> None:
    assert find_bundle("bridge", Settings()).manifest.dimension == 384


def test_recall_counts_what_it_says() -> None:
    images = np.eye(4, dtype=np.float32)
    texts = np.array([[1, 0, 0, 0], [0.9, 0.1, 0, 0], [0.1, 0.2, 0.9, 0], [0, 0, 0.3, 0.2]], np.float32)
    owners = np.array([0, 1, 2, 3])
    found = text_to_image(images, texts, owners)
    assert found.at == {1: 0.5, 5: 1.0, 10: 1.0}
    assert found.median_rank == 1.5
    assert image_to_text(images, texts, owners).at[1] == 0.75


def test_the_weakest_head_that_is_not_clearly_worse_is_chosen() -> None:
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    from onnx_export.bridge.head import choose_strength

    chance = np.random.default_rng(0)
    best = chance.random(400)
    assert choose_strength({0.5: best - 0.2, 0.8: best - 0.001, 1.0: best}) == 0.8
    assert choose_strength({0.5: best - 0.2, 0.8: best - 0.1, 1.0: best}) == 1.0


def test_the_head_learns_what_class_names_do_not_say() -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from onnx_export.bridge.head import TrainingData, average, train

    chance = np.random.default_rng(0)
    meaning = chance.normal(size=(64, 8)).astype(np.float32)

    def unit(values: np.ndarray) -> np.ndarray:
        return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)

    named = unit(chance.normal(size=(64, 8)))
    inputs = np.concatenate([meaning, named], axis=1)
    captions = unit(meaning[:, None] @ chance.normal(size=(8, 8)) + 0.01 * chance.normal(size=(64, 5, 8)))
    belief = np.full((64, 3), 1 / 3, np.float32)
    data = TrainingData((inputs, inputs, inputs), captions, belief, unit(chance.normal(size=(3, 8))))
    heads = [train(data, hidden=32, seed=seed) for seed in (0, 1)]

    def recall(head: object, strength: float) -> float:
        with torch.inference_mode():
            images = head.images(torch.from_numpy(inputs), strength).numpy()  # type: ignore[attr-defined]
            texts = head.texts(torch.from_numpy(captions[:, 0]), strength).numpy()  # type: ignore[attr-defined]
        return text_to_image(images, texts, np.arange(64)).at[5]

    assert recall(heads[0], 0.0) < recall(heads[0], 1.0)
    one = average(heads)
    with torch.inference_mode():
        mean = (heads[0].image_delta(torch.from_numpy(inputs)) + heads[1].image_delta(torch.from_numpy(inputs))) / 2
        assert torch.allclose(one.image_delta(torch.from_numpy(inputs)), mean, atol=1e-5)
    again = train(data, hidden=32, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), heads[0].parameters(), strict=True))
