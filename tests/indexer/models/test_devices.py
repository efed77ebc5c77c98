"""Devices by preference, and what ONNX Runtime is told of them."""

from pathlib import Path

import pytest

from indexer.errors import DeviceUnavailable, UsageError
from indexer.models.devices import PROVIDERS, Device, Kind, Plan, choose

ALL = list(PROVIDERS.values())


def names(wanted: str, available: list[str]) -> list[list[str]]:
    return [[device.name for device in devices] for devices in choose(wanted, available)]


def test_auto_prefers_the_fastest_that_is_there() -> None:
    # TensorRT is named by every GPU build; without its library it is left out.
    assert names("auto", ALL) == [["cuda:0"], ["openvino"], ["cpu"]]
    assert names("AUTO ", ["CPUExecutionProvider", "AzureExecutionProvider"]) == [["cpu"]]


def test_tensorrt_comes_first_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert names("auto", ALL)[0] == ["tensorrt:0"]


def test_devices_by_name_share_the_work() -> None:
    assert names("cuda:0, cuda:1,cuda:1", ALL) == [["cuda:0", "cuda:1"]]
    assert names("cpu", ALL) == [["cpu"]]
    assert names("openvino:3,CUDA", ALL) == [["openvino", "cuda:0"]]


@pytest.mark.parametrize("wanted", ["", "gpu", "cuda:x", "cuda:-1", "cpu,,cpu", "cuda:0;cuda:1", "cuda:99999"])
def test_what_is_no_device_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match="is no device") as caught:
        choose(wanted, ALL)
    assert "CROSSLENS_DEVICE" in caught.value.remedy


def test_a_device_that_this_runtime_cannot_use_is_refused_with_the_remedy() -> None:
    with pytest.raises(DeviceUnavailable, match="cuda:1") as caught:
        choose("cuda:1", ["CPUExecutionProvider"])
    assert "crosslens[gpu]" in caught.value.remedy


def test_limits_reach_the_provider() -> None:
    plan = Plan(((Device(Kind.CUDA, 1),),), threads=3, gpu_memory=2**31, engines=Path("engines"))
    (cuda, options), (cpu, _) = plan.providers(Device(Kind.CUDA, 1))
    assert (cuda, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options == {
        "device_id": "1",
        "gpu_mem_limit": str(2**31),
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    tensorrt, *rest = plan.providers(Device(Kind.TENSORRT))
    assert tensorrt[1]["trt_engine_cache_path"] == "engines"
    assert [name for name, _ in rest] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert plan.providers(Device(Kind.OPENVINO))[0][1]["num_of_threads"] == "3"
    assert "gpu_mem_limit" not in Plan(((Device(Kind.CUDA),),)).providers(Device(Kind.CUDA))[0][1]
