"""Factory reset: what goes, what stays, and that being cut off in between does no harm."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from controlplane.store.sqlite import SqliteStore
from node import reset as command
from node.appliance import reset
from node.settings import UsageError


def volume(name: str, path: str, claim: str = "db") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": "1",
            "finalizers": ["kubernetes.io/pv-protection"],
            "annotations": {
                "localpath.pinnace.dev/image": f"{path}.img",
                "pv.kubernetes.io/bound-by-controller": "yes",
            },
        },
        "kind": "PersistentVolume",
        "spec": {
            "hostPath": {"path": path},
            "claimRef": {"namespace": "default", "name": claim, "uid": "u", "resourceVersion": "7"},
        },
        "status": {"phase": "Bound"},
    }


async def fill(data: Path) -> None:
    """A data partition that was in use, with volumes in the usual place and in another."""
    pinnace = data / "pinnace"
    for folder in ("slots/a/etc", "slots/b/var", "root/.ssh", "lost+found"):
        (data / folder).mkdir(parents=True)
    (data / "root/.ssh/authorized_keys").write_text("ssh-ed25519 …")
    for folder in ("server/tls", "agent/pods", "update", "storage/pvc-1/data", "mine/pvc-2"):
        (pinnace / folder).mkdir(parents=True)
    (pinnace / "server/tls/server-ca.key").write_text("key")
    (pinnace / "storage/pvc-1/data/file").write_text("precious")
    (pinnace / "mine/pvc-2/file").write_text("precious too")
    (pinnace / "mine/other").write_text("not a volume")
    (pinnace / "agent/link").symlink_to(pinnace / "storage")
    store = await SqliteStore.open(pinnace / "server/db/state.db")
    for item in (
        volume("one", "/var/lib/pinnace/storage/pvc-1"),
        volume("two", "/var/lib/pinnace/mine/pvc-2", "other"),
        volume("gone", "/var/lib/pinnace/storage/not-there"),
        volume("elsewhere", "/mnt/disk/pvc-3"),
    ):
        key = f"/core/persistentvolumes/{item['metadata']['name']}"
        await store.create(key, json.dumps(item).encode())
    await store.close()


def files(data: Path) -> set[str]:
    return {str(p.relative_to(data)) for p in data.rglob("*") if not p.is_dir()}


def folders(data: Path) -> set[str]:
    return {path.name for path in data.iterdir()}


KEPT = {
    "pinnace/storage/pvc-1/data/file",
    "pinnace/mine/pvc-2/file",
    f"pinnace/storage/.pinnace/{reset.VOLUMES}",
    f"pinnace/server/manifests/{reset.MANIFEST}",
}


async def test_keep_keeps_the_volumes_and_nothing_else(tmp_path: Path) -> None:
    await fill(tmp_path)
    reset.perform("keep", tmp_path)
    assert files(tmp_path) == KEPT
    assert (tmp_path / "pinnace/storage/pvc-1/data/file").read_text() == "precious"
    assert folders(tmp_path) == {"pinnace", "lost+found"}


async def test_a_volume_that_was_kept_is_reserved_for_the_claim_that_had_it(tmp_path: Path) -> None:
    await fill(tmp_path)
    reset.perform("keep", tmp_path)
    manifest = json.loads((tmp_path / "pinnace/server/manifests" / reset.MANIFEST).read_text())
    one, two = sorted(manifest["items"], key=lambda item: item["metadata"]["name"])
    assert (one["metadata"]["name"], two["metadata"]["name"]) == ("one", "two")
    assert one["spec"]["claimRef"] == {"namespace": "default", "name": "db"}
    assert one["spec"]["hostPath"] == {"path": "/var/lib/pinnace/storage/pvc-1"}
    assert list(one["metadata"]["annotations"]) == ["localpath.pinnace.dev/image"]
    assert not {"uid", "finalizers"} & one["metadata"].keys()
    assert "status" not in one


async def test_wipe_keeps_nothing(tmp_path: Path) -> None:
    await fill(tmp_path)
    reset.perform("wipe", tmp_path)
    assert files(tmp_path) == set()
    assert folders(tmp_path) == {"lost+found"}


class Cut(BaseException):
    """The power."""


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Cut at the ``left``-th call that changes the disk."""
    state = {"left": -1}
    with monkeypatch.context() as patched:
        for owner, name in ((os, "unlink"), (os, "rmdir"), (Path, "replace"), (os, "mkdir")):
            real = getattr(owner, name)

            def cut(*arguments: Any, _real: Any = real, **more: Any) -> Any:
                if state["left"] == 0:
                    raise Cut
                state["left"] -= 1
                return _real(*arguments, **more)

            patched.setattr(owner, name, cut)
        yield state


