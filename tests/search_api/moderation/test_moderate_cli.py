"""`crosslens moderate`, with the photos and the policy `neutral`, in the index of this machine."""

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from indexer.cli import main
from indexer.moderation.policy_file import read_policy
from indexer.moderation.trail import Trail
from tests.search_api.moderation.conftest import BASE, MEDIA, PHOTOS, Site
from tests.search_api.moderation.test_fit import ANIMALS, OTHERS, POLICY, texts
from tests.search_api.moderation.test_queries import WORDS

Run = Callable[..., Result]


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command on the site's data, with a trail of its own."""
    data = site.services.settings.data
    folder = Trail(data, "media").folder
    for path in folder.glob("*") if folder.exists() else ():
        path.unlink()
    monkeypatch.setenv("CROSSLENS_DATA", str(data))
    monkeypatch.setenv("LOGNAME", "ann")

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["moderate", *map(str, arguments)])

    return invoke


def done(result: Result) -> Result:
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def as_json(run: Run, *arguments: object) -> Any:
    return json.loads(done(run(*arguments, "--json")).stdout)


def test_check_judges_files_and_texts_and_stores_nothing(site: Site, run: Run) -> None:
    told = as_json(run, "check", MEDIA / "cat.jpg", MEDIA / "gravel.jpg", "a photo of a cat", "--policy", "neutral")
    assert [each["action"] for each in told["results"]] == ["block", "allow", "block"]
    assert told["policy"] == "neutral"
    lines = done(run("check", MEDIA / "cat.jpg", "--policy", "neutral")).stdout.splitlines()
    assert lines[0].split("\t")[1] == "block"
    assert "animals 0." in lines[0]
    assert site.actions() == {}


def test_check_goes_on_after_a_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    result = run(
        "check", tmp_path / "broken.jpg", MEDIA / "cat.jpg", "http://127.0.0.1/x.jpg", "--policy", "neutral", "--json"
    )
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [each.get("action") for each in told["results"]] == [None, "block", None]
    assert told["failed"] == 2
    assert told["results"][2]["error"]["code"] == "url_refused"
    assert run("check", "no/such/file.jpg", "--policy", "neutral").exit_code == 2
    assert run("check", MEDIA / "cat.jpg", "--policy", "none").exit_code == 2
    assert run("check").exit_code == 2


def test_check_by_the_collections_policy_or_the_starting_ones(site: Site, run: Run) -> None:
    assert as_json(run, "check", "a quiet street")["policy"] == "starting"
    site.put_policy()
    told = as_json(run, "check", MEDIA / "cat.jpg")
    assert (told["policy"], told["results"][0]["action"]) == ("neutral", "block")
    assert CliRunner().invoke(main, ["moderate", "check", "a cat", "--collection", "none"]).exit_code == 0


def test_policies_that_ship(run: Run, tmp_path: Path) -> None:
    listed = as_json(run, "policies")["policies"]
    assert {"neutral", "adult"} <= {each["name"] for each in listed}
    assert "neutral\tanimals, food, vehicles\t" in done(run("policies")).stdout
    path = tmp_path / "copy.yaml"
    path.write_text(done(run("policies", "show", "neutral")).stdout)
    assert read_policy(path).name == "neutral"
    assert as_json(run, "policies", "show", "neutral")["policy"]["name"] == "neutral"
    assert run("policies", "show", "none").exit_code == 2


def test_a_policy_is_set_shown_and_dropped(site: Site, run: Run, tmp_path: Path) -> None:
    assert run("policy", "show").exit_code == 2
    said = done(run("policy", "set", "neutral", "--reviewers", "2"))
    assert "number 1" in said.stdout
    assert "rescan" in said.stderr
    shown = done(run("policy", "show")).stdout
    path = tmp_path / "shown.yaml"
    path.write_text(shown)
    assert read_policy(path).version == as_json(run, "policy", "show")["version"]
    assert as_json(run, "policy", "set", path)["number"] == 1  # the same again
    assert as_json(run, "policy", "set", "neutral", "--queries")["reviewers"] == 2
    assert site.client.get(f"{BASE}/policy").get_json()["queries"]
    assert run("policy", "drop").exit_code == 2  # nobody said yes
    assert site.client.get(f"{BASE}/policy").status_code == 200
    done(run("policy", "drop", "--yes"))
    assert site.client.get(f"{BASE}/policy").status_code == 404
    assert [entry.what for entry in Trail(site.services.settings.data, "media").entries()] == ["policy"] * 3


def test_a_policy_with_mistakes_is_refused_with_all_of_their_lines(
    site: Site, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put_policy()
    path = tmp_path / "wrong.yaml"
    path.write_text("name: wrong\ncategories:\n  - name: a\n    action: hug\n    detectors: []\n    colour: red\n")
    result = run("policy", "set", path)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith(f"{path}:")]
    assert len(lines) == 3
    assert {int(line.removeprefix(f"{path}:").split(":")[0]) for line in lines} == {4, 5, 6}
    monkeypatch.setattr("sys.argv", ["crosslens", "--json"])
    assert json.loads(run("policy", "set", path, "--json").stdout)["error"]["code"] == "policy_invalid"
    assert run("policy", "set", tmp_path / "none.yaml").exit_code == 2
    assert site.client.get(f"{BASE}/policy").get_json()["name"] == "neutral"


