"""Probabilities: labels that fit are likely, something else is none of them, and prompts are averaged as published."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from indexer.classify.classifier import Classifier, LabelCache, embed_labels
from indexer.classify.labels import LabelSet, of_names, parse_label_set
from indexer.classify.scoring import BASE_RATE, OTHERS, Scale, each_of, one_of, scale_of
from indexer.errors import InvalidVector
from indexer.models.bundle import load_bundle
from indexer.models.encoder import Encoder, TextEmbeddings
from indexer.models.manifest import Calibration, Manifest
from tests.bundles import COLOURS, make_bundle, picture

WARM = ["red", "yellow"]


class Counting:
    """An encoder that counts the texts it is given."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.texts = encoder, 0

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def manifest(self) -> Manifest:
        return self.encoder.manifest

    def encode_texts(self, texts: list[str]) -> TextEmbeddings:  # type: ignore[override]
        self.texts += len(texts)
        return self.encoder.encode_texts(texts)


def of_pictures(encoder: Encoder, *colours: str) -> np.ndarray:
    return encoder.encode_images([Image.open(io.BytesIO(picture(colour))).convert("RGB") for colour in colours])


def test_one_label_or_none_of_them(encoder: Encoder) -> None:
    pictures = of_pictures(encoder, "red", "green", "blue", "black")
    judged = Classifier(encoder, of_names(["red", "green"])).judge(pictures, "image")
    assert judged.origin == "model"
    np.testing.assert_allclose(judged.probabilities.sum(axis=1) + judged.none, 1, atol=1e-5)
    assert judged.tags(0.5, multi=False) == [["red"], ["green"], [], []]
    assert (judged.none[:2] < 0.2).all()
    assert (judged.none[2:] > 0.5).all()  # something else
    assert judged.none[2] > 0.9


def test_none_is_more_probable_the_further_an_item_is_from_all_labels(encoder: Encoder) -> None:
    red = of_pictures(encoder, "red")[0]
    away = of_pictures(encoder, "blue")[0]
    along = np.stack([(1 - part) * red + part * away for part in np.linspace(0, 1, 8)]).astype(np.float32)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    for multi in (False, True):
        none = Classifier(encoder, of_names(WARM, multi=multi)).judge(along, "image").none
        assert (np.diff(none) > 0).all()


def test_many_labels_each_by_the_calibration(encoder: Encoder) -> None:
    labels = of_names([*COLOURS], template="none", multi=True)
    judged = Classifier(encoder, labels).judge(of_pictures(encoder, "white"), "image")
    own = encoder.manifest.calibration["text_to_image"]
    np.testing.assert_allclose(
        judged.probabilities, 1 / (1 + np.exp(-(own.scale * judged.cosines + own.bias))), rtol=1e-4
    )
    given = judged.tags(0.5, multi=True)[0]
    assert given[0] == "white"
    assert set(given) == {"white", "yellow", "purple"}
    assert judged.none[0] == pytest.approx(1 - judged.probabilities.max())


def test_texts_are_judged_by_the_background(encoder: Encoder) -> None:
    classifier = Classifier(encoder, of_names(WARM))
    judged = classifier.judge(encoder.encode_texts(["a red photo", "so much blue"]).vectors, "text")
    assert judged.origin == "background"
    assert judged.tags(0.5, multi=False) == [["red"], []]


def test_prompts_are_averaged_and_normalised_again(encoder: Encoder) -> None:
    labels = parse_label_set({"name": "x", "labels": [{"name": "warm", "prompts": ["red", "yellow", "a red photo"]}]})
    vectors = encoder.encode_texts(["red", "yellow", "a red photo"]).vectors
    mean = vectors.mean(axis=0)
    np.testing.assert_allclose(embed_labels(encoder, labels).labels[0], mean / np.linalg.norm(mean), rtol=1e-5)


def test_labels_are_embedded_once_for_a_model_and_set(encoder: Encoder) -> None:
    counting, cache = Counting(encoder), LabelCache(kept=2)
    first = Classifier(counting, of_names(WARM), cache=cache)
    embedded = counting.texts
    assert embedded > 0
    # How they are given is no matter of the vectors.
    Classifier(counting, of_names(WARM, multi=True), cache=cache)
    assert counting.texts == embedded
    other = Classifier(counting, of_names(["blue"]), cache=cache)
    assert counting.texts > embedded
    assert other.vectors.labels.shape[0] == 1
    Classifier(counting, of_names(["green"]), cache=cache)
    embedded = counting.texts
    again = Classifier(counting, of_names(WARM), cache=cache)  # it had to make room
    assert counting.texts > embedded
    np.testing.assert_array_equal(again.vectors.labels, first.vectors.labels)


