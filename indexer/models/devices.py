"""Where graphs run: which devices there are, which is preferred, and what ONNX Runtime is told of each."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from indexer.errors import DeviceUnavailable, UsageError


class Kind(StrEnum):
    """A kind of device, in order of preference."""

    TENSORRT = "tensorrt"
    CUDA = "cuda"
    OPENVINO = "openvino"
    CPU = "cpu"


PROVIDERS = {
    Kind.TENSORRT: "TensorrtExecutionProvider",
    Kind.CUDA: "CUDAExecutionProvider",
    Kind.OPENVINO: "OpenVINOExecutionProvider",
    Kind.CPU: "CPUExecutionProvider",
}
"""ONNX Runtime's names."""

_DEVICE = re.compile(r"(tensorrt|cuda|openvino|cpu)(?::(\d{1,3}))?")


@dataclass(frozen=True)
class Device:
    """One device."""

    kind: Kind
    index: int = 0

    @property
    def name(self) -> str:
        """As people and settings write it: `cpu`, `cuda:0`."""
        return f"{self.kind}:{self.index}" if self.is_gpu else str(self.kind)

    @property
    def provider(self) -> str:
        """ONNX Runtime's execution provider."""
        return PROVIDERS[self.kind]

    @property
    def is_gpu(self) -> bool:
        """Whether inputs must travel to it, and every new shape costs it a preparation."""
        return self.kind in {Kind.TENSORRT, Kind.CUDA}


@dataclass(frozen=True)
class Plan:
    """Everything a session is opened with, beside its graph: devices in order of preference, and their limits."""

    candidates: tuple[tuple[Device, ...], ...]
    """Each a set of devices to share the work; the first that opens and answers rightly is used."""
    threads: int = 1
    gpu_memory: int | None = None
    """Bytes of GPU memory that a session may take."""
    engines: Path | None = None
    """Where TensorRT keeps the engines that it builds, which takes minutes."""

    def providers(self, device: Device) -> list[tuple[str, dict[str, Any]]]:
        """ONNX Runtime's providers and their options; what a GPU has no kernel for runs on the CPU."""
        limit = {} if self.gpu_memory is None else {"gpu_mem_limit": str(self.gpu_memory)}
        cuda = {
            "device_id": str(device.index),
            # Grow by what is asked for: doubling would take memory that other sessions need.
            "arena_extend_strategy": "kSameAsRequested",
            # The exhaustive search of the default takes seconds for every new shape.
            "cudnn_conv_algo_search": "HEURISTIC",
            **limit,
        }
        cpu: tuple[str, dict[str, Any]] = (PROVIDERS[Kind.CPU], {})
        match device.kind:
            case Kind.TENSORRT:
                tensorrt: dict[str, Any] = {"device_id": str(device.index), "trt_fp16_enable": "0"}
                if self.engines is not None:
                    tensorrt |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(self.engines)}
                return [(device.provider, tensorrt), (PROVIDERS[Kind.CUDA], cuda), cpu]
            case Kind.CUDA:
                return [(device.provider, cuda), cpu]
            case Kind.OPENVINO:
                options = {"device_type": "CPU", "num_of_threads": str(self.threads), "precision": "FP32"}
                return [(device.provider, options), cpu]
            case Kind.CPU:
                return [cpu]


def cpu_count() -> int:
    """The CPU cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose(wanted: str, available: Sequence[str]) -> tuple[tuple[Device, ...], ...]:
    """The candidates for a setting: `auto`, or devices by name with commas between (`cuda:0,cuda:1`).

    `available` are the execution providers that this ONNX Runtime was built with. `auto` gives every kind of them in
    order of preference, one device each; names give one candidate, all of them together.

    Raises:
        UsageError: the setting does not parse.
        DeviceUnavailable: a device was named whose provider is not there.
    """
    if wanted.strip().lower() == "auto":
        return tuple((Device(kind),) for kind in Kind if PROVIDERS[kind] in available and _is_installed(kind))
    devices = tuple(dict.fromkeys(_parse(name) for name in wanted.split(",")))
    for device in devices:
        if device.provider not in available:
            raise DeviceUnavailable(f"This ONNX Runtime cannot run on {device.name}: it has no {device.provider}.")
    return (devices,)


def without_tensorrt(candidates: Sequence[tuple[Device, ...]]) -> tuple[tuple[Device, ...], ...]:
    """The same candidates with CUDA in TensorRT's place, which takes minutes over each shape that it has not seen."""

    def other(device: Device) -> Device:
        return Device(Kind.CUDA, device.index) if device.kind is Kind.TENSORRT else device

    return tuple(dict.fromkeys(tuple(dict.fromkeys(map(other, devices))) for devices in candidates))


def _parse(name: str) -> Device:
    match = _DEVICE.fullmatch(name.strip().lower())
    if match is None:
        raise UsageError(
            f"{name.strip()!r} is no device.",
            remedy="Set CROSSLENS_DEVICE to auto, cpu, openvino, cuda, cuda:1, tensorrt, or several with commas.",
        )
    device = Device(Kind(match[1]), int(match[2] or 0))
    return device if device.is_gpu else Device(device.kind)


def _is_installed(kind: Kind) -> bool:
    """ONNX Runtime's GPU build names TensorRT whether or not the library is there."""
    return kind is not Kind.TENSORRT or importlib.util.find_spec("tensorrt") is not None
