"""The encoders that the API has in memory, one for each vector space."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from indexer.settings import Settings
from search_api.batched import BatchedEncoder

if TYPE_CHECKING:
    from indexer.models.encoder import Encoder
    from indexer.store.collection import Collection

SESSION_THREADS = 1
"""Per run: requests run beside each other, and one that takes every core makes all others wait."""


class Encoders:
    """Each is loaded when first needed. Thread-safe; close it after use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._open = ExitStack()
        self._models: dict[str, str] = {}
        """Fingerprints by model name."""
        self._encoders: dict[str, BatchedEncoder] = {}
        """By fingerprint."""
        self._certified: set[str] = set()
        """Fingerprints of encoders that gave all of their golden vectors."""

    def named(self, model: str) -> BatchedEncoder:
        """An installed bundle's encoder.

        Raises:
            BundleNotFound: it is not installed.
        """
        with self._lock:
            if model not in self._models:
                from indexer.models.encoder import load_encoder  # noqa: PLC0415

                encoder = load_encoder(self._settings, model, threads=SESSION_THREADS)
                self._models[model] = encoder.fingerprint
                if encoder.fingerprint not in self._encoders:
                    self._add(encoder)
            return self._encoders[self._models[model]]

    def of(self, collection: Collection) -> BatchedEncoder:
        """The encoder that a collection was filled with.

        Raises:
            ModelMismatch: its bundle is not installed here, or has other weights by the same name.
        """
        with self._lock:
            if collection.fingerprint not in self._encoders:
                from indexer.models.encoder import load_encoder_of  # noqa: PLC0415

                self._add(load_encoder_of(self._settings, collection.model, collection.fingerprint))
            return self._encoders[collection.fingerprint]

    def loaded(self) -> list[BatchedEncoder]:
        """Every encoder that is loaded."""
        with self._lock:
            return list(self._encoders.values())

    def check(self) -> None:
        """Compare the default model's golden vectors with this machine's: all once, after that those of a canary.

        Raises:
            ModelError: they differ, or the model does not run.
        """
        from indexer.models.golden import check_golden  # noqa: PLC0415

        encoder = self.named(self._settings.model)
        check_golden(encoder, canary=encoder.fingerprint in self._certified)
        self._certified.add(encoder.fingerprint)

    def warm_up(self) -> None:
        """Open what the default model's first request would otherwise wait for."""
        self.named(self._settings.model).warm_up()

    def devices(self) -> dict[str, str]:
        """Where the default model's towers run, those that are open."""
        with self._lock:
            fingerprint = self._models.get(self._settings.model)
            return self._encoders[fingerprint].devices if fingerprint else {}

    def close(self) -> None:
        """Stop the batchers and let go of the models."""
        with self._lock:
            self._open.close()
            self._models.clear()
            self._encoders.clear()
            self._certified.clear()

    def _add(self, encoder: Encoder) -> None:
        self._encoders[encoder.fingerprint] = self._open.enter_context(BatchedEncoder(encoder))
