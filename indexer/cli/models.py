"""`crosslens models`: which bundles there are, where more come from, and whether they compute what they should."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from indexer.cli import PluginGroup
from indexer.cli.options import common_options, print_json, printable
from indexer.settings import Settings

if TYPE_CHECKING:
    from indexer.models.bundle import Bundle, Published
    from indexer.models.catalog import Known, KnownReranker
    from indexer.models.rerank.bundle import RerankBundle
    from indexer.models.rerank.manifest import RerankManifest


@click.group(cls=PluginGroup, plugins="crosslens.commands.models")
def models() -> None:
    """List, install and verify models (bundles)."""


@models.command(name="list")
@common_options(collection=False)
def list_models(settings: Settings, as_json: bool) -> None:
    """List the installed bundles, and known models that are not installed."""
    from indexer.models.bundle import list_bundles  # noqa: PLC0415
    from indexer.models.catalog import known_models, known_rerankers  # noqa: PLC0415
    from indexer.models.rerank.bundle import list_rerank_bundles  # noqa: PLC0415

    bundles, rerankers = list(list_bundles(settings)), list(list_rerank_bundles(settings))
    installed = {bundle.manifest.name for bundle in bundles} | {bundle.manifest.name for bundle in rerankers}
    known = [model for model in known_models() if model.name not in installed]
    known_more = [model for model in known_rerankers() if model.name not in installed]
    if as_json:
        print_json(
            {
                "models": [_as_dict(bundle) for bundle in bundles],
                "known": [_as_known_dict(one) for one in known],
                "rerankers": [_as_reranker_dict(bundle) for bundle in rerankers],
                "known_rerankers": [_as_known_dict(one) for one in known_more],
            }
        )
        return
    _print_table(
        ("name", "dimension", "size", "licence", "fingerprint", "description"),
        [
            (
                bundle.manifest.name,
                bundle.manifest.dimension,
                f"{_size(bundle) / 1e6:.0f} MB",
                bundle.manifest.licence,
                bundle.manifest.fingerprint,
                bundle.manifest.description + ("" if "image" in bundle.manifest.towers else " Texts only."),
            )
            for bundle in bundles
        ],
    )
    if known:
        click.echo(
            "\nNot installed; crosslens models export NAME makes one. (R@1 from text to image is as published; "
            "--json names where.)"
        )
        _print_table(
            ("name", "dimension", "parameters", "licence", "COCO R@1", "Flickr R@1"),
            [
                (
                    one.name,
                    one.dimension,
                    "-" if one.parameters_millions is None else f"{one.parameters_millions:.0f} M",
                    one.licence,
                    _percent(one.recall.coco if one.recall else None),
                    _percent(one.recall.flickr if one.recall else None),
                )
                for one in known
            ],
        )
    _print_rerankers(rerankers, known_more)


def _print_rerankers(bundles: Sequence[RerankBundle], known: Sequence[KnownReranker]) -> None:
    columns = ("name", "reads", "size", "licence", "description")
    if bundles:
        click.echo("\nRerankers, which search --rerank uses.")
        rows = [
            (each.name, _reads(each), f"{_size(bundle) / 1e6:.0f} MB", each.licence, each.description)
            for bundle in bundles
            for each in (bundle.manifest,)
        ]
        _print_table(columns, rows)
    if known:
        click.echo("\nRerankers that are not installed; crosslens models export NAME makes one.")
        _print_table(
            ("name", "reads", "parameters", "licence"),
            [(one.name, one.reads, f"{one.parameters_millions:.0f} M", one.licence) for one in known],
        )


def _as_dict(bundle: Bundle) -> dict[str, object]:
    return {
        "name": bundle.manifest.name,
        "description": bundle.manifest.description,
        "dimension": bundle.manifest.dimension,
        "towers": bundle.manifest.towers,
        "precision": bundle.manifest.precision,
        "licence": bundle.manifest.licence,
        "fingerprint": bundle.manifest.fingerprint,
        "bytes": _size(bundle),
        "folder": str(bundle.folder),
    }


def _as_reranker_dict(bundle: RerankBundle) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "description": manifest.description,
        "reads": _reads(manifest),
        "precision": manifest.precision,
        "licence": manifest.licence,
        "fingerprint": manifest.fingerprint,
        "bytes": _size(bundle),
        "folder": str(bundle.folder),
    }


def _reads(manifest: RerankManifest) -> str:
    return "pictures" if manifest.pixels else "texts"


def _as_known_dict(known: Known | KnownReranker) -> dict[str, object]:
    return {**known.model_dump(mode="json"), "command": f"crosslens models export {known.name}"}


def _size(bundle: Published[Any]) -> int:
    return sum(file.size for file in bundle.manifest.files.values())


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        # A manifest comes from elsewhere: what it says is neither markup nor a command to the terminal.
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    Console().print(table)


@models.command()
@click.argument("source")
@click.option("--sha256", metavar="HEX", help="The sha256 of its manifest.json; a local folder needs none.")
@click.option("--name", help="Install it under another name.")
@click.option("--force", is_flag=True, help="Replace what is installed under the name.")
@common_options(collection=False)
def pull(source: str, sha256: str | None, name: str | None, force: bool, settings: Settings, as_json: bool) -> None:
    """Install a ready bundle from a folder, from the https:// URL of one, or from a model hub (hf:org/name[@revision]).

    Nothing is installed before every file is as published and the golden vectors come out right on this machine.
    """
    from indexer.models.manifest import Manifest  # noqa: PLC0415
    from indexer.models.pull import pull as run  # noqa: PLC0415

    with _progress() as progress:
        pulled = run(source, settings=settings, sha256=sha256, name=name, force=force, progress=progress)
    manifest = pulled.manifest
    if as_json:
        print_json(
            {
                "model": manifest.name,
                "fingerprint": manifest.fingerprint,
                "folder": str(pulled.folder),
                "bytes": _size(pulled),
            }
        )
        return
    there = "already there" if pulled.already_there else "installed"
    click.echo(f"{manifest.name} ({manifest.fingerprint}): {there}, {pulled.folder}")
    data = "" if settings.data == Settings.model_fields["data"].default else f" --data {settings.data}"
    if isinstance(manifest, Manifest):
        click.echo(f"Next: crosslens ingest FOLDER --model {manifest.name}{data}", err=True)
    else:
        click.echo(f"Next: crosslens search TEXT --rerank{data}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar of bytes on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn  # noqa: PLC0415

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


@models.command()
@click.argument("name", required=False)
@common_options(collection=False)
def verify(name: str | None, settings: Settings, as_json: bool) -> None:
    """Check a bundle's files by hash, and its answers on this machine by its golden vectors, a reranker's by scores.

    NAME is a bundle's name or folder; the default model when left out.
    """
    from indexer.models.bundle import RERANK, find_folder, task_of  # noqa: PLC0415

    if task_of(find_folder(name or settings.model, settings)) == RERANK:
        _verify_reranker(name or settings.model, settings, as_json=as_json)
    else:
        _verify_encoder(name, settings, as_json=as_json)


def _verify_reranker(name: str, settings: Settings, *, as_json: bool) -> None:
    from indexer.models.rerank.bundle import find_rerank_bundle  # noqa: PLC0415
    from indexer.models.rerank.golden import check_golden_pairs  # noqa: PLC0415
    from indexer.models.rerank.loading import load_any  # noqa: PLC0415

    bundle = find_rerank_bundle(name, settings)
    bundle.verify_files()
    reranker = load_any(bundle, settings)
    report = check_golden_pairs(reranker)
    manifest = bundle.manifest
    if as_json:
        print_json(
            {
                "model": manifest.name,
                "fingerprint": manifest.fingerprint,
                "verified": True,
                "task": manifest.task,
                "difference": {"worst": report.worst, "allowed": manifest.golden_error},
                "inputs": {"matching": report.matching, "contrastive": report.contrastive},
                "devices": reranker.devices,
            }
        )
        return
    click.echo(f"{manifest.name} ({manifest.fingerprint}): {len(manifest.files)} files are as published.")
    where = ", ".join(f"{graph} on {device}" for graph, device in reranker.devices.items())
    click.echo(
        f"Golden scores ({len(report.matching)} texts; {where}): they differ by {report.worst:.2g} at most; "
        f"{manifest.golden_error:.2g} is allowed."
    )


def _verify_encoder(name: str | None, settings: Settings, *, as_json: bool) -> None:
    from indexer.models.encoder import load_encoder  # noqa: PLC0415
    from indexer.models.golden import check_golden  # noqa: PLC0415

    encoder = load_encoder(settings, name)
    encoder.bundle.verify_files()
    report = check_golden(encoder)
    certificate = _certificate(encoder.bundle)
    if as_json:
        cosines = {"image": report.image, "text": report.text, "required": encoder.manifest.golden_cosine}
        print_json(
            {
                "model": encoder.name,
                "fingerprint": encoder.fingerprint,
                "verified": True,
                "cosine": cosines,
                "inputs": {"images": report.images, "texts": report.texts},
                "devices": encoder.devices,
                "certificate": certificate,
            }
        )
        return
    click.echo(f"{encoder.name} ({encoder.fingerprint}): {len(encoder.manifest.files)} files are as published.")
    worst = [
        f"{cosine:.6f} for {what}" for what, cosine in (("images", report.image), ("texts", report.text)) if cosine
    ]
    where = ", ".join(f"{tower} on {device}" for tower, device in encoder.devices.items())
    click.echo(
        f"Golden vectors ({len(report.images)} images, {len(report.texts)} texts; {where}): worst cosine "
        f"{', '.join(worst)}; {encoder.manifest.golden_cosine} is required."
    )
    if certificate:
        click.echo(
            printable(f"The golden vectors are those of {certificate['reference']}, given when it was exported.")
        )
    for direction, share in (certificate.get("overlap") or {}).items():
        click.echo(f"Of the ten nearest neighbours in fp32 it keeps {share:.1%}, {direction.replace('_', ' ')}.")


def _certificate(bundle: Bundle) -> dict[str, Any]:
    """The parity certificate that an exported bundle carries; nothing for others."""
    from indexer.errors import InvalidBundle  # noqa: PLC0415
    from indexer.models.manifest import CERTIFICATE_FILE  # noqa: PLC0415

    if CERTIFICATE_FILE not in bundle.manifest.files:
        return {}
    try:
        certificate: dict[str, Any] = json.loads(bundle.path(CERTIFICATE_FILE).read_bytes())
        return {"reference": str(certificate["reference"]), "overlap": dict(certificate["overlap"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidBundle(f"The certificate of {bundle.manifest.name!r} does not parse: {error}.") from error
