"""`crosslens classify`: what of some labels pictures, texts and stored items are; and labels for a whole collection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import EXIT_FAILURES, common_options, print_json, printable
from indexer.errors import CollectionNotFound
from indexer.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from indexer.classify.classifier import Classifier
    from indexer.classify.labels import LabelSet
    from indexer.classify.tagging import Tagged
    from indexer.items import Modality
    from indexer.models.encoder import Encoder
    from indexer.store import Collection, Store

_SHOWN = 5
_SHOWN_FAILURES = 10


@click.command()
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@click.option("--text", multiple=True, help="A text to classify; may be repeated.")
@click.option("--item", multiple=True, help="The id of an item of the collection; may be repeated.")
@click.option("--label", "names", multiple=True, help="A label; may be repeated.")
@click.option("--labels", "labels_from", metavar="FILE|SET", help="A label set: a JSON or YAML file, or a kept one.")
@click.option(
    "--template", default="ensemble", show_default=True, help="Prompts around --label: a set, or one with {}."
)
@click.option("--multi", is_flag=True, help="With --label: several labels may fit.")
@click.option("--write", is_flag=True, help="Keep the set of --labels, and write its labels to the whole collection.")
@common_options()
def classify(
    photos: tuple[Path, ...],
    text: tuple[str, ...],
    item: tuple[str, ...],
    names: tuple[str, ...],
    labels_from: str | None,
    template: str,
    multi: bool,
    write: bool,
    settings: Settings,
    as_json: bool,
) -> None:
    """Say which labels PHOTOS, texts and items have, how probably, and how probably none.

    \b
    crosslens classify cat.jpg --label cat --label dog
    crosslens classify --labels animals.yaml --write
    """
    if bool(names) == bool(labels_from):
        raise click.UsageError("Name the labels: --label cat --label dog, or --labels FILE.")
    if labels_from and multi:
        raise click.UsageError("--multi goes with --label; a label set says itself whether several may fit.")
    if write == bool(photos or text or item):
        raise click.UsageError("Say what to classify: photos, --text, --item, or the collection with --write.")
    if write and not labels_from:
        raise click.UsageError("--write needs a label set: --labels FILE, or the name of a kept one.")
    from indexer.classify.classifier import Classifier  # noqa: PLC0415  heavy

    with _opened(settings, needed=write or bool(item)) as (store, collection):
        labels = _labels(names, labels_from, template, multi, collection)
        classifier = Classifier(encoder := _encoder(settings, collection), labels)
        for cut in classifier.vectors.cut:
            click.echo(f"Note: a prompt of {printable(cut)!r} is longer than the model reads: cut.", err=True)
        if write and store is not None and collection is not None:
            _write(store, collection, classifier, as_json=as_json)
            return
        shown, vectors, kinds = _embedded(photos, text, item, encoder, collection, settings)
    results = _judged(classifier, shown, vectors, kinds)
    if as_json:
        print_json({"results": results, "model": encoder.name, "multi": labels.multi, "threshold": labels.threshold})
        return
    for result in results:
        best = [f"{printable(each['name'])} {each['probability']:.2f}" for each in result["labels"][:_SHOWN]]
        tags = ", ".join(map(printable, result["tags"])) or "-"
        click.echo("\t".join([printable(result["what"]), tags, f"none {result['none']:.2f}, {', '.join(best)}"]))


@contextmanager
def _opened(settings: Settings, *, needed: bool) -> Iterator[tuple[Store | None, Collection | None]]:
    """The index and the collection; neither where there is none and none is needed."""
    if settings.qdrant_url is None and not settings.index_folder.exists():
        if needed:
            raise CollectionNotFound(f"There is nothing in {settings.data} yet.")
        yield None, None
        return
    from indexer.store import open_store  # noqa: PLC0415

    with open_store(settings) as store:
        try:
            collection = store.get(settings.collection)
        except CollectionNotFound:
            if needed:
                raise
            collection = None
        yield store, collection


def _encoder(settings: Settings, collection: Collection | None) -> Encoder:
    from indexer.models.encoder import load_encoder, load_encoder_of  # noqa: PLC0415

    if collection is None:
        return load_encoder(settings)
    return load_encoder_of(settings, collection.model, collection.fingerprint)


def _labels(
    names: Sequence[str], labels_from: str | None, template: str, multi: bool, collection: Collection | None
) -> LabelSet:
    from indexer.classify.labels import of_names, read_label_set  # noqa: PLC0415
    from indexer.classify.stored import label_set  # noqa: PLC0415

    if labels_from is None:
        return of_names(names, template=template, multi=multi)
    path = Path(labels_from)
    if collection is None or path.suffix or path.exists():
        return read_label_set(path)
    return label_set(collection, labels_from).labels


def _embedded(
    photos: Sequence[Path],
    texts: Sequence[str],
    items: Sequence[str],
    encoder: Encoder,
    collection: Collection | None,
    settings: Settings,
) -> tuple[list[str], NDArray[np.float32], list[Modality]]:
    """What is classified, by its name here; its vectors, float32 (n, D); and what each is."""
    import numpy as np  # noqa: PLC0415

    from indexer.errors import ItemNotFound  # noqa: PLC0415
    from indexer.flow import batched  # noqa: PLC0415
    from indexer.items import from_payload, point_id  # noqa: PLC0415
    from indexer.media.decode import decode, read_file  # noqa: PLC0415
    from indexer.models.encoder import MAX_BATCH  # noqa: PLC0415
    from indexer.models.preprocess import decode_target  # noqa: PLC0415

    parts = []
    kinds: list[Modality] = ["image"] * len(photos)
    kinds += ["text"] * len(texts)
    for some in batched(photos, MAX_BATCH):
        contents = [read_file(path, max_bytes=settings.max_bytes) for path in some]
        target = decode_target(encoder.pixels)
        decoded = [decode(content, target=target, max_pixels=settings.max_pixels) for content in contents]
        parts.append(encoder.encode_images(decoded))
    if texts:
        parts.append(encoder.encode_texts(texts).vectors)
    if items and collection is not None:
        wanted = [point_id(collection.name, name) for name in items]
        points = collection.points(wanted)
        for name, item_id in zip(items, wanted, strict=True):
            if item_id not in points:
                raise ItemNotFound(f"The collection {collection.name!r} has no item {name!r}.")
            kinds.append(from_payload(points[item_id].payload)[0].kind.modality)
            parts.append(points[item_id].vector[None])
    return [*map(str, photos), *texts, *items], np.concatenate(parts), kinds


def _judged(
    classifier: Classifier, shown: Sequence[str], vectors: NDArray[np.float32], kinds: Sequence[Modality]
) -> list[dict[str, Any]]:
    import numpy as np  # noqa: PLC0415

    labels = classifier.labels
    results = []
    for what, vector, kind in zip(shown, vectors, kinds, strict=True):
        judged = classifier.judge(vector[None], kind)
        row = judged.probabilities[0]
        results.append(
            {
                "what": what,
                "tags": judged.tags(labels.threshold, multi=labels.multi)[0],
                "none": round(float(judged.none[0]), 4),
                "labels": [
                    {"name": judged.names[each], "probability": round(float(row[each]), 4)}
                    for each in np.argsort(-row, kind="stable")
                ],
                "probabilities_from": judged.origin,
            }
        )
    return results


def _write(store: Store, collection: Collection, classifier: Classifier, *, as_json: bool) -> None:
    from indexer.classify.stored import put_label_set  # noqa: PLC0415
    from indexer.classify.tagging import tag_collection  # noqa: PLC0415

    kept = put_label_set(store, collection, classifier.labels)
    started = time.perf_counter()
    try:
        with _progress(collection.count(), enabled=not as_json) as progress:
            done = tag_collection(store, collection, classifier, progress=progress)
    except KeyboardInterrupt:
        click.echo("Interrupted; the same command goes on from here.", err=True)
        raise
    seconds = time.perf_counter() - started
    if as_json:
        counts = {"total": done.total, "written": done.written, "unchanged": done.unchanged}
        answer = {"set": kept.labels.name, "version": kept.version, "field": kept.labels.target, **counts}
        print_json({**answer, "failed": len(done.failures), "failures": done.failures, "seconds": round(seconds, 3)})
    else:
        click.echo(
            f"{done.written} items labelled in {kept.labels.target!r} by {kept.labels.name!r} (version "
            f"{kept.version}), {done.unchanged} already were, {len(done.failures)} failed. {seconds:.1f} s.",
            err=True,
        )
        for failure in done.failures[:_SHOWN_FAILURES]:
            click.echo(f"  {printable(failure['source'])}: {printable(failure['message'])}", err=True)
    if done.failures:
        click.get_current_context().exit(EXIT_FAILURES)


@contextmanager
def _progress(total: int, *, enabled: bool) -> Iterator[Callable[[Tagged], None] | None]:
    """A bar on a terminal; nothing elsewhere."""
    import sys  # noqa: PLC0415

    if not enabled or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done.total)
