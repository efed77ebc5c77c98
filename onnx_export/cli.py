"""`crosslens models build-bridge`: builds the built-in bundle."""

from __future__ import annotations

from pathlib import Path

import click

from indexer.errors import UsageError

_OUT = Path(__file__).resolve().parent.parent / "indexer" / "models" / "builtin" / "bridge"
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.option("--train", required=True, type=_FOLDER, help="The folder of flickr8k_features.npz.")
@click.option("--eval", "eval_folder", type=_FOLDER, help="A folder of captions.jsonl and its photos, to measure on.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=_OUT, help="The bundle's folder.")
def build_bridge(train: Path, eval_folder: Path | None, out: Path) -> None:
    """Build the built-in bundle `bridge` (minutes on two cores; needs the extra `export`)."""
    try:
        from onnx_export.bridge.build import build  # noqa: PLC0415  torch is loaded by who builds, nobody else
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Building needs {error.name}, which is not installed.", remedy="pip install 'crosslens[export]'"
        ) from error
    manifest = build(train, out, eval_folder=eval_folder, say=click.echo)
    click.echo(f"{manifest.name} {manifest.fingerprint}: {out}")
