"""Sessions that fail, devices that are not there or answer wrongly, and batches of every size."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from indexer.errors import DeviceUnavailable, EncoderFailed, GoldenMismatch
from indexer.models import sessions
from indexer.models.bundle import load_bundle
from indexer.models.devices import Device, Kind, Plan
from indexer.models.encoder import Encoder
from indexer.models.golden import check_golden
from indexer.models.load import LOAD, Load
from indexer.models.manifest import OUR_NAMES
from indexer.models.sessions import Tower, fill_bucket
from tests.bundles import SIZE

CPU = Device(Kind.CPU)
SECOND = Device(Kind.CPU, 1)
PIXELS = np.random.default_rng(0).random((5, 3, SIZE, SIZE), dtype=np.float32)


def tower(bundle: Path, *devices: Device) -> Tower:
    return Tower(bundle / "image.onnx", OUR_NAMES["image"], "fp32", Plan((devices,)), devices or (CPU,))


class Broken:
    """A session that was lost: every run fails."""

    def run(self, *_: object) -> Any:
        raise RuntimeError("the device fell off the bus")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every session that is opened."""
    there: list[str] = []
    real = sessions._Replica._open

    def noted(replica: Any) -> Any:
        there.append(replica._device.name)
        return real(replica)

    monkeypatch.setattr(sessions._Replica, "_open", noted)
    return there


def test_a_session_that_fails_is_rebuilt_once_and_the_run_answered(colours: Path, opened: list[str]) -> None:
    image = tower(colours)
    expected = image.run({"pixels": PIXELS})
    image._replicas[0]._session = Broken()  # type: ignore[assignment]
    with structlog.testing.capture_logs() as logs:
        assert np.array_equal(image.run({"pixels": PIXELS}), expected)
    assert opened == ["cpu", "cpu"]
    assert [entry["event"] for entry in logs] == ["session rebuilt"]


def test_a_device_that_stays_broken_costs_one_rebuild_and_ends_when_it_works_again(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tower(colours)
    replica = image._replicas[0]
    good = replica._session
    rebuilds: list[Broken] = []

    def rebuild(_: object) -> Broken:
        rebuilds.append(Broken())
        return rebuilds[-1]

    monkeypatch.setattr(sessions._Replica, "_open", rebuild)
    replica._session = Broken()  # type: ignore[assignment]
    for _ in range(3):
        with pytest.raises(EncoderFailed, match="fell off the bus") as caught:
            image.run({"pixels": PIXELS})
    assert len(rebuilds) == 1
    assert "restart" in caught.value.remedy
    replica._session = good
    assert image.run({"pixels": PIXELS}).shape[0] == 5
    replica._session = Broken()  # type: ignore[assignment]
    with pytest.raises(EncoderFailed):
        image.run({"pixels": PIXELS})
    assert len(rebuilds) == 2


def test_an_input_that_the_graph_refuses_is_no_reason_to_rebuild(colours: Path, opened: list[str]) -> None:
    image = tower(colours)
    with pytest.raises(EncoderFailed, match="refuses its input"):
        image.run({"pixels": np.zeros((1, 3, 2), np.float32)})
    assert opened == ["cpu"]


def test_several_devices_share_the_runs_of_all_graphs(colours: Path) -> None:
    image = tower(colours, CPU, SECOND)
    expected = image.run({"pixels": PIXELS})
    image._replicas[0]._session = Broken()  # type: ignore[assignment]
    with LOAD.least([CPU]):  # another graph's run
        assert np.array_equal(image.run({"pixels": PIXELS}), expected)


def test_a_run_goes_where_the_fewest_are_and_else_in_turn() -> None:
    load = Load()
    devices = (CPU, SECOND)
    with load.least(devices) as first, load.least(devices) as second, load.least(devices) as third:
        assert (first, second, third) == (0, 1, 0)
        with load.least(devices) as fourth:
            assert fourth == 1
    with load.least(devices) as one:
        pass
    with load.least(devices) as other:
        assert {one, other} == {0, 1}
    with suppress(EncoderFailed), load.least([CPU]):
        raise EncoderFailed("it failed")
    with load.least([CPU]), load.least([CPU, SECOND]) as beside:
        assert beside == 1
    assert not any(load._in_work.values())


@pytest.mark.parametrize(("count", "bucket"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (33, 64)])
def test_buckets_are_powers_of_two_filled_with_the_last_row(count: int, bucket: int) -> None:
    rows = np.arange(count * 2).reshape(count, 2)
    filled, own = fill_bucket({"a": rows, "b": rows + 1})
    assert own == count
    assert filled["a"].shape == (bucket, 2)
    assert np.array_equal(filled["a"][:count], rows)
    assert (filled["b"][count:] == rows[-1] + 1).all()


def test_bound_runs_give_what_plain_runs_give(colours: Path) -> None:
    image = tower(colours)
    replica = image._replicas[0]
    bound = sessions._BoundRuns(CPU)
    for count in (1, 4, 2, 4):
        feed = {"pixels": PIXELS[:count] * count}
        assert np.array_equal(bound.run(replica._session, feed, ["features"])[0], image.run(feed))
    assert len(bound._buffers) == 3  # one for each shape


def test_a_device_whose_libraries_do_not_load_is_passed_over(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Device(Kind.CUDA)
    # As ONNX Runtime does where CUDA does not load: the session opens, on the CPU.
    monkeypatch.setattr(Plan, "providers", lambda self, device: [("CPUExecutionProvider", {})])
    with pytest.raises(DeviceUnavailable, match="libraries did not load"):
        tower(colours, cuda)
    with structlog.testing.capture_logs() as logs:
        encoder = Encoder(load_bundle(colours), Plan(((cuda,), (CPU,))))
        encoder.encode_texts(["red"])
    assert encoder.devices == {"text": "cpu"}
    assert [entry["device"] for entry in logs] == ["cuda:0"]
    with pytest.raises(DeviceUnavailable):  # nothing else was allowed
        Encoder(load_bundle(colours), Plan(((cuda,),))).encode_texts(["red"])


class _Wrong(Tower):
    """A tower that computes something else on anything but the CPU."""

    def __init__(self, *arguments: Any) -> None:
        *others, devices = arguments
        super().__init__(*others, (CPU,) * len(devices))
        self.devices = devices

    def run(self, feed: Any) -> Any:
        features = super().run(feed)
        return features if self.devices == (CPU,) else np.roll(features, 1, axis=1)


def test_a_device_that_answers_wrongly_is_passed_over_or_refused(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.models.encoder.Tower", _Wrong)
    openvino = Device(Kind.OPENVINO)
    encoder = Encoder(load_bundle(colours), Plan(((openvino,), (CPU,))))
    with structlog.testing.capture_logs() as logs:
        check_golden(encoder)
    assert encoder.devices == {"image": "cpu", "text": "cpu"}
    assert all("gives other vectors here" in entry["reason"] for entry in logs)
    assert len(logs) == 2
    with pytest.raises(GoldenMismatch):
        Encoder(load_bundle(colours), Plan(((openvino,),))).encode_texts(["red"])


def test_warming_up_runs_every_batch_size_on_a_gpu(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Tower.run

    def noted(self: Tower, feed: Any) -> Any:
        sizes.append(len(next(iter(feed.values()))))
        return real(self, feed)

    monkeypatch.setattr(Tower, "run", noted)
    encoder = Encoder(load_bundle(colours))
    encoder.warm_up()
    assert sizes == [1, 1]
    monkeypatch.setattr(Tower, "is_gpu", True)
    encoder.warm_up(max_batch=8)
    assert sizes[2:] == [1, 2, 4, 8] * 2
