"""The arrows between the packages, read from the source: who may import whom, and what stays out of the server."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("indexer", "workers", "search_api", "onnx_export")
ALLOWED = {
    "indexer": set(),
    "workers": {"indexer"},
    "search_api": {"indexer", "workers"},
    "onnx_export": {"indexer.models", "indexer.errors", "indexer.media", "indexer.cli", "indexer.settings"},
}
TRAINING = ("torch", "torchvision", "transformers", "open_clip", "sentence_transformers", "onnxscript", "onnx")


def imports(path: Path) -> Iterator[str]:
    """Every absolute module name that a source file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield from (f"{module}.{alias.name}" for alias in node.names)


def modules(package: str) -> list[Path]:
    """The source files of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def within(name: str, allowed: set[str]) -> bool:
    """Whether the module is one of those allowed, or inside one."""
    return any(name == module or name.startswith(module + ".") for module in allowed)


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_run_one_way(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if within(name, set(PACKAGES) - {package}) and not within(name, ALLOWED[package])
    ]
    assert found == []


@pytest.mark.parametrize("package", ["indexer", "workers", "search_api"])
def test_nothing_of_training_outside_the_exporter(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if within(name, set(TRAINING))
    ]
    assert found == []


def test_flask_in_the_library_serves_the_index_process_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("indexer")
        if path.parent.name != "edge"
        for name in imports(path)
        if within(name, {"flask", "werkzeug", "waitress"})
    ]
    assert found == []


def test_the_store_alone_speaks_qdrant_client_and_the_edge_alone_the_engine() -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("indexer")
        for name in imports(path)
        if (within(name, {"qdrant_edge"}) and "edge" not in path.parts)
        or (within(name, {"qdrant_client"}) and not {"edge", "store"} & set(path.parts))
    ]
    assert found == []


def test_the_command_line_starts_without_its_heavy_parts() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from indexer.cli import main;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "heavy = {'onnxruntime', 'qdrant_client', 'qdrant_edge', 'PIL', 'flask', 'tokenizers', 'torch'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_is_a_drawer() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for package in PACKAGES
        for path in modules(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert too_long == {}
