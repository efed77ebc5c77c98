"""What is particular to a Qdrant server: its version, how it keeps new collections, and what old ones have instead."""

from __future__ import annotations

import json
import re
from typing import Any

import structlog
from qdrant_client import models

from indexer.errors import CollectionNotFound, IndexUnavailable, ServerTooOld
from indexer.settings import Settings
from indexer.store.connection import Connection

# Metadata of collections came with 1.16. An older server drops it without a word, and with it the fingerprint that
# keeps the vectors of two models apart. Strict mode (1.13) and what else is used here are older.
OLDEST = (1, 16)
"""The least version of a server, major and minor."""
_log = structlog.get_logger("store")


def check_version(connection: Connection) -> None:
    """Ask a server for its version; log a warning if it is of a newer major version than this was written for.

    Raises:
        ServerTooOld: it is below `OLDEST`.
        IndexUnavailable: it does not answer, or is no Qdrant server.
    """
    try:
        version = connection.call(lambda client: client.info()).version
    except CollectionNotFound as error:
        raise IndexUnavailable(
            "What answers there is not Qdrant.", remedy="Set CROSSLENS_QDRANT_URL to a Qdrant server's HTTP API."
        ) from error
    found = re.match(r"v?(\d+)\.(\d+)", version)
    if found is None:
        _log.warning("the Qdrant server's version is not one that is known; going on", version=version)
        return
    major, minor = int(found[1]), int(found[2])
    if (major, minor) < OLDEST:
        raise ServerTooOld(
            f"The Qdrant server is version {version}; Crosslens needs {OLDEST[0]}.{OLDEST[1]} or newer, "
            "which keeps a collection's model beside its vectors.",
            version=version,
        )
    if major > OLDEST[0]:
        _log.warning(
            "the Qdrant server is of a newer major version than Crosslens was written for; going on",
            version=version,
            remedy="Should calls fail, upgrade Crosslens.",
        )


def creation(settings: Settings) -> dict[str, Any]:
    """How the server shall keep a new collection: arguments of `create_collection` beside vectors and metadata."""
    return {
        "shard_number": settings.qdrant_shards,
        "replication_factor": settings.qdrant_replicas,
        "write_consistency_factor": settings.qdrant_write_consistency,
        "quantization_config": _quantization(settings),
        # A filter over a field without a payload index would scan all points, on a machine that others share.
        "strict_mode_config": models.StrictModeConfig(
            enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
        ),
        "timeout": settings.qdrant_timeout,
    }


def _quantization(settings: Settings) -> models.ScalarQuantization | models.BinaryQuantization | None:
    # `always_ram`, not its successor `memory`, which 1.16 does not know.
    match settings.qdrant_quantization:
        case "int8":
            int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            return models.ScalarQuantization(scalar=int8)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        case "none":
            return None


def warn_of_differences(name: str, config: models.CollectionConfig, settings: Settings) -> None:
    """Log what a collection has other than the settings ask for, and how to change it; it is used as it is."""
    replicas = {"params": {"replication_factor": settings.qdrant_replicas}}
    new = _quantization(settings)
    quantization = {
        "quantization_config": "Disabled" if new is None else new.model_dump(mode="json", exclude_none=True)
    }
    for setting, there, asked_for, remedy in (
        (
            "CROSSLENS_QDRANT_SHARDS",
            config.params.shard_number,
            settings.qdrant_shards,
            "Only a new collection takes it: `crosslens migrate` this one elsewhere, delete it here, migrate it back.",
        ),
        (
            "CROSSLENS_QDRANT_REPLICAS",
            config.params.replication_factor,
            settings.qdrant_replicas,
            f"PATCH /collections/{name} {json.dumps(replicas)}, then copy the shards that are there with "
            f"POST /collections/{name}/cluster (replicate_shard).",
        ),
        (
            "CROSSLENS_QDRANT_QUANTIZATION",
            _name_of(config.quantization_config),
            settings.qdrant_quantization,
            f"PATCH /collections/{name} {json.dumps(quantization)}",
        ),
    ):
        if asked_for is not None and there != asked_for:
            _log.warning(
                "a collection differs from the settings; it is used as it is",
                collection=name,
                setting=setting,
                there=there,
                asked_for=asked_for,
                remedy=remedy,
            )


def _name_of(config: models.QuantizationConfig | None) -> str:
    """A collection's quantization as `qdrant_quantization` names it; kinds that it cannot ask for by Qdrant's name."""
    match config:
        case None:
            return "none"
        case models.ScalarQuantization():
            return str(config.scalar.type.value)
        case _:
            return type(config).__name__.removesuffix("Quantization").lower()
