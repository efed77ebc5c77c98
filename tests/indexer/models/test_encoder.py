"""Bundles, tokens and vectors: what is broken is refused, what is whole finds colours by name."""

import hashlib
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from indexer.cli import main
from indexer.errors import BundleNotFound, GoldenMismatch, InvalidBundle, ModelMismatch, UnknownRecipe
from indexer.models.bundle import find_bundle, list_bundles, load_bundle
from indexer.models.encoder import Encoder, load_encoder, load_encoder_of
from indexer.models.golden import check_golden
from indexer.settings import Settings
from tests.bundles import COLOURS, CONTEXT, DIMENSION, make_bundle

NAMES = list(COLOURS)


@pytest.fixture
def own(colours: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to break."""
    return Path(shutil.copytree(colours, tmp_path / "own"))


def change_manifest(bundle: Path, **changes: object) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def test_pictures_and_their_words_are_near_each_other(encoder: Encoder) -> None:
    images = encoder.encode_images([Image.new("RGB", (30, 50), colour) for colour in COLOURS.values()])
    texts = encoder.encode_texts([f"a photo of {name}" for name in NAMES]).vectors
    assert images.dtype == texts.dtype == np.float32
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    assert (texts @ images.T).argmax(axis=1).tolist() == list(range(len(NAMES)))


def test_batches_give_what_single_inputs_give(encoder: Encoder) -> None:
    texts = ["red", "a photo of green and blue", "", "nothing known here " * 30] * 20
    together = encoder.encode_texts(texts)
    alone = [encoder.encode_texts([text]) for text in texts[:4]]
    assert np.abs(together.vectors[:4] - np.concatenate([each.vectors for each in alone])).max() < 1e-6
    assert together.truncated[:4] == [False, False, False, True]
    assert encoder.encode_images([]).shape == (0, DIMENSION)


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.text(st.characters(), max_size=200))
def test_any_text_has_a_vector(encoder: Encoder, text: str) -> None:
    assert np.isfinite(encoder.encode_texts([text]).vectors).all()


def test_odd_texts_have_vectors(encoder: Encoder) -> None:
    odd = ["\ud800 lone", "\0", "red " * 250_000, "\U0001f600"]
    embedded = encoder.encode_texts(odd)
    assert embedded.truncated == [False, False, True, False]
    assert encoder.encode_texts(["red " * (CONTEXT - 2)]).truncated == [False]


def test_many_threads_share_an_encoder(colours: Path) -> None:
    shared = Encoder(load_bundle(colours))
    expected = shared.encode_texts(NAMES).vectors
    results: dict[int, np.ndarray] = {}

    def run(number: int) -> None:
        results[number] = shared.encode_texts(NAMES).vectors

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.allclose(results[number], expected) for number in range(8))


def test_a_changed_file_is_refused(own: Path) -> None:
    (own / "text.onnx").write_bytes((own / "text.onnx").read_bytes() + b"\0")
    with pytest.raises(InvalidBundle, match="not the file that was published"):
        Encoder(load_bundle(own)).encode_texts(["red"])


def test_a_missing_file_and_one_that_leads_out_are_refused(own: Path, tmp_path: Path) -> None:
    (own / "image.onnx").rename(tmp_path / "elsewhere.onnx")
    with pytest.raises(InvalidBundle, match="cannot be read"):
        load_bundle(own).verify_files()
    (own / "image.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(InvalidBundle, match="leads out"):
        load_bundle(own).verify_files()
    files = json.loads((own / "manifest.json").read_text())["files"]
    for name in ("../elsewhere.onnx", "/etc/passwd"):
        change_manifest(own, files={**files, name: files["image.onnx"]})
        with pytest.raises(InvalidBundle, match="outside"):
            load_bundle(own).path(name)


def test_a_manifest_of_the_future_is_refused(own: Path) -> None:
    pixels = json.loads((own / "manifest.json").read_text())["pixels"]
    change_manifest(own, pixels={**pixels, "resize": "fold"})
    with pytest.raises(UnknownRecipe, match=r"pixels\.resize"):
        load_bundle(own)
    change_manifest(own, pixels={**pixels, "unheard": 1})
    with pytest.raises(InvalidBundle):
        load_bundle(own)
    (own / "manifest.json").write_text("{")
    with pytest.raises(InvalidBundle):
        load_bundle(own)


def test_a_graph_of_another_interface_is_refused(own: Path) -> None:
    files = json.loads((own / "manifest.json").read_text())["files"]
    shutil.copy(own / "image.onnx", own / "text.onnx")
    change_manifest(own, files={**files, "text.onnx": files["image.onnx"]})
    with pytest.raises(InvalidBundle, match="it should take"):
        Encoder(load_bundle(own)).encode_texts(["red"])


def test_golden_vectors_catch_another_encoder(own: Path, tmp_path: Path) -> None:
    report = check_golden(Encoder(load_bundle(own)))
    assert min(*report.images.values(), *report.texts.values()) > 0.99999
    other = make_bundle(tmp_path, "twisted", twist=2.0)
    shutil.copy(other / "golden.npz", own / "golden.npz")
    files = json.loads((other / "manifest.json").read_text())["files"]
    mine = json.loads((own / "manifest.json").read_text())["files"]
    change_manifest(own, files={**mine, "golden.npz": files["golden.npz"]})
    with pytest.raises(GoldenMismatch):
        check_golden(Encoder(load_bundle(own)))


@pytest.mark.parametrize("name", ["golden.json", "golden.npz", "picture"])
@pytest.mark.parametrize("content", [b"", b"PK\3\4 none", b"{}"])
def test_golden_files_that_are_none_are_said(own: Path, name: str, content: bytes) -> None:
    manifest = json.loads((own / "manifest.json").read_text())
    if name == "picture":
        name = next(each for each in manifest["files"] if each.startswith("golden/"))
    (own / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    change_manifest(own, files={**manifest["files"], name: entry})
    with pytest.raises(InvalidBundle, match="golden"):
        check_golden(Encoder(load_bundle(own)))


def test_bundles_are_found_by_name_and_by_folder(colours: Path, settings: Settings) -> None:
    assert find_bundle("bridge", settings).manifest.dimension == 384
    assert find_bundle(str(colours), settings).manifest.name == "colours"
    settings.models_folder.mkdir(parents=True)
    shutil.copytree(colours, settings.models_folder / "colours")
    assert {bundle.manifest.name for bundle in list_bundles(settings)} == {"bridge", "colours"}
    assert find_bundle("colours", settings).folder == settings.models_folder / "colours"
    for name in ("nothing", "../colours", ""):
        with pytest.raises(BundleNotFound):
            find_bundle(name, settings)


def test_a_collections_encoder_is_the_one_that_filled_it(settings: Settings, encoder: Encoder) -> None:
    assert load_encoder_of(settings, "whatever", encoder.fingerprint).name == "colours"
    bridge = load_encoder(settings, "bridge").fingerprint
    assert load_encoder_of(settings, "bridge", bridge).name == "bridge"
    with pytest.raises(ModelMismatch, match="another version"):
        load_encoder_of(settings, "bridge", "0" * 16)
    with pytest.raises(ModelMismatch, match="not installed"):
        load_encoder_of(settings, "gone", "0" * 16)


def test_fingerprints_name_the_space_alone(colours: Path, own: Path, tmp_path: Path) -> None:
    change_manifest(own, description="other words", golden_cosine=0.5)
    assert load_bundle(own).manifest.fingerprint == load_bundle(colours).manifest.fingerprint
    twisted = make_bundle(tmp_path, "colours2", twist=1.0)
    assert load_bundle(twisted).manifest.fingerprint != load_bundle(colours).manifest.fingerprint


def test_models_commands(settings: Settings, own: Path) -> None:
    listed = CliRunner().invoke(main, ["models", "list", "--json"])
    assert "bridge" in {row["name"] for row in json.loads(listed.stdout)["models"]}
    verified = CliRunner().invoke(main, ["models", "verify", str(own), "--json"])
    assert json.loads(verified.stdout)["verified"] is True
    (own / "golden.npz").write_bytes(b"x")
    broken = CliRunner().invoke(main, ["models", "verify", str(own)])
    assert broken.exit_code == 2
    assert "golden.npz" in broken.stderr
