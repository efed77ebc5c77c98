"""ONNX Runtime sessions: opened on a device, checked against the manifest's promise, rebuilt once when they fail."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from indexer.errors import DeviceUnavailable, EncoderFailed, InvalidBundle
from indexer.models.devices import Device, Kind, Plan
from indexer.models.load import LOAD
from indexer.models.manifest import Precision, TensorNames

Vectors = NDArray[np.float32]
Feed = Mapping[str, NDArray[Any]]

ATTENTION_MASK = "attention_mask"
"""The one input beside the first that a graph may take."""

_log = structlog.get_logger("encoder")

onnxruntime.set_default_logger_severity(4)  # what goes wrong is raised, too


@dataclass(frozen=True)
class Tensors:
    """What a graph must take, what it may, and what it must give."""

    inputs: frozenset[str]
    outputs: tuple[str, ...]
    optional: frozenset[str] = frozenset()


class Graph:
    """One graph of a bundle on one device or several: named inputs to its outputs. An input that it need not take, and
    does not, is left out.

    Thread-safe. A run goes to the device with the fewest in work, those of other graphs included.

    Raises:
        InvalidBundle: the graph does not load, or is not of the bundle's format.
        DeviceUnavailable: a device is not there, or its libraries do not load.
    """

    def __init__(
        self, path: Path, tensors: Tensors, precision: Precision, plan: Plan, devices: tuple[Device, ...]
    ) -> None:
        self.devices = devices
        self._replicas = [_Replica(path, tensors, precision, plan, device) for device in devices]

    @property
    def is_gpu(self) -> bool:
        """Whether its batches come in few sizes, the gaps filled."""
        return self.devices[0].is_gpu

    def compute(self, feed: Feed) -> list[NDArray[Any]]:
        """The graph's outputs, in the order in which they were asked for.

        Raises:
            EncoderFailed: the session failed, and again after it was rebuilt.
        """
        with LOAD.least(self.devices) as chosen:
            return self._replicas[chosen].run(feed)


class Tower(Graph):
    """A graph of an encoder: a batch of inputs to features, float32 (batch, dimension)."""

    def __init__(
        self, path: Path, names: TensorNames, precision: Precision, plan: Plan, devices: tuple[Device, ...]
    ) -> None:
        tensors = Tensors(frozenset({names.input}), (names.output,), optional=frozenset({ATTENTION_MASK}))
        super().__init__(path, tensors, precision, plan, devices)

    def run(self, feed: Feed) -> Vectors:
        """Features of one batch, as the graph gives them; an attention mask that it does not take is left out.

        Raises:
            EncoderFailed: the session failed, and again after it was rebuilt.
        """
        if self.is_gpu:
            feed, count = fill_bucket(feed)
        else:
            count = None
        return np.asarray(self.compute(feed)[0][:count], dtype=np.float32)


def fill_bucket(feed: Feed) -> tuple[Feed, int]:
    """A batch filled up to the next power of two with copies of its last row, and how many rows are its own.

    A GPU plans memory and kernels for every shape that it meets: few shapes keep both bounded.
    """
    count = len(next(iter(feed.values())))
    missing = (1 << (count - 1).bit_length()) - count if count else 0
    if not missing:
        return feed, count
    return {name: np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) for name, rows in feed.items()}, count


class _Replica:
    """A session on one device. A run that fails rebuilds it and is tried once more.

    While that does not help, each further run fails without another rebuild; a run that works ends this state. So one
    broken device costs one rebuild, not one a request, and readiness, which runs the model, says so.
    """

    def __init__(self, path: Path, tensors: Tensors, precision: Precision, plan: Plan, device: Device) -> None:
        self._path, self._tensors, self._precision, self._plan, self._device = path, tensors, precision, plan, device
        self._rebuilding = threading.Lock()
        self._failed = False
        self._bound = _BoundRuns(device) if device.is_gpu else None
        self._session = self._open()

    def _open(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._plan.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A plan of memory is kept for every shape seen, and texts come in every length.
        options.enable_mem_pattern = False
        if self._precision == "fp16":
            # The step above this one rewrites convolutions for the CPU, and crashes the process over some in fp16.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        # A spinning thread takes the core that decoding, or another request, could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._device.is_gpu:
            onnxruntime.preload_dlls()  # CUDA and cuDNN from their wheels, where they were installed so
        providers = self._plan.providers(self._device)
        try:
            # Its own way to fall back prints to the standard output, where a JSON document may be due.
            session = onnxruntime.InferenceSession(str(self._path), options, providers=providers, enable_fallback=0)
        except Exception as error:
            if self._device.kind is not Kind.CPU:
                raise DeviceUnavailable(f"{self._device.name} cannot be used: {str(error)[:300]}") from error
            raise InvalidBundle(f"{self._path} does not load: {error}") from error
        if session.get_providers()[0] != self._device.provider:  # it fell back, and only its log says so
            raise DeviceUnavailable(f"{self._device.name} cannot be used: its libraries did not load.")
        self._check(session)
        return session

    def _check(self, session: onnxruntime.InferenceSession) -> None:
        inputs = {value.name for value in session.get_inputs()}
        outputs = [value.name for value in session.get_outputs()]
        wanted = self._tensors
        if not set(wanted.outputs) <= set(outputs) or not wanted.inputs <= inputs <= wanted.inputs | wanted.optional:
            raise InvalidBundle(
                f"{self._path} takes {', '.join(sorted(inputs))} and gives {', '.join(outputs)}; "
                f"it should take {', '.join(sorted(wanted.inputs))} and give {', '.join(wanted.outputs)}."
            )
        self._inputs = inputs

    def run(self, feed: Feed) -> list[NDArray[Any]]:
        feed = {name: feed[name] for name in self._inputs}
        session = self._session
        try:
            given = self._run(session, feed)
        except InvalidArgument as error:  # the input is wrong, not the session
            raise EncoderFailed(f"{self._path.name} refuses its input: {error}") from error
        except Exception as error:  # noqa: BLE001  ONNX Runtime's errors share no base; this one is tried again
            given = self._run_again(session, feed, error)
        self._failed = False
        return given

    def _run_again(self, broken: onnxruntime.InferenceSession, feed: Feed, reason: Exception) -> list[NDArray[Any]]:
        message = f"{self._path.name} failed on {self._device.name}: {reason}"
        with self._rebuilding:
            if self._failed:
                raise EncoderFailed(message) from reason
            if self._session is broken:  # else another thread has rebuilt it meanwhile
                _log.warning("session rebuilt", graph=self._path.name, device=self._device.name, reason=str(reason))
                self._session = self._open()
        try:
            return self._run(self._session, feed)
        except Exception as again:
            self._failed = True
            raise EncoderFailed(message) from again

    def _run(self, session: onnxruntime.InferenceSession, feed: Feed) -> list[NDArray[Any]]:
        if self._bound is not None:
            return self._bound.run(session, feed, self._tensors.outputs)
        given: list[NDArray[Any]] = session.run(list(self._tensors.outputs), feed)
        return given


class _BoundRuns:
    """Runs with inputs in device memory that is kept, filled through pinned host memory where there is any.

    One buffer for each shape; buckets keep those few. Runs of one session go one after the other.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffers: dict[tuple[str, tuple[int, ...]], _Buffer] = {}
        self._lock = threading.Lock()

    def run(self, session: onnxruntime.InferenceSession, feed: Feed, outputs: Sequence[str]) -> list[NDArray[Any]]:
        with self._lock:
            binding = session.io_binding()
            for name, rows in feed.items():
                key = (name, rows.shape)
                if key not in self._buffers:
                    self._buffers[key] = _Buffer(rows.shape, rows.dtype, self._device)
                binding.bind_ortvalue_input(name, self._buffers[key].filled(rows))
            for output in outputs:
                binding.bind_output(output, "cpu")
            session.run_with_iobinding(binding)
            given: list[NDArray[Any]] = binding.copy_outputs_to_cpu()
            return given


class _Buffer:
    """Device memory of one shape, and the host memory that it is filled through."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: Device) -> None:
        self._pinned = _pinned(shape, dtype, device)
        self._staging: NDArray[Any] = np.empty(shape, dtype) if self._pinned is None else self._pinned.numpy()
        kind = "cuda" if device.is_gpu else "cpu"
        self._value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype.type, kind, device.index)

    def filled(self, rows: NDArray[Any]) -> onnxruntime.OrtValue:
        np.copyto(self._staging, rows)
        self._value.update_inplace(self._staging)
        return self._value


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any], device: Device) -> onnxruntime.OrtValue | None:
    """Host memory that the device copies from directly; None where ONNX Runtime offers none."""
    for each in onnxruntime.get_ep_devices():
        if each.ep_name == device.provider and each.ep_options.get("device_id", "0") == str(device.index):
            memory = each.memory_info(onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE)
            if memory is not None:
                return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype.type, memory_info=memory)
    return None
