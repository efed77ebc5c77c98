"""The index process: one owner, leases, generations, and what is left after each is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from indexer.edge.client import Attached, attach
from indexer.errors import IndexUnavailable
from indexer.items import Location, Record, now, to_payload
from indexer.settings import Settings
from indexer.store import Point, open_store
from tests.waiting import until

SIZE = 16


def points(count: int, seed: int = 0) -> list[Point]:
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(count, SIZE)).astype(np.float32)
    made = []
    for number, vector in enumerate(vectors):
        record = Record(
            kind="text",
            sha256="0" * 64,
            locations=[Location(source=f"/{seed}/{number}")],
            bytes=1,
            media_type="text/plain",
            added_at=now(),
        )
        made.append(
            Point(str(uuid.UUID(int=(seed << 32) + number + 1)), vector, to_payload(record, {"number": number}))
        )
    return made


def pid_of(settings: Settings) -> int:
    return int(json.loads((settings.index_folder / "address.json").read_text())["pid"])


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def optimize(attached: Attached) -> None:
    url = f"{attached.url}/collections/c/optimize"
    httpx.post(url, json={}, headers={"api-key": attached.secret}, timeout=120).raise_for_status()


def optimize_in_vain(attached: Attached) -> None:
    with pytest.raises(httpx.HTTPError):
        optimize(attached)


def test_what_was_acknowledged_survives_sigkill(settings: Settings) -> None:
    with open_store(settings) as store:
        collection = store.create("c", "m", "f" * 16, SIZE)
        written = 0
        for seed in range(5):
            collection.upsert(points(40, seed))
            written += 40
            os.kill(pid_of(settings), signal.SIGKILL)
            assert collection.count() == written
        collection.upsert(points(40, 0))
        assert collection.count() == written


def test_a_second_owner_is_told_who_has_the_index(settings: Settings) -> None:
    with open_store(settings):
        command = [sys.executable, "-m", "indexer.edge", str(settings.index_folder.absolute()), "100"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 2
        assert f"belongs to process {pid_of(settings)}" in second.stderr


def test_it_ends_with_its_last_lease_however_that_ends(settings: Settings) -> None:
    hold = "import sys; from indexer.settings import Settings; from indexer.edge.client import attach; a = attach(Settings()); a.connect(); print('held', flush=True); sys.stdin.read()"
    owner = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"held\n"
    first = pid_of(settings)
    with open_store(settings) as store:
        owner.kill()
        owner.wait()
        store.create("c", "m", "f" * 16, SIZE).upsert(points(10))
        assert pid_of(settings) == first  # it stays for whoever is left
    until(lambda: gone(first))
    with open_store(settings) as store:
        assert store.get("c").count() == 10
        assert pid_of(settings) != first


def test_many_clients_starting_at_once_share_one(settings: Settings) -> None:
    pids = set()

    def use(number: int) -> None:
        with open_store(settings) as store:
            store.create("c", "m", "f" * 16, SIZE).upsert(points(10, number))
            pids.add(pid_of(settings))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(5)]
    with open_store(settings) as store:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get("c").count() == 50
    assert len(pids) == 1


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexUnavailable, match="cannot be used"):
        attach(Settings(data=tmp_path / "file"))


def test_a_generation_takes_over_with_the_writes_that_came_meanwhile(settings: Settings) -> None:
    attached = attach(settings)
    with open_store(settings, attached) as store:
        collection = store.create("c", "m", "f" * 16, SIZE)
        collection.upsert(points(3000))
        built = threading.Thread(target=optimize, args=(attached,))
        built.start()
        seed = 0
        while built.is_alive():  # write, change and remove while the next generation is built
            seed += 1
            collection.upsert(points(20, seed))
            collection.set_payload(points(1, seed)[0].id, {"changed": seed})
            collection.delete([points(2, seed)[1].id])
            assert len(collection.search(points(1)[0].vector, 5)) == 5
        built.join()
        folder = settings.index_folder / "collections" / "c"
        assert json.loads((folder / "collection.json").read_text())["generation"] == 2
        assert sorted(path.name for path in folder.iterdir()) == ["2", "collection.json"]
        assert seed > 0
        assert collection.count() == 3000 + 19 * seed
        changed = collection.get(points(1, seed)[0].id)
        assert changed is not None
        assert changed.payload == {"changed": seed}
        assert collection.search(points(1, 0)[0].vector, 1)[0].id == points(1, 0)[0].id
        os.kill(pid_of(settings), signal.SIGKILL)
        assert collection.count() == 3000 + 19 * seed
        assert collection.by_sources(["/0/7"])["/0/7"][0] == points(8)[7].id  # payload indexes came along


def test_a_killed_optimizing_child_leaves_the_generation_whole(settings: Settings) -> None:
    attached = attach(settings)
    with open_store(settings, attached) as store:
        collection = store.create("c", "m", "f" * 16, SIZE)
        collection.upsert(points(3000))
        process = psutil.Process(pid_of(settings))
        built = threading.Thread(target=optimize, args=(attached,))
        built.start()
        until(lambda: bool(process.children()))
        process.children()[0].kill()
        built.join()
        folder = settings.index_folder / "collections" / "c"
        assert json.loads((folder / "collection.json").read_text())["generation"] == 1
        assert sorted(path.name for path in folder.iterdir()) == ["1", "collection.json"]
        assert collection.count() == 3000
        optimize(attached)
        assert json.loads((folder / "collection.json").read_text())["generation"] == 2


def test_killed_while_building_it_starts_from_the_old_generation_and_no_child_is_left(settings: Settings) -> None:
    attached = attach(settings)
    with open_store(settings, attached) as store:
        collection = store.create("c", "m", "f" * 16, SIZE)
        collection.upsert(points(3000))
        process = psutil.Process(pid_of(settings))
        built = threading.Thread(target=optimize_in_vain, args=(attached,))
        built.start()
        until(lambda: bool(process.children()))
        child = process.children()[0].pid
        process.kill()
        built.join()
        until(lambda: gone(child))
        assert collection.count() == 3000
        assert sorted(path.name for path in (settings.index_folder / "collections" / "c").iterdir()) == [
            "1",
            "collection.json",
        ]


def test_it_builds_by_itself_when_enough_has_come(settings: Settings) -> None:
    with open_store(settings.model_copy(update={"optimize_after": 500})) as store:
        collection = store.create("c", "m", "f" * 16, SIZE)
        for seed in range(6):
            collection.upsert(points(200, seed))
        description = settings.index_folder / "collections" / "c" / "collection.json"
        until(lambda: json.loads(description.read_text())["generation"] > 1, 60)
        assert collection.count() == 1200


def test_the_secret_is_for_the_owner_of_the_folder_alone(settings: Settings) -> None:
    with open_store(settings):
        assert (settings.index_folder.stat().st_mode & 0o777) == 0o700
        assert ((settings.index_folder / "address.json").stat().st_mode & 0o777) == 0o600
        connections = psutil.Process(pid_of(settings)).net_connections()
        assert {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_who_goes_on_asking_after_the_end_is_refused_and_starts_no_other_process(settings: Settings) -> None:
    with open_store(settings) as store:
        collection = store.create("c", "m", "0" * 16, SIZE)
        collection.upsert(points(3))
        pid = pid_of(settings)
    until(lambda: gone(pid))
    shutil.rmtree(settings.data)
    asked = (store.ping, store.list, collection.count, lambda: collection.search(points(1)[0].vector, 1))
    for ask in (*asked, *asked):
        with pytest.raises(IndexUnavailable, match="closed"):
            ask()
    assert not settings.data.exists()
