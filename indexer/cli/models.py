"""`crosslens models`: which bundles there are, and whether they compute what they should."""

from __future__ import annotations

import click

from indexer.cli import PluginGroup
from indexer.cli.options import common_options, print_json
from indexer.settings import Settings


@click.group(cls=PluginGroup, plugins="crosslens.commands.models")
def models() -> None:
    """List and verify the models (bundles) that are installed."""


@models.command(name="list")
@common_options(collection=False)
def list_models(settings: Settings, as_json: bool) -> None:
    """List the installed bundles."""
    from indexer.models.bundle import list_bundles  # noqa: PLC0415

    rows = [
        {
            "name": bundle.manifest.name,
            "description": bundle.manifest.description,
            "dimension": bundle.manifest.dimension,
            "precision": bundle.manifest.precision,
            "licence": bundle.manifest.licence,
            "fingerprint": bundle.manifest.fingerprint,
            "bytes": sum(file.size for file in bundle.manifest.files.values()),
            "folder": str(bundle.folder),
        }
        for bundle in list_bundles(settings)
    ]
    if as_json:
        print_json({"models": rows})
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("name", "dimension", "size", "licence", "fingerprint", "description", box=None, pad_edge=False)
    for row in rows:
        size = f"{row['bytes'] / 1e6:.0f} MB"  # type: ignore[operator]
        cells = (row["name"], row["dimension"], size, row["licence"], row["fingerprint"], row["description"])
        table.add_row(*map(str, cells))
    Console().print(table)


@models.command()
@click.argument("name", required=False)
@common_options(collection=False)
def verify(name: str | None, settings: Settings, as_json: bool) -> None:
    """Check a bundle's files by hash, and its answers on this machine by its golden vectors.

    NAME is a bundle's name or folder; the default model when left out.
    """
    from indexer.models.encoder import load_encoder  # noqa: PLC0415
    from indexer.models.golden import check_golden  # noqa: PLC0415

    encoder = load_encoder(settings, name)
    encoder.bundle.verify_files()
    report = check_golden(encoder)
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
