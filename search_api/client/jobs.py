"""Jobs: what the queue works on, as it was when it was asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from pydantic import PrivateAttr

from indexer.errors.remote import ApiError
from search_api.openapi import answers
from search_api.openapi.answers import JobFailure, JobFailures

if TYPE_CHECKING:
    from search_api.client.transport import Transport

OVER = frozenset({"done", "failed", "cancelled"})
_SHORTEST, _LONGEST = 0.1, 2.0
_PAGE = 1000


class Job(answers.Job):
    """A job as it was when it was read, and what can be asked of it."""

    _jobs: Jobs = PrivateAttr()

    def of(self, jobs: Jobs) -> Self:
        """The same, knowing whom to ask."""
        self._jobs = jobs
        return self

    @property
    def over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in OVER

    def refresh(self) -> Job:
        """As it is now."""
        return self._jobs.get(self.job)

    def wait(self, timeout: float | None = None) -> Job:
        """As it is once it is over.

        Raises:
            TimeoutError: it is not, after so many seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        job, pause = self, _SHORTEST
        while not job.over:
            if deadline is not None and time.monotonic() + pause > deadline:
                raise TimeoutError(f"The job {self.job} is {job.state}: {job.total} of {job.planned} items.")
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST)
            job = job.refresh()
        return job

    def failures(self) -> Iterator[JobFailure]:
        """Everything that failed."""
        return self._jobs.failures(self.job)

    def retry(self) -> Job:
        """A new job of what failed."""
        return self._jobs.retry(self.job)

    def cancel(self) -> Job:
        """End it, if it is not over."""
        return self._jobs.cancel(self.job)

    def events(self) -> Iterator[Job]:
        """It after each change, until it is over."""
        return self._jobs.events(self.job)


class _JobList(answers.Answer):
    jobs: list[Job]


class Jobs:
    """The jobs of a server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, limit: int = 100) -> list[Job]:
        """The newest, the newest first."""
        return [job.of(self) for job in self._transport.get(_JobList, "/v1/jobs", params={"limit": limit}).jobs]

    def get(self, job_id: str) -> Job:
        """One job."""
        return self._asked("GET", _path(job_id))

    def failures(self, job_id: str) -> Iterator[JobFailure]:
        """Everything that failed in a job, a page at a time."""
        offset = 0
        while True:
            page = self._transport.get(
                JobFailures, f"{_path(job_id)}/failures", params={"offset": offset, "limit": _PAGE}
            ).failures
            yield from page
            offset += len(page)
            if len(page) < _PAGE:
                return

    def retry(self, job_id: str) -> Job:
        """A new job of what failed in one."""
        return self._asked("POST", f"{_path(job_id)}/retry")

    def cancel(self, job_id: str) -> Job:
        """End a job; one that is over stays as it is."""
        return self._asked("POST", f"{_path(job_id)}/cancel")

    def events(self, job_id: str) -> Iterator[Job]:
        """A job after each change, until it is over; a stream that ends or breaks off before is asked for again."""
        before: dict[str, Any] = {}
        silent = 0
        while True:
            try:
                for job in self._streamed(job_id):
                    silent = 0
                    now = job.model_dump(exclude={"seconds", "items_per_second", "eta"})
                    if now != before:
                        before = now
                        yield job
                    if job.over:
                        return
            except ApiError as error:
                silent += 1
                if not error.details.get("broke_off") or silent > 3:
                    raise

    def _streamed(self, job_id: str) -> Iterator[Job]:
        with self._transport.stream("GET", f"{_path(job_id)}/events") as response:
            for line in response.iter_lines():
                # The server sends one `data` line an event (WHATWG HTML, 9.2.6).
                if line.startswith("data:"):
                    yield Job.model_validate_json(line.removeprefix("data:")).of(self)

    def submitted(self, path: str, sources: Sequence[str]) -> Job:
        """The job of sources that were handed in."""
        return self._asked("POST", path, json={"source": list(sources)})

    def _asked(self, method: str, path: str, **parts: Any) -> Job:
        return self._transport.ask(Job, method, path, **parts).of(self)


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
