"""A client for Python programs that ask a Crosslens server over HTTP.

    from search_api.client import Crosslens, File, Text

    with Crosslens("http://localhost:8000", key="clk_...") as client:
        client.upload("cat.jpg", Text("a text about cats", id="cats"))
        for result in client.search("a cat", limit=5):
            print(result.id, result.relevance)

It needs httpx and pydantic alone: neither Flask nor a model nor the index is loaded.
"""

from indexer.errors.remote import ApiError, ServerUnreachable
from search_api.client.crosslens import Crosslens
from search_api.client.jobs import Job
from search_api.client.searching import Found
from search_api.client.uploads import File, Text

__all__ = ["ApiError", "Crosslens", "File", "Found", "Job", "ServerUnreachable", "Text"]
