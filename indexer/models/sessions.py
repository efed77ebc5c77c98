"""ONNX Runtime sessions, opened when first used and checked against what the manifest promises."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from indexer.errors import InvalidBundle


def cpu_count() -> int:
    """The CPU cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Tower:
    """One graph of a bundle: named inputs to `features`, float32 (batch, dimension). Thread-safe.

    Raises:
        InvalidBundle: the graph does not load, or is not of the bundle's format.
    """

    def __init__(self, path: Path, *, inputs: set[str], optional: frozenset[str] = frozenset(), threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning thread takes the core that decoding, or another request, could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InvalidBundle(f"{path} does not load: {error}") from error
        self.inputs = {value.name for value in self._session.get_inputs()}
        outputs = [value.name for value in self._session.get_outputs()]
        if outputs != ["features"] or not inputs <= self.inputs <= inputs | optional:
            raise InvalidBundle(
                f"{path} takes {', '.join(sorted(self.inputs))} and gives {', '.join(outputs)}; "
                f"it should take {', '.join(sorted(inputs))} and give features."
            )

    def run(self, feed: dict[str, NDArray[np.float32] | NDArray[np.int64]]) -> NDArray[np.float32]:
        """Features of one batch, as the graph gives them; inputs that the graph does not take are left out."""
        features = self._session.run(["features"], {name: feed[name] for name in self.inputs})[0]
        return np.asarray(features, dtype=np.float32)
