"""`/v1/collections/{c}/classify` and `/v1/collections/{c}/labels`: what of some labels a picture or a text is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import numpy as np
from flask import Blueprint, Response, current_app, jsonify
from flask.blueprints import BlueprintSetupState
from pydantic import BaseModel, ConfigDict, Field, model_validator

from indexer.classify.classifier import Classifier, LabelCache
from indexer.classify.labels import Labels, LabelSet, SetName, Template, parse_label_set
from indexer.classify.stored import delete_label_set, label_set, label_sets, put_label_set
from indexer.errors import InvalidRequest, ItemNotFound, MediaError, TextsOnly
from indexer.flow import batched
from indexer.items import Modality, check_collection_name, from_payload, point_id
from search_api.bodies import form_json, is_form, json_body, named_files
from search_api.composing import naming
from search_api.request import WHOLE, Term, invalid_request
from search_api.services import services
from search_api.views import seen
from workers.classifying import LABELS_OF

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from indexer.store.collection import Collection
    from search_api.encoding import QueryEncoder

blueprint = Blueprint("classify", __name__, url_prefix="/v1/collections/<name>")

MOST_ITEMS = 64
MOST_URLS = 8
"""Of one request: each may keep it waiting for as long as fetching may take."""
_DECODED_AT_ONCE = 8
_CACHE = "crosslens.label_vectors"


class ClassifyRequest(BaseModel):
    """What is to be classified, and by which labels: those of a set of the collection's, or those named here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: Annotated[list[Term], Field(min_length=1, max_length=MOST_ITEMS)]
    """Each with a text, an image (base64, data URL, URL, or the name of an uploaded part), or the id of an item."""
    set: SetName | None = None
    labels: Labels | None = None
    template: Template | None = None
    """As in a label set, for `labels`."""
    multi: Annotated[bool, Field(strict=True)] | None = None
    """As in a label set, for `labels`."""
    threshold: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = None
    """The probability from which on a label is given; the set's when unset."""
    limit: Annotated[int, Field(ge=1, le=256, strict=True), WHOLE] = 10
    """How many labels are told of each item, the most probable ones."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.set is None) == (self.labels is None):
            raise ValueError("needs a set or labels, and not both")
        if self.set is not None and (self.template is not None or self.multi is not None):
            raise ValueError("has template or multi beside a set, which has its own")
        for item in self.items:
            if item.vector is not None or item.model_fields_set & {"weight", "template"}:
                raise ValueError("items have one of text, image and item each, and nothing else")
        if sum(isinstance(item.image, str) for item in self.items) > MOST_URLS:
            raise ValueError(f"has more than {MOST_URLS} images by URL")
        return self

    def label_set(self, collection: Collection) -> LabelSet:
        """The labels that were asked for."""
        if self.set is not None:
            found = label_set(collection, self.set).labels
        else:
            asked = {"template": self.template, "multi": self.multi}
            given = {key: value for key, value in asked.items() if value is not None}
            labels = [label.model_dump() for label in self.labels or ()]
            found = parse_label_set({"name": "labels", "labels": labels, **given})
        return found if self.threshold is None else found.model_copy(update={"threshold": self.threshold})


@blueprint.record
def _prepare(state: BlueprintSetupState) -> None:
    state.app.extensions[_CACHE] = LabelCache()


@blueprint.post("/classify")
def classify(name: str) -> Response:
    """Say how probable each label is, and none of them, for up to 64 pictures, texts and stored items.

    As JSON, or as a multipart form whose part `request` holds the JSON; without `items` in it, all other parts are
    classified.
    """
    started = time.perf_counter()
    collection = seen(name)
    request = _from_form() if is_form() else _parsed(json_body())
    encoder = services().encoders.of(collection)
    classifier = _classifier(collection, request.label_set(collection))
    vectors, modalities, warnings = _embedded(request.items, collection, encoder)
    results: list[dict[str, Any]] = [{} for _ in request.items]
    origins = {}
    labels = classifier.labels
    for kind in sorted(set(modalities)):
        rows = [row for row, modality in enumerate(modalities) if modality == kind]
        judged = classifier.judge(vectors[rows], kind)
        origins[kind] = judged.origin
        for at, (row, tags) in enumerate(zip(rows, judged.tags(labels.threshold, multi=labels.multi), strict=True)):
            best = np.argsort(-judged.probabilities[at], kind="stable")[: request.limit]
            results[row] = {
                "item": request.items[row].item,
                "tags": tags,
                "none": round(float(judged.none[at]), 4),
                "labels": [
                    {
                        "name": judged.names[each],
                        "probability": round(float(judged.probabilities[at, each]), 4),
                        "score": round(float(judged.cosines[at, each]), 6),
                    }
                    for each in best
                ],
            }
    warnings += [f"A prompt of {label!r} is longer than the model reads: cut." for label in classifier.vectors.cut]
    return jsonify(
        {
            "results": results,
            "multi": labels.multi,
            "threshold": labels.threshold,
            "probabilities_from": origins,
            "set": request.set,
            "version": label_set(collection, request.set).version if request.set else None,
            "took_ms": round((time.perf_counter() - started) * 1000, 2),
            "model": collection.model,
            "fingerprint": collection.fingerprint,
            "warnings": warnings,
        }
    )


@blueprint.get("/labels")
def list_label_sets(name: str) -> Response:
    """The label sets of a collection, by name."""
    collection = services().collection(check_collection_name(name))
    return jsonify({"sets": [kept.as_dict() for kept in label_sets(collection).values()]})


@blueprint.get("/labels/<label_set_name>")
def get_label_set(name: str, label_set_name: str) -> Response:
    """One label set, with its version."""
    return jsonify(label_set(services().collection(check_collection_name(name)), label_set_name).as_dict())


@blueprint.put("/labels/<label_set_name>")
def put_label_set_of(name: str, label_set_name: str) -> tuple[Response, int]:
    """Keep a label set: 201 when it is new. The same again is no change; a changed one has a new version: 200."""
    body = json_body()
    if not isinstance(body, dict) or body.get("name", label_set_name) != label_set_name:
        raise InvalidRequest(f"The body is no label set of the name {label_set_name[:64]!r}.", field="name")
    labels = parse_label_set({**body, "name": label_set_name})
    collection = services().collection(check_collection_name(name))
    is_new = label_set_name not in label_sets(collection)
    kept = put_label_set(services().store, collection, labels)
    return jsonify(kept.as_dict()), 201 if is_new else 200


@blueprint.delete("/labels/<label_set_name>")
def delete_label_set_of(name: str, label_set_name: str) -> tuple[str, int]:
    """Forget a label set; what it wrote to items stays."""
    delete_label_set(services().store, services().collection(check_collection_name(name)), label_set_name)
    return "", 204


@blueprint.post("/labels/<label_set_name>/apply")
def apply_label_set(name: str, label_set_name: str) -> tuple[Response, int, dict[str, str]]:
    """Queue a job that writes the set's labels to every item, from the stored vectors: 202 with the job.

    Items that have them from this version of the set are passed over.
    """
    collection = services().collection(check_collection_name(name))
    labels = label_set(collection, label_set_name).labels
    job = services().queue.submit(collection, [LABELS_OF + labels.name])
    return jsonify(job.as_dict()), 202, {"Location": f"/v1/jobs/{job.id}"}


def _classifier(collection: Collection, labels: LabelSet) -> Classifier:
    cache = cast(LabelCache, current_app.extensions[_CACHE])
    return Classifier(services().encoders.of(collection), labels, cache=cache)


def _parsed(body: Any, parts: dict[str, bytes] | None = None) -> ClassifyRequest:
    from pydantic import ValidationError  # noqa: PLC0415

    try:
        return ClassifyRequest.model_validate(body, context={"parts": parts or {}})
    except ValidationError as error:
        raise invalid_request(error) from error


def _from_form() -> ClassifyRequest:
    parts = named_files(apart_from="request")
    body = form_json("request")
    if isinstance(body, dict) and "items" not in body:
        body = {**body, "items": [{"image": part} for part in parts]}
    return _parsed(body, parts)


def _embedded(
    items: list[Term], collection: Collection, encoder: QueryEncoder
) -> tuple[NDArray[np.float32], list[Modality], list[str]]:
    """The vectors of what is to be classified, float32 (n, D), what each is, and what has to be said of them."""
    vectors = np.empty((len(items), collection.dimension), np.float32)
    modalities: list[Modality] = ["image"] * len(items)
    warnings = []
    if texts := [row for row, item in enumerate(items) if item.text is not None]:
        embedded = encoder.encode_texts([items[row].text or "" for row in texts])
        vectors[texts] = embedded.vectors
        for row, cut in zip(texts, embedded.truncated, strict=True):
            modalities[row] = "text"
            if cut:
                warnings.append(f"The text of items.{row} is longer than the model reads: its end was cut off.")
    contents = _contents({row: image for row, item in enumerate(items) if (image := item.image) is not None})
    for some in batched(contents, _DECODED_AT_ONCE):
        vectors[some] = _of_images({row: contents[row] for row in some}, encoder)
    if stored := {row: point_id(collection.name, item.item) for row, item in enumerate(items) if item.item is not None}:
        points = collection.points(list(set(stored.values())))
        for row, item_id in stored.items():
            if item_id not in points:
                raise ItemNotFound(f"The collection {collection.name!r} has no item {items[row].item!r}.")
            vectors[row] = points[item_id].vector
            modalities[row] = from_payload(points[item_id].payload)[0].kind.modality
    return vectors, modalities, warnings


def _contents(images: dict[int, bytes | str]) -> dict[int, bytes | MediaError]:
    """The images' bytes by the places of their items; those of URLs are fetched together."""
    urls = {row: image for row, image in images.items() if isinstance(image, str)}
    fetched = dict(zip(urls, services().fetch_all(list(urls.values())), strict=True)) if urls else {}
    return {row: image if isinstance(image, bytes) else fetched[row] for row, image in images.items()}


def _of_images(contents: dict[int, bytes | MediaError], encoder: QueryEncoder) -> NDArray[np.float32]:
    from indexer.media.decode import decode  # noqa: PLC0415  classifying texts never loads an image library
    from indexer.models.preprocess import decode_target  # noqa: PLC0415

    if encoder.manifest.pixels is None:
        raise TextsOnly(f"{encoder.manifest.name!r} embeds texts only.")
    target = decode_target(encoder.pixels)
    most = services().settings.max_pixels
    decoded = []
    for row, content in contents.items():
        with naming(f"items.{row}"):
            if isinstance(content, MediaError):
                raise content
            decoded.append(decode(content, target=target, max_pixels=most))
    return encoder.encode_images(decoded)
