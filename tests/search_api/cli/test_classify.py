"""`crosslens classify`: pictures and texts with or without a collection, and labels written to a whole one."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.models.encoder import Encoder
from indexer.pipeline import ingest
from indexer.settings import Settings
from indexer.store import open_store
from search_api.cli.classify import classify
from tests.bundles import picture


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(classify, [str(each) for each in arguments])


def as_json(*arguments: str | Path) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def test_without_a_collection(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "r.png").write_bytes(picture("red"))
    (tmp_path / "b.png").write_bytes(picture("blue"))
    labels = ["--label", "red", "--label", "green"]
    answer = as_json(tmp_path / "r.png", tmp_path / "b.png", "--text", "a green photo", *labels)
    assert [each["tags"] for each in answer["results"]] == [["red"], [], ["green"]]
    assert answer["results"][1]["none"] > 0.9
    lines = run(tmp_path / "r.png", *labels).stdout.splitlines()
    assert lines[0].split("\t")[1] == "red"
    assert not settings.index_folder.exists()


def test_a_whole_collection_again_and_changed(settings: Settings, encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in ("red", "green", "blue"):
        (folder / f"{colour}.png").write_bytes(picture(colour))
    sets = tmp_path / "colour.yaml"
    sets.write_text("labels: [red, green]\n")
    with open_store(settings) as store:
        made = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        ingest([str(folder)], collection=made, encoder=encoder, settings=settings)

        def written(*more: str) -> tuple[int, int, int]:
            answer = as_json("--write", "--labels", *(more or (str(sets),)))
            return answer["version"], answer["written"], answer["unchanged"]

        assert written() == (1, 3, 0)
        assert written() == written("colour") == (1, 0, 3)
        sets.write_text("labels: [red, green, blue]\n")
        assert written() == (2, 3, 0)
        assert store.get("media").facet("labels.colour") == {"red": 1, "green": 1, "blue": 1}
        item = next(iter(made.scan()))
        answer = as_json("--item", item.id, "--labels", "colour")
        assert answer["results"][0]["tags"] == item.payload["labels"]["colour"]
        made.set_payload(item.id, {"labels": 1})
        done = run("--write", "--labels", sets)
        assert done.exit_code == 1
        assert "1 failed" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--text", "x"],
        ["--label", "a"],
        ["--label", "a", "--labels", "b.yaml", "--text", "x"],
        ["--label", "a", "--write"],
        ["--labels", "a.yaml", "--write", "--text", "x"],
        ["--labels", "a.yaml", "--multi", "--text", "x"],
    ],
)
def test_usage(settings: Settings, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
