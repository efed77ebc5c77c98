"""The app that one writes in an afternoon: a flat FAISS index and a list of payloads behind Flask, served by waitress.

python -m bench.peers.faiss_flask FOLDER serves an index.
"""

# ruff: noqa: D102  the protocols in bench.peers say what the functions do

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from bench.peers import Filter, Floats, payloads
from bench.peers.http_json import Server


class FaissFlask:
    """The peer. A flat index is exact."""

    http = True

    def build(self, folder: Path, vectors: Floats) -> None:
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors))
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(index, str(folder / "index.faiss"))
        (folder / "payloads.json").write_text(json.dumps(list(payloads(len(vectors)))))

    def open(self, folder: Path) -> FlaskSearcher:
        return FlaskSearcher(folder)


class FlaskSearcher:
    """The app in a process of its own."""

    settings = ()

    def __init__(self, folder: Path) -> None:
        self._server = Server([sys.executable, "-m", "bench.peers.faiss_flask", str(folder)])
        self.pids = [self._server.pid]

    def use(self, setting: Any) -> None:
        raise ValueError(setting)

    def search(self, vector: Floats, k: int, only: Filter | None) -> list[int]:
        body = {"vector": vector.tolist(), "limit": k, "filter": dict([only]) if only else None}
        return [each["payload"]["number"] for each in self._server.post("/search", body)["results"]]

    def close(self) -> None:
        self._server.close()


def serve(folder: Path) -> None:
    """Serve until it is ended; the address is printed."""
    import flask
    import waitress

    index = faiss.read_index(str(folder / "index.faiss"))
    kept: list[dict[str, Any]] = json.loads((folder / "payloads.json").read_text())
    # Items of each value, found once: a filter then costs as little as it can.
    having: dict[tuple[str, int], list[int]] = {}
    for number, payload in enumerate(kept):
        for field in ("tenth", "hundredth"):
            having.setdefault((field, payload[field]), []).append(number)
    selectors = {key: faiss.IDSelectorBatch(np.asarray(numbers, np.int64)) for key, numbers in having.items()}
    app = flask.Flask(__name__)

    @app.post("/search")
    def search() -> flask.Response:
        asked = flask.request.get_json()
        only = next(iter((asked["filter"] or {}).items()), None)
        among = faiss.SearchParameters(sel=selectors[only]) if only else None
        scores, numbers = index.search(np.asarray([asked["vector"]], np.float32), asked["limit"], params=among)
        found = zip(numbers[0].tolist(), scores[0].tolist(), strict=True)
        return flask.jsonify(
            {"results": [{"id": number, "score": score, "payload": kept[number]} for number, score in found]}
        )

    server = waitress.create_server(app, host="127.0.0.1", port=0)
    print(json.dumps({"url": f"http://127.0.0.1:{server.effective_port}"}), flush=True)
    server.run()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