@pytest.mark.parametrize("mode", reset.MODES)
async def test_whoever_is_cut_off_begins_again_and_comes_to_the_same_end(
    mode: str, tmp_path: Path, power: dict[str, int]
) -> None:
    wanted = KEPT if mode == "keep" else set()
    cuts = 0
    while True:
        data = tmp_path / f"{mode}-{cuts}"
        data.mkdir()
        await fill(data)
        power["left"] = cuts
        try:
            reset.perform(mode, data)
        except Cut:
            power["left"] = -1
            reset.perform(mode, data)
            assert files(data) == wanted, cuts
        else:
            power["left"] = -1
            assert files(data) == wanted
            break
        cuts += 1
    assert cuts > 10


async def test_a_datastore_that_is_damaged_still_tells_of_its_volumes(tmp_path: Path) -> None:
    await fill(tmp_path)
    with closing((tmp_path / "pinnace/server/db/state.db").open("r+b")) as file:
        file.write(b"\xa5" * 4096)
    reset.perform("keep", tmp_path)
    assert files(tmp_path) == KEPT


def test_a_folder_that_is_empty_is_reset_too(tmp_path: Path) -> None:
    reset.perform("keep", tmp_path)
    reset.perform("wipe", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "mode"), [("keep\n", "keep"), (" WIPE \r\n", "wipe"), ("keep it all", "keep")]
)
def test_the_word_in_the_file_says_what_is_wanted(tmp_path: Path, content: str, mode: str) -> None:
    (tmp_path / reset.MARKER).write_text(content)
    assert reset.requested(tmp_path) == mode


def test_without_the_file_nothing_is_wanted(tmp_path: Path) -> None:
    assert reset.requested(tmp_path) == ""
    assert reset.requested(tmp_path / "not-there") == ""


@pytest.mark.parametrize("content", ["", "yes", "\x00\xff", "wiped"])
def test_any_other_word_does_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / reset.MARKER).write_text(content)
    with pytest.raises(ValueError, match='must hold the word "keep" or "wipe"'):
        reset.requested(tmp_path)


def test_a_marker_that_cannot_be_removed_is_followed_once(tmp_path: Path) -> None:
    (tmp_path / reset.MARKER).write_text("wipe")
    assert not reset.was_followed(tmp_path, tmp_path)
    reset.remember(tmp_path, tmp_path)
    assert reset.was_followed(tmp_path, tmp_path)
    (tmp_path / reset.MARKER).write_text("keep")
    assert not reset.was_followed(tmp_path, tmp_path)


def test_a_plain_folder_keeps_its_volumes_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "storage/pvc").mkdir(parents=True)
    (tmp_path / "storage/pvc/file").write_text("precious")
    (tmp_path / "server").mkdir()
    reset.clear("keep", tmp_path)
    assert files(tmp_path) == {"storage/pvc/file"}


@pytest.mark.parametrize(
    "arguments", [[], ["--yes"], ["--wipe", "--keep-data"], ["--keep-data", "--keep-data"]]
)
def test_the_command_wants_one_mode(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="usage"):
        command.parse(arguments)


def test_the_command_passes_on_what_it_does_not_know() -> None:
    parsed = command.parse(["--wipe", "--yes", "--data-dir=/x"])
    assert parsed == ("wipe", True, ["--data-dir=/x"])


def test_without_yes_the_command_only_says_what_it_would_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    with pytest.raises(UsageError, match="--yes"):
        command.run("wipe", {"data-dir": str(tmp_path)}, said.append, yes=False)
    assert said == [f"all that is in {tmp_path} goes, volumes too"]
    assert (tmp_path / "file").exists()


async def test_what_is_asked_for_at_a_start_is_done_once(tmp_path: Path) -> None:
    """The config partition cannot be written here: that must not reset at each start."""
    config, data = tmp_path / "config", tmp_path / "data"
    make(config, data)
    await fill(data)
    (config / reset.MARKER).write_text("keep")
    assert reset.follow(config, data, flags=0) == "volumes were kept, all else is as new"
    assert files(data) >= KEPT
    put(data / "root/note")
    assert reset.follow(config, data, flags=0) == ""
    assert "root/note" in files(data)
    (config / reset.MARKER).write_text("wipe")
    assert reset.follow(config, data, flags=0) == "all is as new"
    assert files(data) <= {reset.DONE}


def make(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir()


def put(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("made since")
