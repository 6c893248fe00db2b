"""The file put into effect: once, again, after a power cut at any place, and taken back."""

import functools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.firstboot import apply, manifests, schema
from node.firstboot.base import Manifest
from node.firstboot.places import Places
from node.firstboot.run import main
from tests.unit.firstboot.files import KEY, WHOLE

RADIO = "wifi: {networks: [{ssid: a, psk: 12345678}]}\n"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("card", "root/etc", "data", "run", "sys/class/net", "tree"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tree/serial-number").write_text("10000000abcdef01\0")
    (tmp_path / "card/apps").mkdir()
    (tmp_path / "card/apps/web.yaml").write_text("kind: Web\n")
    return Places(
        partition=tmp_path / "card",
        root=tmp_path / "root",
        data=tmp_path / "data",
        run=tmp_path / "run",
        sys=tmp_path / "sys",
        device_tree=tmp_path / "tree",
    )


@pytest.fixture
def said() -> list[str]:
    return []


def boot(places: Places, said: list[str]) -> dict[str, object]:
    main(places, said.append)
    result: dict[str, object] = json.loads(places.result.read_text())
    return result


def write(places: Places, text: str) -> None:
    (places.partition / "pinnace.yaml").write_text(text)


def content(folder: Path) -> dict[str, bytes | str]:
    """Every file below, but for those that say when, and SSH's own random keys."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and path.name != "appliance.json" and "ssh_host" not in name:
            found[name] = path.read_bytes()
    return found


def test_the_whole_file_is_put_into_effect(places: Places, said: list[str]) -> None:
    write(places, WHOLE)
    assert boot(places, said) == {"source": "file", "problems": []}
    etc = places.root / "etc"
    assert (etc / "hostname").read_text() == "kitchen\n"
    assert str((etc / "localtime").readlink()) == "/usr/share/zoneinfo/Europe/Berlin"
    assert (etc / "pinnace/token").stat().st_mode & 0o777 == 0o600
    assert KEY in (places.root / "root/.ssh/authorized_keys").read_text()
    deployed = places.data / "server/manifests/boot"
    assert (deployed / "apps/web.yaml").read_text() == "kind: Web\n"
    assert "kind: Namespace" in (deployed / "pinnace-yaml-1.yaml").read_text()
    assert said == []


def test_the_second_boot_writes_nothing(places: Places, said: list[str]) -> None:
    write(places, WHOLE)
    boot(places, said)
    before = {path: path.lstat().st_mtime_ns for path in places.root.rglob("*")}
    boot(places, said)
    assert {path: path.lstat().st_mtime_ns for path in places.root.rglob("*")} == before


def test_what_was_taken_out_of_the_file_is_taken_back(places: Places, said: list[str]) -> None:
    write(places, f"ssh:\n  keys: {KEY}\n")
    boot(places, said)
    plain = content(places.root)
    write(places, WHOLE + "# more\n")
    (places.partition / "manifests").mkdir()
    (places.partition / "manifests/more.yaml").write_text("kind: More\n")
    boot(places, said)
    assert content(places.root) != plain
    shutil.rmtree(places.partition / "manifests")
    write(places, f"hostname: pinnace-cdef01\nssh:\n  keys: {KEY}\n")
    boot(places, said)
    now = content(places.root)
    node = json.loads(now.pop("etc/pinnace/config.yaml.d/10-appliance.yaml"))
    plain.pop("etc/pinnace/config.yaml.d/10-appliance.yaml")
    assert now == plain
    assert node["node-name"] == "pinnace-cdef01"  # as it was called first
    assert list((places.data / "server/manifests/boot").rglob("*")) == []


def test_a_file_that_is_lost_is_written_again(places: Places, said: list[str]) -> None:
    write(places, WHOLE)
    boot(places, said)
    before = content(places.root)
    (places.root / "etc/pinnace/token").unlink()
    (places.root / "etc/hostname").write_text("")
    boot(places, said)
    assert content(places.root) == before


def test_without_a_file_the_defaults_hold(places: Places, said: list[str]) -> None:
    assert boot(places, said)["source"] == "missing"
    assert (places.root / "etc/hostname").read_text() == "pinnace-cdef01\n"
    assert boot(places, said)["source"] == "missing"


def test_a_file_with_another_name_is_named(places: Places, said: list[str]) -> None:
    (places.partition / "pinnace.yaml.txt").write_text("hostname: a\n")
    found = boot(places, said)
    assert found["problems"] == ["pinnace.yaml.txt is there instead: rename it to pinnace.yaml"]


def test_mistakes_leave_the_last_good_settings(places: Places, said: list[str]) -> None:
    write(places, WHOLE)
    boot(places, said)
    before = content(places.root)
    write(places, "hostname: a_b\n")
    for _ in range(2):
        found = boot(places, said)
        assert found["source"] == "last good"
        assert "line 1: hostname:" in str(found["problems"])
    assert content(places.root) == before
    write(places, WHOLE)
    assert boot(places, said) == {"source": "file", "problems": []}


def test_mistakes_at_the_first_boot_mean_the_defaults(places: Places, said: list[str]) -> None:
    write(places, "\tx")
    assert boot(places, said)["source"] == "defaults"
    assert (places.root / "etc/systemd/network/80-appliance-ether.network").exists()
    assert any("tab" in line for line in said)


def test_a_file_that_is_gone_leaves_the_settings(places: Places, said: list[str]) -> None:
    write(places, WHOLE)
    boot(places, said)
    before = content(places.root), content(places.data)
    shutil.rmtree(places.partition)
    places.partition.mkdir()
    assert boot(places, said)["source"] == "kept"
    assert (content(places.root), content(places.data)) == before


def test_a_manifest_with_mistakes_is_left_out_and_the_others_not(
    places: Places, said: list[str]
) -> None:
    folder = places.partition / "manifests"
    (folder / "sub").mkdir(parents=True)
    (folder / "good.yaml").write_bytes("\ufeffa: ü\r\n".encode("utf-16-le"))
    (folder / "sub/bad.yaml").write_text("a: b: c\n")
    (folder / "bad.json").write_text("{")
    (folder / "tabs.json").write_text('{\t"a": 1}')
    (folder / "._good.yaml").write_bytes(b"\0\5\26\7")
    (folder / "README.txt").write_text("no manifest")
    write(places, "manifests: [nowhere.yaml, manifests]\n")
    found = str(boot(places, said)["problems"])
    for name in ("bad.json: is not JSON", "sub/bad.yaml: is not YAML", "'nowhere.yaml' is not on"):
        assert name in found
    deployed = places.data / "server/manifests/boot"
    assert (deployed / "good.yaml").read_text() == "a: ü\n"
    names = [path.name for path in deployed.rglob("*") if path.is_file()]
    assert set(names) == {"good.yaml", "tabs.json"}


def test_a_folder_that_becomes_a_file_and_the_other_way(tmp_path: Path) -> None:
    assert manifests.mirror(tmp_path, {"a/b.yaml": "1", "c.yaml": "2"})
    assert manifests.mirror(tmp_path, {"a": "1", "c.yaml/d.yaml": "3"})
    assert (tmp_path / "a").read_text() == "1"
    assert (tmp_path / "c.yaml/d.yaml").read_text() == "3"
    assert not manifests.mirror(tmp_path, {"a": "1", "c.yaml/d.yaml": "3"})


def test_a_link_on_the_card_leads_nowhere_else(tmp_path: Path) -> None:
    gathered = manifests.gather(tmp_path, [Manifest(name="a/../../x")])
    assert gathered.problems
    assert not gathered.files


def test_drafts_that_a_power_cut_left_are_cleared_away(places: Places, said: list[str]) -> None:
    (places.root / "etc/.hostname.77").write_text("x")
    boot(places, said)
    assert not (places.root / "etc/.hostname.77").exists()


class PowerCut(BaseException):
    """Nothing of ours runs after it."""


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """``left``: how many writes, renames and removals there still are until the power is cut."""
    state = {"left": -1}
    # Hundreds of boots: what is the same in all of them is done once, or not at all.
    monkeypatch.setattr(schema, "parse", functools.cache(schema.parse))
    monkeypatch.setattr(apply, "ensure_host_keys", lambda folder, say: False)

    def counted(real: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            if state["left"] == 0:
                raise PowerCut
            state["left"] -= 1
            return real(*args, **kwargs)  # type: ignore[operator]

        return call

    for owner, name in (
        *((Path, name) for name in ("replace", "unlink", "mkdir", "symlink_to", "rmdir")),
    ):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    # The kernel goes on: what it would have had in memory is there without waiting for a disk.
    monkeypatch.setattr(os, "fsync", counted(lambda _: None))
    yield state
    state["left"] = -1


@pytest.mark.timeout(300)
def test_a_power_cut_at_any_instant_is_completed_by_the_next_boot(
    places: Places, said: list[str], power: dict[str, int], tmp_path: Path
) -> None:
    write(places, f"{RADIO}ssh:\n  keys: {KEY}\n")
    boot(places, said)
    before = tmp_path / "before"
    for name in ("root", "data"):
        shutil.copytree(tmp_path / name, before / name, symlinks=True)
    write(places, WHOLE.replace("00012345", "0123456789abcdef" * 4))  # nothing to compute
    boot(places, said)
    wanted = content(places.root), content(places.data)
    cuts = 0
    finished = False
    while not finished:
        for name in ("root", "data"):
            shutil.rmtree(tmp_path / name)
            shutil.copytree(before / name, tmp_path / name, symlinks=True)
        power["left"] = cuts
        try:
            boot(places, said)
            finished = True
        except PowerCut:
            cuts += 1
        power["left"] = -1
        boot(places, said)
        assert (content(places.root), content(places.data)) == wanted, f"cut {cuts}"
    assert cuts > 40
