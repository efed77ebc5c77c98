"""`crosslens models`: what is installed, what could be, and how a bundle from elsewhere gets here."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from indexer.cli import main
from indexer.models.catalog import known_models
from indexer.settings import Settings
from tests.bundles import make_bundle

COLUMNS = {"COLUMNS": "200"}


def run(*arguments: str) -> Result:
    return CliRunner(env=COLUMNS).invoke(main, ["models", *arguments])


def test_list_shows_what_is_installed_and_then_what_could_be(settings: Settings) -> None:
    make_bundle(settings.models_folder, name="clip-b32")
    shown = run("list")
    assert shown.exit_code == 0
    installed, known, _rerankers = shown.stdout.split("\n\n")
    assert [line.split()[0] for line in installed.splitlines()[1:]] == ["clip-b32", "bridge"]
    heading, _, *rows = known.splitlines()
    assert "crosslens models export NAME" in heading
    assert [row.split()[0] for row in rows] == [one.name for one in known_models() if one.name != "clip-b32"]
    assert "clip-l14 768 428 M MIT 45.7% 73.4%" in [" ".join(row.split()) for row in rows]
    assert "multilingual-clip 512 - Apache-2.0 - -" in [" ".join(row.split()) for row in rows]


def test_list_as_json_has_both(settings: Settings) -> None:
    document = json.loads(run("list", "--json").stdout)
    assert [model["name"] for model in document["models"]] == ["bridge"]
    assert document["models"][0]["towers"] == ["image", "text"]
    known = {model["name"]: model for model in document["known"]}
    assert known["siglip2-base"]["recall"]["flickr"] == 0.807
    assert known["siglip2-base"]["command"] == "crosslens models export siglip2-base"
    assert known["tinyclip-8m"]["recall"] is None


def test_a_manifest_gives_the_terminal_no_commands(settings: Settings) -> None:
    bundle = make_bundle(settings.models_folder)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["description"] = "\x1b[2J[bold]hidden"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    shown = run("list").stdout
    assert "\x1b" not in shown
    assert r"\x1b[2J[bold]hidden" in shown


def test_pull_installs_and_says_the_next_step(colours: Path, settings: Settings) -> None:
    pulled = run("pull", str(colours))
    assert pulled.exit_code == 0
    assert ": installed, " in pulled.stdout
    assert f"Next: crosslens ingest FOLDER --model colours --data {settings.data}" in pulled.stderr
    assert ": already there, " in run("pull", str(colours)).stdout
    assert run("verify", "colours").exit_code == 0


def test_pull_as_json(colours: Path, settings: Settings) -> None:
    pulled = run("pull", str(colours), "--json", "--name", "colours-2")
    document = json.loads(pulled.stdout)
    folder = settings.models_folder / "colours-2"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert document.pop("fingerprint")
    assert document == {
        "model": "colours-2",
        "folder": str(folder),
        "bytes": sum(file["size"] for file in manifest["files"].values()),
    }
    assert pulled.stderr == ""


def test_another_bundle_is_replaced_by_force(colours: Path, tmp_path: Path, settings: Settings) -> None:
    other = make_bundle(tmp_path, twist=0.5)
    run("pull", str(colours))
    refused = run("pull", str(other))
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert run("pull", str(other), "--force").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clip-b32"], "crosslens models export clip-b32"),
        (["nothing-here"], "is no folder"),
        (["http://example.com/x", "--sha256", "0" * 64], "only https://"),
    ],
)
def test_a_refusal_is_a_sentence_and_a_remedy(arguments: list[str], said: str, settings: Settings) -> None:
    refused = run("pull", *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert refused.stdout == ""


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(colours: Path, settings: Settings) -> None:
    start = "from indexer.cli import main; main()"
    command = [sys.executable, "-c", start, "models", "pull", str(colours), "--json"]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert piped.stderr == ""
    shutil.rmtree(settings.models_folder)
    master, terminal = pty.openpty()
    shown = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=terminal, text=True, check=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    bar = os.read(master, 1 << 16)
    os.close(master)
    assert b"kB" in bar
    assert json.loads(shown.stdout) == json.loads(piped.stdout)
