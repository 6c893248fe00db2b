"""Files, settings and what cgroups offer, without root."""

import os
import stat
from pathlib import Path

import pytest

from node.host import sysctl
from node.host.files import write_atomic, write_if_changed
from node.host.netlink import NESTED, attribute, attributes, nested
from node.host.probe import controllers


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    write_atomic(file, "new", mode=0o600)
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_equal_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "conf"
    assert write_if_changed(file, "x")
    before = file.stat().st_ino
    assert not write_if_changed(file, b"x")
    assert file.stat().st_ino == before


def test_attributes_survive_a_round_trip() -> None:
    data = attribute(1, b"abc") + nested(2, attribute(7, b"\1"))
    found = attributes(data)
    assert found[1] == b"abc"
    assert attributes(found[2]) == {7: b"\1"}
    assert len(data) % 4 == 0
    assert NESTED & 2 == 0


def test_controllers_are_read_from_both_versions_of_cgroups(tmp_path: Path) -> None:
    unified = tmp_path / "v2"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert controllers(unified) >= {"cpu", "memory", "pids"}
    split = tmp_path / "v1"
    for name in ("cpu", "memory"):
        (split / name).mkdir(parents=True)
        (split / name / "tasks").touch()
    assert controllers(split) == {"cpu", "memory"}
    assert controllers(tmp_path / "none") == frozenset()


def test_a_setting_that_the_kernel_lacks_is_said_to_be_absent() -> None:
    assert sysctl.read("net.ipv4.no_such_thing") is None
    assert not sysctl.ensure("net.ipv4.no_such_thing", "1")
    assert sysctl.read("kernel.ostype") == "Linux"
