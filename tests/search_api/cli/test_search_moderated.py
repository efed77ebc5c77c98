"""`crosslens search` in a data folder whose collection has a policy."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.cli import main
from tests.bundles import picture

POLICY = """
name: colours
categories:
  - name: red
    action: block
    threshold: 0.5
    detectors:
      - {type: text, words: [forbidden], fields: [note]}
"""


@pytest.fixture
def data(tmp_path: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSLENS_MODEL", str(colours))
    photos = tmp_path / "photos"
    photos.mkdir()
    lines = []
    for colour in ("red", "blue"):
        (photos / f"{colour}.png").write_bytes(picture(colour))
        note = "forbidden" if colour == "red" else "fine"
        lines.append(json.dumps({"file": f"{colour}.png", "payload": {"note": note}}))
    (photos / "items.jsonl").write_text("\n".join(lines))
    (tmp_path / "policy.yaml").write_text(POLICY)
    data = tmp_path / "data"
    run("ingest", str(photos / "items.jsonl"), "--data", str(data), "--json")
    run("moderate", "policy", "set", str(tmp_path / "policy.yaml"), "--data", str(data))
    run("moderate", "rescan", "--data", str(data), "--json")
    return data


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def found(data: Path, *options: str) -> set[str]:
    answer = json.loads(run("search", "red", "--data", str(data), "--json", *options))
    return {Path(result["source"]).name for result in answer["results"]}


def test_what_is_withheld_is_found_by_asking_for_everything(data: Path) -> None:
    assert found(data) == {"blue.png"}
    assert found(data, "--everything") == {"red.png", "blue.png"}
    refused = CliRunner().invoke(main, ["search", "red", "--everything", "--url", "http://localhost:1"])
    assert refused.exit_code == 2
    assert "--url" in refused.output
