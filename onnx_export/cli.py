"""`crosslens models export` and `build-bridge`: commands that need the extra `export`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from indexer.cli.options import common_options, print_json, printable
from indexer.errors import UsageError
from indexer.models.manifest import BUNDLE_NAME, MANIFEST_FILE, Precision
from indexer.settings import Settings

if TYPE_CHECKING:
    from onnx_export.export import Order
    from onnx_export.parity import Certificate
    from onnx_export.rerank.checkpoint import RerankCheckpoint
    from onnx_export.rerank.parity import RerankCertificate

_OUT = Path(__file__).resolve().parent.parent / "indexer" / "models" / "builtin" / "bridge"
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_UNKNOWN_LICENCE = "LicenseRef-unknown"


@click.command()
@click.argument("source")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), default="fp32", show_default=True,
              help="fp16 is for GPUs, int8 for CPUs.")  # fmt: skip
@click.option("--name", help="The bundle's name.  [from SOURCE and the precision]")
@click.option("--image-tower", metavar="SOURCE", help="Another checkpoint's image tower: for text students of a CLIP.")
@click.option("--licence", help="What the weights may be used under (SPDX).  [known for short names]")
@click.option("--bound", type=click.FloatRange(0, 1, min_open=True),
              help="Least cosine (of rerankers: rank correlation) with the reference, below fp32.")  # fmt: skip
@click.option("--sample", type=_FOLDER, help="Photos to measure the neighbours' agreement on.  [drawn pictures]")
@click.option("--force", is_flag=True, help="Replace a bundle of the same name.")
@common_options(collection=False)
def export(
    source: str,
    precision: str,
    name: str | None,
    image_tower: str | None,
    licence: str | None,
    bound: float | None,
    sample: Path | None,
    force: bool,
    settings: Settings,
    as_json: bool,
) -> None:
    """Make a verified bundle of a checkpoint, and install it.

    SOURCE is a short name (`crosslens models list`), a folder, open_clip:MODEL/TAG, open_clip:MODEL@FILE,
    transformers:NAME or sentence_transformers:NAME.
    """
    from indexer.models.catalog import Known, find_known  # noqa: PLC0415

    known = find_known(source)
    bundle_name = name or _bundle_name(source, precision)
    out = settings.models_folder / bundle_name
    if (out / MANIFEST_FILE).exists() and not force:
        raise UsageError(f"There is a bundle {bundle_name!r} already.", remedy="Give another --name, or --force.")
    named = known.source if known else source
    with _needs_extra():
        from onnx_export.export import Order  # noqa: PLC0415  torch is loaded by who exports, nobody else
        from onnx_export.rerank.parity import RerankCertificate  # noqa: PLC0415
        from onnx_export.rerank.sources import reranker_of  # noqa: PLC0415

        order = Order(
            name=bundle_name,
            precision=cast(Precision, precision),
            licence=licence or (known.licence if known else _UNKNOWN_LICENCE),
            description=known.note if known else f"Exported from {named}.",
            bound=bound,
            sample=sample,
        )
        _say(f"Reading {named}")
        certificate: Certificate | RerankCertificate
        if load := reranker_of(named):
            if image_tower or sample:
                raise UsageError(f"{source} is a reranker.", remedy="Leave --image-tower and --sample to encoders.")
            certificate = _make_reranker(load, order, out)
        else:
            images = known.image_source if isinstance(known, Known) else None
            certificate = _make_encoder(named, image_tower or images, order, out)
    if as_json:
        print_json({"model": bundle_name, "folder": str(out), "certificate": certificate.as_dict()})
        return
    if isinstance(certificate, RerankCertificate):
        _show_reranker(certificate)
        next_step = _search_command(bundle_name, certificate.reads)
    else:
        _show(certificate)
        collection = re.sub(r"[^a-z0-9]+", "-", bundle_name)
        next_step = f"crosslens ingest FOLDER --model {bundle_name} --collection {collection}"
    if order.licence == _UNKNOWN_LICENCE:
        click.echo("Note: nothing is known of the weights' licence; --licence puts it into the bundle.", err=True)
    data = "" if settings.data == Settings.model_fields["data"].default else f" --data {settings.data}"
    click.echo(f"{bundle_name} is in {out}. Next:")
    click.echo(f"  {next_step}{data}")


@click.command()
@click.option("--train", required=True, type=_FOLDER, help="The folder of flickr8k_features.npz.")
@click.option("--eval", "eval_folder", type=_FOLDER, help="A folder of captions.jsonl and its photos, to measure on.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=_OUT, help="The bundle's folder.")
def build_bridge(train: Path, eval_folder: Path | None, out: Path) -> None:
    """Build the built-in bundle `bridge` (minutes on two cores; needs the extra `export`)."""
    with _needs_extra():
        from onnx_export.bridge.build import build  # noqa: PLC0415
    manifest = build(train, out, eval_folder=eval_folder, say=click.echo)
    click.echo(f"{manifest.name} {manifest.fingerprint}: {out}")


@contextmanager
def _needs_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"This needs {error.name}, which is not installed.", remedy="pip install 'crosslens[export]'"
        ) from error


def _make_encoder(source: str, image_source: str | None, order: Order, out: Path) -> Certificate:
    from onnx_export.export import export as make  # noqa: PLC0415
    from onnx_export.sources import load_checkpoint, with_images_of  # noqa: PLC0415

    checkpoint = load_checkpoint(source)
    if image_source:
        _say(f"Reading the image tower of {image_source}")
        checkpoint = with_images_of(checkpoint, load_checkpoint(image_source))
    return make(checkpoint, order, out, _say)


def _make_reranker(load: Callable[[], RerankCheckpoint], order: Order, out: Path) -> RerankCertificate:
    from onnx_export.rerank.export import export as make  # noqa: PLC0415

    return make(load, order, out, _say)


def _bundle_name(source: str, precision: str) -> str:
    last = re.split(r"[:/@]", source.rstrip("/"))
    base = "-".join(last[-2:] if source.startswith("open_clip:") and "@" not in source else last[-1:])
    name = re.sub(r"[^a-z0-9._-]+", "-", base.lower()).strip("-._")[:50]
    name = name if precision == "fp32" else f"{name}-{precision}"
    if not re.fullmatch(BUNDLE_NAME, name):
        raise UsageError(f"{source!r} makes no name for a bundle.", remedy="Give one with --name.")
    return name


def _say(message: str) -> None:
    click.echo(f"{message} ...", err=True)


def _show(certificate: Certificate) -> None:
    """The certificate as a table on a terminal or in a pipe."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("tower", "golden input", "cosine", box=None, pad_edge=False)
    rows: list[tuple[Any, ...]] = [("image", *row) for row in certificate.images.items()]
    rows += [("text", *row) for row in certificate.texts.items()]
    for tower, golden, cosine in rows:
        table.add_row(tower, printable(golden[:48]) or "(empty)", f"{cosine:.6f}")
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    click.echo(
        f"Agrees with {certificate.reference}, from file bytes to vectors, in {certificate.precision}: "
        f"{certificate.bound} was required."
    )
    if certificate.overlap:
        shares = ", ".join(
            f"{share:.1%} {direction.replace('_', ' ')}" for direction, share in certificate.overlap.items()
        )
        click.echo(f"Of the ten nearest neighbours in fp32 it keeps {shares} ({certificate.sample}).")


def _show_reranker(certificate: RerankCertificate) -> None:
    graphs, kept, bounds = certificate.graphs, certificate.kept, certificate.bounds
    click.echo(
        f"Agrees with {certificate.reference}, from file bytes to scores, in {certificate.precision}, over "
        f"{certificate.pairs} pairs: scores differ by {graphs.difference:.1g} at most ({bounds.graphs:g} was allowed), "
        f"their ranks correlate at {graphs.rank:.5f} ({bounds.rank:g} was required)."
    )
    if certificate.reads == "pictures":
        click.echo(f"With pictures' features kept in half precision: by {kept.difference:.1g}, at {kept.rank:.5f}.")


def _search_command(name: str, reads: Literal["pictures", "texts"]) -> str:
    """The search that uses the bundle: one of another name than the usual must be named."""
    field = {"pictures": "reranker", "texts": "text_reranker"}[reads]
    usual = name == Settings.model_fields[field].default
    return f'{"" if usual else f"CROSSLENS_{field.upper()}={name} "}crosslens search "WORDS" --rerank'
