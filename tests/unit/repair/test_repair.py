"""``pinnace repair`` on folders: what it says, what it mends, and that it destroys nothing."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.store.file import backup_file
from controlplane.store.sqlite import SqliteStore
from node import settings as node_settings
from node.repair import bolt, command, disk
from node.repair.base import Options
from node.settings import UsageError
from node.supervise.preflight import lock

YES = Options(yes=True)
LOOK = Options()
Repair = Callable[..., tuple[int, str]]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(disk, "_LITTLE", 0)
    (tmp_path / "data").mkdir()
    (tmp_path / "run").mkdir()
    return tmp_path / "data"


@pytest.fixture
def repair(data: Path) -> Repair:
    """What it says, and its exit code."""
    (data.parent / "config.yaml").touch()
    settings = node_settings.read(
        "server",
        [
            f"--data-dir={data}",
            f"--run-dir={data.parent / 'run'}",
            f"--config={data.parent / 'config.yaml'}",
            "--node-name=pi",
            "--node-ip=10.0.0.1",
        ],
        {},
    )

    def run(options: Options = LOOK) -> tuple[int, str]:
        said: list[str] = []
        code = command.run(options, settings, said.append)
        return code, "\n".join(said)

    return run


async def fill(path: Path, count: int = 200) -> None:
    store = await SqliteStore.open(path)
    for number in range(count):
        body = {"metadata": {"name": f"n{number}"}, "data": "x" * 200}
        await store.create(f"/core/configmaps/default/n{number}", json.dumps(body).encode())
    await store.close()


async def count(path: Path) -> int:
    store = await SqliteStore.open(path)
    found = len((await store.range("/core/")).items)
    await store.close()
    return found


def hurt(path: Path, page: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_on_which_nothing_ran_has_nothing_wrong(repair: Repair) -> None:
    code, said = repair()
    assert code == 0
    assert said.endswith("nothing is wrong")


def test_a_folder_that_is_not_there_is_named(repair: Repair, data: Path) -> None:
    data.rmdir()
    with pytest.raises(UsageError, match="there is no data folder"):
        repair()


async def test_a_sound_datastore_is_counted(repair: Repair, data: Path) -> None:
    await fill(data / "server/db/state.db")
    assert "fine   datastore: 200 objects" in repair()[1]


async def test_a_look_changes_nothing(repair: Repair, data: Path) -> None:
    await fill(data / "server/db/state.db")
    hurt(data / "server/db/state.db", 5)
    before = tree(data)
    code, said = repair()
    assert code == command.NOT_MENDED
    assert "WRONG  datastore: damaged" in said
    assert "would: make a new one of what can be read" in said
    assert tree(data) == before


@pytest.mark.parametrize("page", [1, 5])
async def test_a_damaged_datastore_is_made_anew_of_what_can_be_read(
    repair: Repair, data: Path, page: int
) -> None:
    path = data / "server/db/state.db"
    await fill(path)
    hurt(path, page)
    broken = path.read_bytes()
    code, said = repair(YES)
    assert code == 0, said
    assert await count(path) > 150
    kept = next((data / "repair").glob("*/server/db/state.db"))
    assert kept.read_bytes() == broken
    assert repair()[0] == 0


async def test_a_snapshot_is_taken_where_that_was_said(repair: Repair, data: Path) -> None:
    path = data / "server/db/state.db"
    await fill(path, 50)
    snapshot = data / "server/db/snapshots/before.db"
    snapshot.parent.mkdir()
    backup_file(path, snapshot)
    hurt(path, 4)
    code, said = repair(Options(yes=True, from_snapshot="newest"))
    assert code == 0, said
    assert await count(path) == 50
    assert snapshot.exists()


async def test_a_datastore_that_is_lost_comes_from_the_newest_sound_snapshot(
    repair: Repair, data: Path
) -> None:
    path = data / "server/db/state.db"
    await fill(path, 50)
    folder = data / "server/db/snapshots"
    folder.mkdir()
    backup_file(path, folder / "good.db")
    (folder / "newer-and-broken.db").write_bytes(b"\x00" * 8192)
    path.unlink()
    (data / "clock").touch()
    assert f"take the snapshot {folder / 'good.db'}" in repair()[1]
    code, said = repair(YES)
    assert code == 0, said
    assert await count(path) == 50


def test_without_a_snapshot_it_says_how_to_begin_anew(repair: Repair, data: Path) -> None:
    (data / "clock").touch()
    code, said = repair(YES)
    assert code == command.NOT_MENDED
    assert "lost; there is no sound snapshot: `pinnace server --begin-empty`" in said


async def test_a_snapshot_that_is_not_there_changes_nothing(repair: Repair, data: Path) -> None:
    await fill(data / "server/db/state.db", 5)
    before = tree(data)
    code, said = repair(Options(yes=True, from_snapshot="/not/there.db"))
    assert code == command.NOT_MENDED
    assert "there is no sound snapshot /not/there.db" in said
    assert tree(data) == before


async def test_under_a_running_node_nothing_is_changed(repair: Repair, data: Path) -> None:
    await fill(data / "server/db/state.db")
    hurt(data / "server/db/state.db", 5)
    with lock(data.parent / "run"):
        with pytest.raises(UsageError, match="the node runs: stop it first"):
            repair(YES)
        assert repair()[1].startswith("the node runs: this is a look only")
    assert not (data / "repair").exists()


def test_keys_that_others_may_read_are_closed(repair: Repair, data: Path) -> None:
    (data / "server/tls").mkdir(parents=True)
    token = data / "server/token"
    token.write_text("secret")
    token.chmod(0o644)
    assert f"others may read {token}" in repair()[1]
    repair(YES)
    assert token.stat().st_mode & 0o777 == 0o600


def test_authorities_are_made_anew_only_if_asked_for(repair: Repair, data: Path) -> None:
    tls = data / "server/tls"
    tls.mkdir(parents=True)
    (tls / "server-ca.crt").write_text("-----BEGIN CERTIFICATE-----\nhalf")
    (tls / "server-ca.key").write_text("half")
    for path in tls.iterdir():
        path.chmod(0o600)
    code, said = repair(YES)
    assert code == command.NOT_MENDED
    assert "say --new-certificates" in said
    assert (tls / "server-ca.crt").exists()
    code, said = repair(Options(yes=True, new_certificates=True))
    assert code == 0, said
    assert not tls.exists()
    assert next((data / "repair").glob("*/server/tls/server-ca.key")).read_text() == "half"


def test_a_state_of_an_update_that_cannot_be_read_goes_aside(repair: Repair, data: Path) -> None:
    (data / "update").mkdir()
    (data / "update/state.json").write_text('{"half')
    assert repair()[0] == command.NOT_MENDED
    assert repair(YES)[0] == 0
    assert next((data / "repair").glob("*/update/state.json")).read_text() == '{"half'


def test_a_memory_of_containerd_that_is_damaged_goes_aside_with_its_images(
    repair: Repair, data: Path
) -> None:
    folder = data / "agent/containerd/io.containerd.metadata.v1.bolt"
    folder.mkdir(parents=True)
    (folder / "meta.db").write_bytes(b"\x00" * 16384)
    (data / "agent/images.json").write_text("{}")
    (data / "agent/images").mkdir()
    (data / "agent/images/mine.tar").write_text("stays")
    code, said = repair()
    assert code == command.NOT_MENDED
    assert "neither of its meta pages is whole" in said
    assert (folder / "meta.db").exists()


@pytest.mark.parametrize(
    ("arguments", "options", "rest"),
    [
        (["--yes", "--data-dir=/x"], YES, ["--data-dir=/x"]),
        (["--from-snapshot"], Options(from_snapshot="newest"), []),
        (["--from-snapshot=/a.db", "--yes"], Options(yes=True, from_snapshot="/a.db"), []),
        (["--new-certificates"], Options(new_certificates=True), []),
    ],
)
def test_the_command_line(arguments: list[str], options: Options, rest: list[str]) -> None:
    assert command.parse(arguments) == (options, rest)


# -- bolt, as containerd writes it

HEAD = struct.Struct("<QHHI")


def meta(number: int, *, root: int, pages: int, transaction: int) -> bytes:
    fields = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, 4096, 0, root, 0, 2, pages, transaction)
    page = HEAD.pack(number, 0x04, 0, 0) + fields + struct.pack("<Q", bolt._sum(fields))
    return page.ljust(4096, b"\0")


def leaf(number: int, items: list[tuple[int, bytes, bytes]]) -> bytes:
    heads, body = b"", b""
    for index, (kind, key, value) in enumerate(items):
        at = (len(items) - index) * 16 + len(body)
        heads += struct.pack("<IIII", kind, at, len(key), len(value))
        body += key + value
    return (HEAD.pack(number, 0x02, len(items), 0) + heads + body).ljust(4096, b"\0")


def database(path: Path) -> Path:
    """Two meta pages, a free list, a root with a bucket that has a page, and one within itself."""
    bucket = struct.pack("<QQ", 4, 0)
    inline = struct.pack("<QQ", 0, 0) + HEAD.pack(0, 0x02, 0, 0)
    pages: list[Any] = [
        meta(0, root=3, pages=5, transaction=7),
        meta(1, root=4, pages=5, transaction=6),
        HEAD.pack(2, 0x10, 0, 0).ljust(4096, b"\0"),
        leaf(3, [(1, b"small", inline), (1, b"v1", bucket)]),
        leaf(4, [(0, b"key", b"value")]),
    ]
    path.write_bytes(b"".join(pages))
    return path


def test_a_whole_database_is_said_to_be_whole(tmp_path: Path) -> None:
    assert bolt.wrong_with(database(tmp_path / "meta.db")) == ""
    assert bolt.wrong_with(tmp_path / "not-there") == ""


@pytest.mark.parametrize(
    ("page", "why"),
    [(3, "page 3 is none of its tree"), (4, "page 4 is none of its tree")],
)
def test_a_page_that_is_overwritten_is_found(tmp_path: Path, page: int, why: str) -> None:
    path = database(tmp_path / "meta.db")
    hurt(path, page + 1)
    assert bolt.wrong_with(path) == why


def test_one_meta_page_is_enough(tmp_path: Path) -> None:
    path = database(tmp_path / "meta.db")
    hurt(path, 1)
    assert bolt.wrong_with(path) == ""  # the older transaction
    hurt(path, 2)
    assert bolt.wrong_with(path) == "neither of its meta pages is whole"


@pytest.mark.parametrize("size", [0, 100, 4096, 4 * 4096, 5 * 4096 - 1])
def test_a_file_that_was_cut_short_is_found(tmp_path: Path, size: int) -> None:
    path = database(tmp_path / "meta.db")
    path.write_bytes(path.read_bytes()[:size])
    assert bolt.wrong_with(path) != ""


def test_what_was_set_aside_can_be_put_back(repair: Repair, data: Path) -> None:
    (data / "update").mkdir()
    (data / "update/state.json").write_text("x")
    repair(YES)
    moved = next((data / "repair").glob("*/update/state.json"))
    shutil.move(moved, data / "update/state.json")
    assert repair()[0] == command.NOT_MENDED
