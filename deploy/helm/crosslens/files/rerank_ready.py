"""Whether the processes of this container that rerank have a model open, and none is still opening."""

import socket
import sys
from contextlib import suppress
from typing import Any

import redis
from pydantic import ValidationError

from indexer.settings import Settings
from workers.broker import redis_url
from workers.rerank.messages import WORKERS, Present

client: Any = redis.Redis.from_url(redis_url(Settings()), socket_timeout=5, socket_connect_timeout=5)
states = set()
try:
    # The scores are by when each ceases to be true, by Redis' own clock.
    for said in client.zrangebyscore(WORKERS, f"({client.time()[0]}", "+inf"):
        with suppress(ValidationError):
            worker = Present.model_validate_json(said)
            if worker.name.rsplit("-", 2)[0] == socket.gethostname():
                states |= {model.state for model in (worker.image, worker.text) if model}
except redis.RedisError as error:
    sys.exit(f"The queue does not answer: {error}")
sys.exit(None if "open" in states and "opening" not in states else "No model to rerank with is open.")