def test_two_models_share_no_vectors(encoder: Encoder, tmp_path: Path) -> None:
    cache, other = LabelCache(), Encoder(load_bundle(make_bundle(tmp_path, "twisted", twist=0.5)))
    one, two = (cache.of(each, of_names(WARM)).labels for each in (encoder, other))
    assert not np.allclose(one, two)


def test_other_things_that_mean_a_label_are_none(encoder: Encoder) -> None:
    def embedded(texts: Sequence[str]) -> TextEmbeddings:
        """Every text has a direction of its own; "a dog" is also what a hound is."""
        rows = [crc32(text.replace("a photo of hound", "a dog").encode()) for text in texts]
        vectors = np.stack([np.random.default_rng(row).standard_normal(64) for row in rows]).astype(np.float32)
        return TextEmbeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), [False] * len(texts))

    fake = SimpleNamespace(fingerprint="x", manifest=encoder.manifest, encode_texts=embedded)
    assert len(embed_labels(fake, of_names(["zebra"], template="photo")).others) == len(OTHERS)
    assert len(embed_labels(fake, of_names(["hound"], template="photo")).others) == len(OTHERS) - 1


def test_the_stamp_names_what_decides(encoder: Encoder) -> None:
    def stamp(labels: LabelSet) -> str:
        return Classifier(encoder, labels).stamp

    assert stamp(of_names(WARM)) == stamp(of_names(WARM))
    others = [of_names(WARM, multi=True), of_names(WARM, template="none"), of_names(["red"])]
    assert len({stamp(each) for each in [of_names(WARM), *others]}) == 4


def test_vectors_of_another_model_are_refused(encoder: Encoder) -> None:
    with pytest.raises(InvalidVector):
        Classifier(encoder, of_names(WARM)).judge(np.ones((1, 3), np.float32), "image")


def test_what_a_models_logits_rest_on(encoder: Encoder) -> None:
    plain = encoder.manifest.model_copy(update={"calibration": {}})
    assert scale_of("image", encoder.manifest, 40) == Scale("model", BASE_RATE, 10, -8)
    siglip = plain.model_copy(update={"logit_scale": 110.0, "logit_bias": -16.0})
    assert scale_of("image", siglip, 40) == Scale("model", BASE_RATE, 110.0, -16.0)
    assert scale_of("text", siglip, 40).origin == "background"  # its loss compared texts with images alone
    own = Calibration(scale=1, bias=2, fitted_on="x")
    assert scale_of("text", plain.model_copy(update={"calibration": {"text_to_text": own}}), 40).slope == 1
    assert scale_of("image", plain, 40) == Scale("background", 1 / 41)


def test_clips_scale_makes_a_softmax_over_labels_and_other_things(encoder: Encoder) -> None:
    clip = encoder.manifest.model_copy(update={"calibration": {}, "logit_scale": 100.0})
    scale = scale_of("image", clip, 4)
    cosines = np.array([[0.30, 0.20]], np.float32)
    others = np.array([[0.2, 0.21, 0.19, 0.18]], np.float32)
    logits = scale.logits(cosines, others)
    whole = np.exp(100 * (np.concatenate([cosines[:, :1], others], axis=1) - 0.3))
    np.testing.assert_allclose(each_of(logits)[0][0, 0], whole[0, 0] / whole.sum(), rtol=1e-4)
    probabilities, none = one_of(logits, scale.base_rate)
    assert probabilities[0].argmax() == 0
    assert probabilities[0, 0] > 0.99
    _, none = one_of(scale.logits(np.array([[0.1, 0.12]], np.float32), others), scale.base_rate)
    assert none[0] > 0.95


def test_a_label_no_nearer_than_the_base_rate_leaves_none_at_one_half() -> None:
    logits = np.full((1, 4), np.log(BASE_RATE / (1 - BASE_RATE)), np.float32)
    probabilities, none = one_of(logits, BASE_RATE)
    assert none[0] == pytest.approx(0.5)
    np.testing.assert_allclose(probabilities, 0.125, rtol=1e-4)
