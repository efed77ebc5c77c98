"""Whether a process of this container that embeds or reranks gave a sign of life lately: a worker has no port."""

import socket
import sys

import redis

from indexer.settings import Settings
from workers.app import EMBED_CPU, RERANK
from workers.broker import redis_url
from workers.jobs import Jobs

client = redis.Redis.from_url(redis_url(Settings()), socket_timeout=5, socket_connect_timeout=5)
try:
    living = Jobs(client).workers()
except redis.RedisError as error:
    sys.exit(f"The queue does not answer: {error}")
# A worker's name is its host, its process and a chance number; the queue of CPUs is everyone's who embeds.
here = [about for name, about in living.items() if name.rsplit("-", 2)[0] == socket.gethostname()]
working = any({EMBED_CPU, RERANK} & set(about["queues"]) for about in here)
sys.exit(None if working else "No worker of this container is alive.")
