"""Uploads on their way to a worker: it reads from the media store what another machine's API put there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.items import sha256_hex
from indexer.media.discover import Candidate
from indexer.media.originals import UPLOAD, Originals
from indexer.settings import Settings
from tests.bundles import picture
from tests.s3 import BUCKET, s3_server
from tests.workers.conftest import Cluster
from workers.job import State
from workers.references import from_reference, to_reference
from workers.runtime import Runtime

MEDIA = f"s3://{BUCKET}/media"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An object store that workers inherit."""
    with s3_server(monkeypatch):
        monkeypatch.setenv("CROSSLENS_MEDIA_URL", MEDIA)
        yield MEDIA


def test_a_reference_names_no_file_of_the_machine_that_made_it(settings: Settings, tmp_path: Path) -> None:
    found = Candidate(f"{UPLOAD}{'a' * 64}", tmp_path / "here", payload={"tag": "x"}, id="mine")
    assert from_reference(to_reference(found)) == Candidate(found.source, None, payload={"tag": "x"}, id="mine")


def test_a_worker_indexes_uploads_of_another_machine(
    store: str, cluster: Cluster, tmp_path: Path, settings: Settings
) -> None:
    api = Originals.of(Settings(data=tmp_path / "api", media_url=store))
    sources = [api.put(picture(colour)) for colour in ("red", "green", "blue")]
    missing, hostile = f"{UPLOAD}{'0' * 64}", f"{UPLOAD}../../etc/passwd"
    cluster.start_worker("plan")
    cluster.start_worker()
    job = cluster.wait(cluster.submit(*sources, missing, hostile))  # type: ignore[arg-type]
    assert (job.state, job.indexed, job.failed) == (State.DONE, 3, 2)
    failures = {each["source"]: each["code"] for each in cluster.jobs.failures(job.id)}
    assert failures == {missing: "media_gone", hostile: "media_gone"}
    with Runtime(settings) as runtime:
        found = runtime.store.get("media").by_sources(sources)
    assert {record.sha256 for _, record in found.values()} == {
        sha256_hex(picture(colour)) for colour in ("red", "green", "blue")
    }
    assert not settings.uploads_folder.exists()