def test_rescan_review_decide_undo_and_trail(site: Site, run: Run) -> None:
    site.upload(*PHOTOS)
    assert run("rescan").exit_code == 2
    done(run("policy", "set", "neutral"))
    first = as_json(run, "rescan")
    assert (first["total"], first["changed"]) == (len(PHOTOS), len(PHOTOS))
    assert as_json(run, "rescan")["changed"] == 0
    assert "0 changed" in done(run("rescan")).stderr

    waiting = as_json(run, "review")["items"]
    assert {"cat", "coffee", "rocket"} <= {each["id"] for each in waiting}
    assert done(run("review")).stdout.splitlines()[0].split("\t")[0] == waiting[0]["id"]
    assert "--after" in done(run("review", "--limit", "1")).stderr

    made = as_json(run, "decide", "cat", "coffee", "approve", "--note", "fine")["entries"]
    assert [(each["who"], each["note"], each["number"]) for each in made] == [("ann", "fine", 2), ("ann", "fine", 3)]
    assert (site.actions()["cat"], site.actions()["coffee"]) == ("allow", "allow")
    assert run("decide", "cat", "reject", "--who", "bob").exit_code == 2
    assert as_json(run, "decide", "cat", "reject", "--who", "bob", "--over", "--action", "quarantine")
    assert site.actions()["cat"] == "quarantine"
    assert done(run("undo", 3)).stdout.split("\t")[:2] == ["5", "undo"]
    assert site.actions()["coffee"] == "quarantine"
    assert run("undo", 3).exit_code == 2
    as_json(run, "decide", "gravel", "recategorise", "--category", "animals")
    assert site.actions()["gravel"] == "block"
    for wrong in (("approve", "--category", "animals"), ("recategorise",), ("reject", "--category", "none")):
        assert run("decide", "rocket", *wrong).exit_code == 2
    assert run("decide", "none", "approve").exit_code == 2

    lines = done(run("trail")).stdout.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 3, 4, 5, 6]
    rows = list(csv.DictReader(io.StringIO(done(run("trail", "--csv", "--by", "bob")).stdout)))
    assert [row["what"] for row in rows] == ["reject"]
    assert [each["number"] for each in as_json(run, "trail", "--item", "coffee")["entries"]] == [3, 5]
    assert "as it was written" in done(run("trail", "--check")).stdout
    path = Trail(site.services.settings.data, "media").folder / "trail.jsonl"
    path.write_text(path.read_text().replace("fine", "FINE", 1))
    altered = run("trail", "--check", "--json")
    assert altered.exit_code == 1
    assert json.loads(altered.stdout)["fault"]["number"] == 2


def test_fit_proposes_a_policy_and_draws(site: Site, run: Run, tmp_path: Path) -> None:
    site.put_policy(POLICY)
    items = [{"text": text, "id": text} for text in texts(ANIMALS) + texts(OTHERS)]
    assert site.client.post(f"{BASE}/items", json={"items": items}).status_code == 201
    done(run("decide", *texts(ANIMALS), "recategorise", "--category", "animals"))
    done(run("decide", *texts(OTHERS), "approve"))
    before = site.client.get(f"{BASE}/policy").get_json()
    out, pictures = tmp_path / "new" / "proposed.yaml", tmp_path / "curves"
    result = done(run("fit", "--precision", "0.8", "--picture", pictures, "--out", out))
    assert result.stdout.split("\t")[0] == "animals"
    assert "policy set" in result.stderr
    assert ElementTree.parse(pictures / "animals.svg").getroot().tag.endswith("svg")
    assert site.client.get(f"{BASE}/policy").get_json() == before
    told = as_json(run, "fit", "--precision", "0.8")
    assert read_policy(out).version == told["to"] != told["from"]
    assert as_json(run, "policy", "set", out)["version"] == told["to"]
    assert as_json(run, "rescan")["changed"] > 0


@pytest.mark.parametrize(
    "command",
    [(), ("check",), ("policies",), ("policies", "show"), ("policy",), ("policy", "show"), ("policy", "set"),
     ("policy", "drop"), ("rescan",), ("review",), ("decide",), ("undo",), ("trail",), ("fit",)],
)  # fmt: skip
def test_each_help_has_an_example(command: tuple[str, ...]) -> None:
    shown = done(CliRunner().invoke(main, ["moderate", *command, "--help"])).stdout
    assert f"crosslens {' '.join(('moderate', *command))}" in shown.partition("\n\n")[2]


@pytest.fixture
def address(site: Site) -> Iterator[str]:
    """The site over HTTP."""
    app = site.client.application
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_check_asks_a_server(site: Site, run: Run, address: str, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "words.json").write_text(json.dumps(WORDS))
    things = [MEDIA / "cat.jpg", "a photo of a cat", tmp_path / "broken.jpg", *[f"text {n}" for n in range(20)]]
    here = json.loads(run("check", *things, "--policy", "neutral", "--json").stdout)
    for judged in here["results"]:
        for category in judged.get("categories", {}).values():
            del category["score"]  # of interest to who writes policies
    there = run("check", *things, "--policy", "neutral", "--url", address, "--json")
    assert there.exit_code == 1
    assert json.loads(there.stdout) == here
    by_file = as_json(run, "check", "a swordfish", "--policy", tmp_path / "words.json", "--url", address)
    assert by_file["results"][0]["action"] == "block"
    site.put_policy(WORDS)
    in_force = as_json(run, "check", "a swordfish", "--collection", "media", "--url", address)
    assert in_force["policy"] == "words"
    refused = run("check", "a text", "--policy", "none", "--url", address)
    assert (refused.exit_code, "none" in refused.output) == (2, True)


def test_what_is_no_command_is_judged(run: Run) -> None:
    told = as_json(run, MEDIA / "cat.jpg", "a photo of a cat", "--policy", "neutral")
    assert [each["action"] for each in told["results"]] == ["block", "block"]
    misspelt = run("rescna")
    assert (misspelt.exit_code, "rescan" in misspelt.output) == (2, True)
