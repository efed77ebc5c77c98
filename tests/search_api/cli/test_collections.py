"""`crosslens collections`: the same on this machine and on a server, and nothing removed unasked."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.cli import main
from indexer.settings import Settings
from tests.search_api.conftest import Served, served  # noqa: F401  a fixture


def run(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["collections", *words], input=answer)


def as_json(*words: str) -> Any:
    done = run(*words, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


@pytest.fixture(params=["here", "there"])
def place(request: pytest.FixtureRequest, settings: Settings) -> list[str]:
    """Options that lead to an index."""
    if request.param == "here":
        return ["--data", str(settings.data)]
    served: Served = request.getfixturevalue("served")  # noqa: F811
    return ["--url", served.url, "--key", served.key]


def names(place: list[str]) -> list[str]:
    return [each["name"] for each in as_json("list", *place)["collections"]]


def test_a_collection_from_its_making_to_its_end(place: list[str]) -> None:
    made = as_json("create", "trips", "--field", "trip=keyword", "--field", "people[].age=integer", *place)
    assert made["fields"].items() >= {("trip", "keyword"), ("people[].age", "integer"), ("year", "integer")}
    assert as_json("create", "trips", *place) == made == as_json("show", "trips", *place)
    assert "trips" in names(place)
    declared = as_json("declare", "trips", "trip=keyword", "cost=float", *place)
    assert declared["fields"] == {**made["fields"], "cost": "float"}
    assert "  cost: float" in run("show", "trips", *place).stdout.splitlines()
    assert made["model"] in run("list", *place).stdout
    for answer in ("", "n\n"):
        kept = run("delete", "trips", *place, answer=answer)
        assert kept.exit_code == 2
        assert "0 items" in kept.stderr
        assert "--yes" in kept.stderr
    assert "trips" in names(place)
    assert run("delete", "trips", *place, answer="y\n").exit_code == 0
    assert "trips" not in names(place)


def test_what_is_not_there_is_not_made(place: list[str]) -> None:
    before = names(place)
    for words in (["show", "nope"], ["declare", "nope", "a=integer"], ["delete", "nope", "--yes"]):
        refused = run(*words, *place, "--json")
        assert refused.exit_code == 2
        assert "no collection 'nope'" in refused.stderr or "nothing in" in refused.stderr
    for field in ("a=word", "crosslens.kind=keyword", "year=keyword", "a b=keyword"):
        assert run("create", "nope", "--field", field, *place).exit_code == 2
    assert names(place) == before


def test_nothing_is_started_to_find_nothing(settings: Settings) -> None:
    assert as_json("list", "--data", str(settings.data)) == {"collections": []}
    assert not settings.index_folder.exists()


@pytest.mark.parametrize("field", ["trip", "=keyword", "trip=", ""])
def test_a_field_without_its_type_is_bad_usage(settings: Settings, field: str) -> None:
    refused = run("declare", "media", field, "--data", str(settings.data))
    assert refused.exit_code == 2
    assert "trip=keyword" in refused.stderr


def test_a_field_of_two_types_is_bad_usage(settings: Settings) -> None:
    refused = run("declare", "media", "a=keyword", "a=text", "--data", str(settings.data))
    assert refused.exit_code == 2
    assert "twice" in refused.stderr


def test_a_removal_is_confirmed_by_an_option(place: list[str]) -> None:
    as_json("create", "gone", *place)
    assert as_json("delete", "gone", "--yes", *place) == {"deleted": "gone"}
    assert "gone" not in names(place)
