"""What is to start has a link, every link leads to a unit, and every unit's program is there."""

import re
from pathlib import Path

import pytest
from appliance import rootfs, trim, units
from appliance.units import UnitError

DEBIAN = (
    *units.ENABLED,
    *units.ALIASES.values(),
    "getty.target",
    "systemd-logind.service",
)


def tree(folder: Path) -> Path:
    system = folder / units.SYSTEM
    (system / "multi-user.target.wants").mkdir(parents=True)
    for name in DEBIAN:
        (system / name).write_text("[Unit]\n")
    (system / "multi-user.target.wants/systemd-logind.service").symlink_to(
        "../systemd-logind.service"
    )
    return folder


def write(folder: Path, name: str, text: str) -> frozenset[str]:
    (folder / units.SYSTEM / name).write_text(text)
    return frozenset({name})


def test_every_unit_that_is_to_start_is_wanted_by_its_target(tmp_path: Path) -> None:
    units.enable(tree(tmp_path), trim.MASKED, frozenset())
    system = tmp_path / units.SYSTEM
    for unit, target in units.ENABLED.items():
        assert (system / f"{target}.wants" / unit).exists(), unit
    assert (system / "default.target").readlink() == Path("multi-user.target")
    assert units.dangling(tmp_path) == []


def test_a_masked_unit_is_wanted_by_nobody(tmp_path: Path) -> None:
    units.enable(tree(tmp_path), trim.MASKED, frozenset())
    system = tmp_path / units.SYSTEM
    assert (system / "systemd-logind.service").readlink() == Path("/dev/null")
    assert not list(system.glob("*.wants/systemd-logind.service"))


def test_our_units_start_where_their_files_say_so(tmp_path: Path) -> None:
    own = write(tree(tmp_path), "own.service", "[Unit]\n[Install]\nWantedBy=a.target b.target\n")
    own |= write(tmp_path, "quiet.service", "[Unit]\n")
    own |= write(tmp_path, "at@.service", "[Install]\nWantedBy=a.target\nDefaultInstance=tty1\n")
    units.enable(tmp_path, frozenset(), own)
    system = tmp_path / units.SYSTEM
    assert (system / "b.target.wants/own.service").readlink() == Path("../own.service")
    assert (system / "a.target.wants/at@tty1.service").readlink() == Path("../at@.service")
    assert not list(system.glob("*.wants/quiet.service"))


def test_a_unit_that_is_in_no_package_stops_the_build(tmp_path: Path) -> None:
    (tree(tmp_path) / units.SYSTEM / "systemd-networkd.service").unlink()
    with pytest.raises(UnitError, match=r"systemd-networkd\.service"):
        units.enable(tmp_path, frozenset(), frozenset())


def own_units() -> list[Path]:
    found = (layer / units.SYSTEM for layer in rootfs.LAYERS)
    return sorted(
        path
        for folder in found
        if folder.is_dir()
        for path in folder.rglob("*.*")
        if path.is_file()
    )


@pytest.mark.parametrize("path", own_units(), ids=lambda path: path.name)
def test_our_units_start_programs_by_whole_paths(path: Path) -> None:
    text = path.read_text()
    for line in re.findall(r"^Exec\w+=(.+)$", text, re.MULTILINE):
        assert line.lstrip("-+!:@").startswith("/"), line
    assert not re.search(r"^After=.*network-online", text, re.MULTILINE), "there may be no network"


def test_what_we_bring_can_be_run() -> None:
    for layer in rootfs.LAYERS:
        for path in (layer / "usr/lib/pinnace").glob("*"):
            assert path.stat().st_mode & 0o111, path
