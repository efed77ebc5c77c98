"""Traces: nothing at all where nobody collects them, and W3C's headers across any gap where somebody does."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from indexer import tracing
from indexer.logs import configure_logging
from indexer.pipeline import ingest
from indexer.settings import Settings
from indexer.stages import SECONDS, Histogram, Stages
from indexer.store import open_store
from tests.bundles import picture
from tests.collector import Collector, collecting

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
"""
"""As if the extra were not installed."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """This process traces, to here."""
    with collecting() as there:
        monkeypatch.setenv(ENDPOINT, there.url)
        assert tracing.start("tested")
        yield there
        tracing.stop()


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )


OFF: tuple[dict[str, str], ...] = (
    {},
    {ENDPOINT: " "},
    {ENDPOINT: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "True"},
    {ENDPOINT: "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
)


def test_off_nothing_of_it_is_imported_and_nothing_is_done() -> None:
    code = (
        "import os, sys, search_api.server, workers.process, workers.tasks, workers.submit, search_api.app\n"
        "from indexer import tracing\n"
        f"for environment in {OFF!r}:\n"
        "    os.environ |= environment\n"
        "    assert not tracing.start('x') and not tracing.is_on(), environment\n"
        "    for name in environment: del os.environ[name]\n"
        "s = tracing.span('a', job='b'); assert s is tracing.joined({'traceparent': 'x'})\n"
        "s.__enter__(); tracing.note(a=1); tracing.record('b', 0, 1); tracing.record_stages({'a': 1.0})\n"
        "assert tracing.carrier() == tracing.ids() == {}; tracing.stop()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert python(f"{WITHOUT}\n{code}").stdout.strip() == "[]"
    # Where it is installed, redis' client takes OpenTelemetry's metrics for its own ends; traces nobody does.
    assert not re.search(r"sdk\.trace|otlp", python(code).stdout)


def test_off_a_search_never_meets_it(settings: Settings) -> None:
    code = (
        "import sys; from indexer.settings import Settings; from search_api.app import create_app;"
        "from search_api.services import Services;"
        "settings = Settings(workers=0); services = Services(settings); client = create_app(settings, services).test_client();"
        "client.put('/v1/collections/media');"
        "item = {'items': [{'text': 'a red photo'}]};"
        "assert client.post('/v1/collections/media/items', json=item).status_code in (200, 201);"
        "found = client.post('/v1/collections/media/search', json={'query': [{'text': 'red'}]}).get_json();"
        "services.close();"
        "print(len(found['results']), [name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    *_, without = python(f"{WITHOUT}\n{code}").stdout.splitlines()
    *_, installed = python(code, **{ENDPOINT: ""}).stdout.splitlines()
    assert without == "1 []"
    assert installed.startswith("1 ")
    assert not re.search(r"sdk\.trace|otlp", installed)


@pytest.mark.parametrize(
    ("code", "environment", "remedy"),
    [
        (WITHOUT, {}, "crosslens[otel]"),
        ("", {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"}, "OTEL_"),
    ],
)
def test_what_hinders_it_is_said_once_and_hinders_nothing_else(
    code: str, environment: dict[str, str], remedy: str
) -> None:
    code = (
        f"{code}\nfrom indexer.logs import configure_logging; configure_logging('info')\n"
        "from indexer import tracing; assert not tracing.start('x'); assert tracing.carrier() == {}"
    )
    done = python(code, **{ENDPOINT: "http://127.0.0.1:1"}, **environment)
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["event"] == "no traces"
    assert remedy in json.loads(line)["remedy"]


def test_a_trace_goes_on_where_its_headers_arrive(collector: Collector) -> None:
    with tracing.span("begun", kind="producer", job="j1"):
        headers = tracing.carrier()
        ids = tracing.ids()
    with tracing.joined(headers), tracing.span("gone on", kind="consumer"):
        tracing.note(shard=3)
        assert tracing.ids()["trace_id"] == ids["trace_id"]
    with pytest.raises(LookupError), tracing.joined({}), tracing.span("another"):
        raise LookupError("of no interest")
    assert tracing.ids() == tracing.carrier() == {}
    tracing.stop()
    (begun,), (gone_on,), (another,) = map(collector.named, ("begun", "gone on", "another"))
    assert (begun.trace, begun.id, begun.parent) == (ids["trace_id"], ids["span_id"], "")
    assert (gone_on.trace, gone_on.parent) == (begun.trace, begun.id)
    assert another.trace != begun.trace
    assert [span.failed for span in (begun, gone_on, another)] == [False, False, True]
    assert {span.service for span in collector.spans} == {"tested"}
    assert (begun.attributes, gone_on.attributes) == ({"crosslens.job": "j1"}, {"crosslens.shard": 3})


def test_stages_that_are_over_lie_end_to_end(collector: Collector) -> None:
    with tracing.span("search"):
        tracing.record_stages({"encode": 30.0, "search": 5.0})
    tracing.stop()
    (whole,) = [span for span in collector.spans if not span.parent]
    (encode,), (search,) = collector.named("encode"), [span for span in collector.named("search") if span.parent]
    assert {encode.parent, search.parent} == {whole.id}
    assert (encode.end - encode.begin, search.end - search.begin) == (30_000_000, 5_000_000)
    assert encode.end == search.begin


def test_logs_name_the_trace_and_are_json_whoever_logs(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure_logging("info")
    with tracing.span("a"):
        ids = tracing.ids()
        structlog.get_logger("t").info("ours", n=1)
        logging.getLogger("lib").warning('theirs, with "quotes"\nand %s', "lines")
    structlog.get_logger("t").info("outside")
    ours, theirs, outside = map(json.loads, capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["n"], ours["trace_id"], ours["span_id"]) == ("ours", 1, *ids.values())
    assert (theirs["event"], theirs["logger"]) == ('theirs, with "quotes"\nand lines', "lib")
    assert theirs["trace_id"] == ids["trace_id"]
    assert "trace_id" not in outside


@given(st.text(), st.text())
def test_any_header_is_taken_and_what_is_none_begins_a_new_trace(parent: str, state: str) -> None:
    """Without a collector: what is read of headers does not depend on one."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    TraceContextTextMapPropagator().extract({"traceparent": parent, "tracestate": state})


