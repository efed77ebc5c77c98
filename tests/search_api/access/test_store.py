"""Stores of keys, both kinds: what is written is read, by whoever asks; what is damaged lets nobody in."""

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from indexer.errors import KeyNotFound, KeysUnavailable
from indexer.settings import Settings
from search_api.access.keys import Key
from search_api.access.store import FileKeys, KeyStore, RedisKeys, open_keys
from tests.search_api.access.conftest import START, made


def test_keys_are_noted_changed_and_forgotten(store: KeyStore) -> None:
    assert store.all() == {}
    first, second = made(name="first"), made(name="second", collections=("a", "b*"))
    store.add(first)
    store.add(second)
    assert store.all() == {first.id: first, second.id: second}
    assert store.change(first.id, lambda key: key.revoke(START)).revoked == START
    assert store.all()[first.id].revoked == START
    store.touch(second.id, START + timedelta(hours=1))
    assert store.all()[second.id].used == START + timedelta(hours=1)
    store.change(second.id, lambda key: key.model_copy(update={"name": "other"}))
    assert store.all()[second.id].used == START + timedelta(hours=1)
    store.forget(second.id)
    assert store.all().keys() == {first.id}
    for ask in (lambda: store.forget(second.id), lambda: store.change("none", lambda key: key)):
        with pytest.raises(KeyNotFound):
            ask()


def test_nobodys_change_is_lost(store: KeyStore) -> None:
    key = made(name="0")
    store.add(key)

    def count(key: Key) -> Key:
        return key.model_copy(update={"name": str(int(key.name) + 1)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.change(key.id, count), range(80)))
    assert store.all()[key.id].name == "80"


def test_another_process_sees_them(tmp_path: Path, settings: Settings) -> None:
    alone = settings.model_copy(update={"workers": 0})
    key = made()
    open_keys(alone).add(key)
    code = (
        "import sys; from indexer.settings import Settings; from search_api.access.store import open_keys;"
        "print(*open_keys(Settings(workers=0)).all())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == key.id


def test_the_file_is_for_this_user_alone_and_replaced_as_a_whole(tmp_path: Path) -> None:
    store = FileKeys(tmp_path / "access")
    store.add(made())
    before = (tmp_path / "access" / "keys.json").stat()
    store.add(made())
    after = (tmp_path / "access" / "keys.json").stat()
    assert stat.S_IMODE(after.st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "access").stat().st_mode) == 0o700
    assert before.st_ino != after.st_ino
    assert sorted(path.name for path in (tmp_path / "access").iterdir()) == ["keys.json", "keys.lock"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"keys": 1, "used": {}}', '{"keys": {"a": "x"}, "used": {}}']
)
def test_a_damaged_file_is_no_empty_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(KeysUnavailable):
        FileKeys(tmp_path).all()
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_a_damaged_key_hides_no_other(valkey: redis.Redis) -> None:
    valkey.flushall()
    store = RedisKeys(valkey)
    key = made()
    store.add(key)
    valkey.hset("crosslens:keys", "damaged", "{")
    valkey.hset("crosslens:keys", "newer", '{"id": "newer", "roles": ["emperor"]}')
    assert store.all().keys() == {key.id}
    valkey.hdel("crosslens:keys", key.id)
    with pytest.raises(KeysUnavailable):
        store.all()


def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    away = open_keys(Settings(data=tmp_path, redis_url="redis://127.0.0.1:1/0"))
    for ask in (away.all, lambda: away.add(made()), lambda: away.forget("x"), lambda: away.touch("x", START)):
        with pytest.raises(KeysUnavailable):
            ask()
    with pytest.raises(KeysUnavailable):
        away.change("x", lambda key: key)


def test_settings_choose_the_store(tmp_path: Path) -> None:
    assert isinstance(open_keys(Settings(data=tmp_path, workers=0)), FileKeys)
    assert isinstance(open_keys(Settings(data=tmp_path, workers=1)), RedisKeys)
