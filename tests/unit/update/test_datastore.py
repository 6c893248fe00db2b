"""The real datastore: copied before a trial, put back after it, and what was written is told."""

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controlplane.store.base import Compacted
from controlplane.store.sqlite import SqliteStore
from node.update import kept
from node.update.base import InstallError
from node.update.snapshot import Datastore


def body(kind: str, name: str, **more: Any) -> bytes:
    metadata = {"namespace": "default", "name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
    content = {"metadata": metadata, "apiVersion": "v1", "kind": kind, "status": {"x": 1}}
    return json.dumps(content | more).encode()


def key(name: str) -> str:
    return f"/core/configmaps/default/{name}"


@pytest.fixture
def data(tmp_path: Path) -> Datastore:
    made = Datastore(tmp_path)
    (tmp_path / "server" / "manifests").mkdir(parents=True)
    return made


async def write(data: Datastore, **values: bytes | None) -> dict[str, bytes]:
    """Keys to values, None to delete; all that is there then."""
    store = await SqliteStore.open(data.path)
    for name, value in values.items():
        found = await store.get(key(name))
        if value is None:
            assert found is not None
            await store.delete(key(name), expected=found.revision)
        elif found is not None:
            await store.update(key(name), value, expected=found.revision)
        else:
            await store.create(key(name), value)
    items = (await store.range("/core/")).items
    await store.close()
    return {item.key.rpartition("/")[2]: item.value for item in items}


async def test_a_trial_is_undone_and_what_it_wrote_is_listed(data: Datastore) -> None:
    before = await write(
        data, same=body("ConfigMap", "same"), old=body("ConfigMap", "old"), gone=b"[1]"
    )
    taken = data.take("one")
    assert taken is not None
    assert taken.schema == 1
    await write(
        data,
        new=body("Secret", "new"),
        old=body("ConfigMap", "old", data={"a": "b"}),
        gone=None,
    )
    told = data.restore("one", "v2-1")
    assert await write(data) == before
    folder = data.kept / "v2-1"
    assert told.count == 3
    assert "created Secret default/new" in told.note
    assert [str(w) for w in kept.read_list(folder)] == [
        "deleted configmaps gone",
        "created Secret default/new",
        "changed ConfigMap default/old",
    ]
    objects = json.loads((folder / "objects.json").read_text())["items"]
    assert [item["metadata"]["name"] for item in objects] == ["new", "old"]
    assert objects[1]["data"] == {"a": "b"}
    assert "uid" not in objects[0]["metadata"]
    assert "status" not in objects[0]
    assert (folder / "objects.json").stat().st_mode & 0o777 == 0o600


async def test_revisions_go_on_behind_the_trials_and_watchers_must_list_anew(
    data: Datastore,
) -> None:
    await write(data, a=body("ConfigMap", "a"))
    data.take("one")
    store = await SqliteStore.open(data.path)
    seen = 0
    for number in range(5):
        seen = await store.create(key(f"t{number}"), body("ConfigMap", "t"))
    await store.create("/core/events/default/e", b"{}", volatile=True)
    newest = store.statistics().revision
    await store.close()
    data.restore("one", "v2-1")
    again = await SqliteStore.open(data.path)
    try:
        assert again.statistics().revision >= newest
        with pytest.raises(Compacted):
            async for _ in again.watch("/core/", after=seen):
                pass
        assert await again.create(key("next"), b"{}") > newest
        found = await again.get(key("a"))
        assert found is not None
        await again.update(key("a"), b"{}", expected=found.revision)
        await again.compact(again.statistics().revision)
    finally:
        await again.close()


@pytest.mark.parametrize("steps", range(12))
async def test_going_back_can_be_interrupted_anywhere(
    data: Datastore, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await write(data, a=body("ConfigMap", "a"))
    data.take("one")
    trial = await write(data, a=body("ConfigMap", "a", data={"x": "y"}), b=body("ConfigMap", "b"))
    left = steps
    real_replace, real_unlink = Path.replace, Path.unlink

    def counted(real: Any) -> Any:
        def call(self: Path, *given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(self, *given, **named)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", counted(real_replace))
        patched.setattr(Path, "unlink", counted(real_unlink))
        with contextlib.suppress(KeyboardInterrupt):
            data.restore("one", "v2-1")
    told = data.restore("one", "v2-1")
    assert told.count == 2
    assert await write(data) == before
    shutil.copy(data.kept / "v2-1" / "state.db", data.path)
    assert await write(data) == trial


async def test_a_trial_that_was_killed_leaves_its_log_and_it_is_kept_too(data: Datastore) -> None:
    await write(data, a=body("ConfigMap", "a"))
    data.take("one")
    store = await SqliteStore.open(data.path)
    await store.create(key("b"), body("ConfigMap", "b"))
    for name in ("state.db", "state.db-wal"):  # as a power cut leaves them
        shutil.copy(data.path.with_name(name), data.path.with_name(f"{name}.cut"))
    await store.close()
    for name in ("state.db", "state.db-wal"):
        data.path.with_name(f"{name}.cut").replace(data.path.with_name(name))
    told = data.restore("one", "v2-1")
    assert told.count == 1
    assert not data.path.with_name("state.db-wal").exists()
    assert list(await write(data)) == ["a"]


async def test_a_datastore_that_the_trial_destroyed_is_kept_without_a_list(
    data: Datastore,
) -> None:
    before = await write(data, a=body("ConfigMap", "a"))
    data.take("one")
    data.path.write_bytes(b"nothing that SQLite knows" * 100)
    told = data.restore("one", "v2-1")
    assert "no list could be made" in told.note
    assert (data.kept / "v2-1" / "state.db").read_bytes().startswith(b"nothing that SQLite")
    assert await write(data) == before


async def test_without_its_snapshot_nothing_is_moved(data: Datastore) -> None:
    await write(data, a=body("ConfigMap", "a"))
    with pytest.raises(FileNotFoundError):
        data.restore("never-made", "v2-1")
    assert list(await write(data)) == ["a"]
    assert data.restore("", "v2-1").count == 0


async def test_manifests_go_back_too(data: Datastore) -> None:
    await write(data, a=body("ConfigMap", "a"))
    mine = data.manifests / "mine.yaml"
    mine.write_text("a: 1")
    data.take("one")
    mine.write_text("a: 2")
    (data.manifests / "of-the-newer.yaml").write_text("b: 1")
    data.restore("one", "v2-1")
    assert mine.read_text() == "a: 1"
    assert [p.name for p in data.manifests.iterdir()] == ["mine.yaml"]
    aside = data.kept / "v2-1" / "manifests"
    assert (aside / "mine.yaml").read_text() == "a: 2"
    assert (aside / "of-the-newer.yaml").read_text() == "b: 1"


async def test_a_new_snapshot_takes_the_place_of_an_old_one(data: Datastore) -> None:
    await write(data, a=body("ConfigMap", "a"))
    data.take("one")
    data.take("two")
    assert [p.name for p in data.snapshots.glob("*.db")] == ["two.db"]


async def test_the_last_word_of_the_version_before_is_kept_after_a_commit(data: Datastore) -> None:
    await write(data, a=body("ConfigMap", "a"))
    data.take("one")
    about: Mapping[str, Any] = {"version": "v1.36.3+pinnace1", "schema": 1}
    data.keep_previous("one", about)
    assert not data.snapshots.exists()
    assert (data.previous / "state.db").exists()
    assert data.previous_schema("v1.36.3+pinnace1") == 1
    assert data.previous_schema("v1.36.2+pinnace1") is None


def test_a_node_that_never_ran_has_nothing_to_copy(data: Datastore) -> None:
    assert data.take("one") is None


async def test_a_full_disk_is_noticed_before_the_copy(
    data: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(data, a=body("ConfigMap", "a"))
    full = shutil.disk_usage(data.path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(InstallError, match="1 MiB are free"):
        data.take("one")