def test_a_collector_that_is_away_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from indexer import tracing; assert tracing.start('x')\n"
        "with tracing.span('a'): pass\n"
        "tracing.stop(); assert not tracing.is_on()"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True, timeout=30, capture_output=True, env={**os.environ, ENDPOINT: "http://127.0.0.1:1"},
    )  # fmt: skip


@given(st.lists(st.floats(0, 1000)))
def test_a_histogram_counts_each_value_once_up_to_its_bound(values: list[float]) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.add(value)
    assert sum(histogram.counts) == len(values)
    for place, bound in enumerate(histogram.bounds):
        assert sum(histogram.counts[: place + 1]) == sum(value <= bound for value in values)
    assert histogram.sum == pytest.approx(sum(values))


def test_a_stage_is_measured_also_when_it_fails() -> None:
    stages = Stages()
    with pytest.raises(ValueError, match="no"), stages.timed("decode"):
        raise ValueError("no")
    assert stages.by_name["decode"].seconds.counts[0] == 1


def test_an_ingest_measures_and_traces_its_stages(collector: Collector, settings: Settings, encoder, tmp_path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(picture("red", mark=number))
    (tmp_path / "a.txt").write_text("a red photo\na blue photo\n")
    small = settings.model_copy(update={"batch_size": 4})
    with open_store(small) as store, tracing.span("whole"):
        collection = store.create("media", encoder.name, encoder.fingerprint, encoder.dimension)
        sources = [str(tmp_path / "*.png"), str(tmp_path / "a.txt")]
        report = ingest(sources, collection=collection, encoder=encoder, settings=small)
    assert (report.indexed, report.failed) == (7, 0)
    measured = {name: (sum(each.seconds.counts), each.sizes.sum) for name, each in report.stages.by_name.items()}
    assert measured["decode"] == (5, 5)
    assert measured["tokenize"][1] == 2
    assert measured["encode"][1] == measured["upsert"][1] == 7
    assert measured["upsert"][0] == 2  # batches of four
    tracing.stop()
    (whole,) = collector.named("whole")
    for name, (pieces, items) in measured.items():
        (span,) = collector.named(name)
        assert (span.parent, span.attributes["crosslens.pieces"], span.attributes["crosslens.items"]) == (
            whole.id, pieces, items,
        )  # fmt: skip
        assert whole.begin <= span.begin <= span.end <= whole.end
