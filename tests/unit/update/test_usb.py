"""Which bundle of a stick is taken, and what is written about the others."""

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node.settings import UsageError
from node.update import boot, rauc, usb
from node.update.base import InstallError
from node.update.state import Failure, Records
from node.update.version import parse
from tests.fakes.bundles import V1, V2, Bench, pair

V3 = "v1.36.5+pinnace1"


@dataclass
class Desk:
    """A stick in a folder, and who is asked to install."""

    folder: Path
    running: str = V1
    trial: bool = False
    answer: str = "was written"
    installed: list[str] = field(default_factory=list)
    waited: int = 0

    def __post_init__(self) -> None:
        self.bench = Bench(self.folder)
        self.stick.mkdir()
        (self.folder / "update").mkdir()
        self.records = Records(self.folder / "update")

    @property
    def stick(self) -> Path:
        return self.folder / "stick"

    def put(self, name: str, version: str, **about: str) -> None:
        self.bench.make(version, **about).rename(self.stick / f"{name}.raucb")  # type: ignore[arg-type]

    def _install(self, path: Path) -> str:
        self.installed.append(path.name)
        if self.answer == "no":
            raise UsageError("another update is on its way")
        if self.answer == "broken":
            raise InstallError("no space left")
        return self.answer

    def _wait(self) -> None:
        self.waited += 1

    def treat(self) -> list[str]:
        loader = boot.loader_of("x86-64", self.folder)
        slots = rauc.RaucSlots(
            board="x86-64",
            version=parse(self.running),
            slot="b",
            trial=self.trial,
            loader=loader,
            places=rauc.Places(keyring=pair("ours").keyring),
        )
        return usb.Stick(
            slots=slots, records=self.records, install=self._install, trial_ends=self._wait
        ).treat(self.stick)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_newest_is_installed_and_the_others_are_told_why_not(desk: Desk) -> None:
    desk.put("one", V2)
    desk.put("two", V3)
    desk.put("old", "v1.36.2+pinnace9")
    desk.put("same", V1)
    host, *lines = desk.treat()
    assert host.endswith(f": {V1} runs")
    assert desk.installed == ["two.raucb"]
    assert lines == [
        f"two.raucb ({V3}): was written",
        f"old.raucb (v1.36.2+pinnace9): is older than {V1}, which runs",
        f"one.raucb ({V2}): {V3} is newer",
        f"same.raucb ({V1}): runs",
    ]


def test_the_newest_that_is_acceptable_counts(desk: Desk) -> None:
    desk.put("ours", V2)
    desk.put("strange", V3, by="stranger")
    desk.put("other", V3, board="rpi-arm64")
    (desk.stick / "noise.raucb").write_bytes(b"noise" * 1000)
    lines = desk.treat()
    assert desk.installed == ["ours.raucb"]
    assert "noise.raucb: NotABundle: this file is no update bundle" in lines
    assert "other.raucb: is for rpi-arm64" in lines
    assert any(line.startswith("strange.raucb: BadSignature: ") for line in lines)


def test_what_failed_before_is_not_tried_from_a_stick(desk: Desk) -> None:
    failure = Failure(at="2026-11-24T14:00:00Z", reason="not healthy")
    desk.records.remember_failed(V2, failure)
    desk.put("again", V2)
    lines = desk.treat()
    assert desk.installed == []
    assert lines[1] == (
        f"again.raucb ({V2}): was tried at 2026-11-24T14:00:00Z and left: not healthy"
    )


def test_a_refusal_of_the_updater_is_told(desk: Desk) -> None:
    desk.answer = "no"
    desk.put("one", V2)
    assert desk.treat()[1] == f"one.raucb ({V2}): refused: another update is on its way"


def test_what_did_not_work_is_told_and_may_be_tried_again(desk: Desk) -> None:
    desk.answer = "broken"
    desk.put("one", V2)
    assert desk.treat()[1] == f"one.raucb ({V2}): did not work this time: no space left"


def test_a_stick_without_bundles_is_nobodys_business(desk: Desk) -> None:
    (desk.stick / "holiday.jpg").write_bytes(b"x")
    assert desk.treat() == []


def test_the_end_of_the_trial_is_awaited_before_it_is_told(desk: Desk) -> None:
    desk.running, desk.trial = V2, True
    desk.put("one", V2)
    assert desk.treat()[1] == f"one.raucb ({V2}): runs"
    assert desk.waited == 1


def test_whoever_waits_is_woken_by_a_file_that_is_replaced(tmp_path: Path) -> None:
    def replace() -> None:
        (tmp_path / "new").write_text("x")
        (tmp_path / "new").rename(tmp_path / "state.json")

    asked: list[bool] = []

    def ended() -> bool:
        if not asked:
            threading.Thread(target=replace).start()
        asked.append((tmp_path / "state.json").exists())
        return asked[-1]

    usb.await_change(tmp_path, ended, 30)
    assert asked[-1]


def test_the_setting_of_the_first_boot_counts(tmp_path: Path) -> None:
    summary = tmp_path / "appliance.json"
    assert usb.is_allowed(summary)
    for value, allowed in ((True, True), (False, False)):
        summary.write_text(json.dumps({"usbUpdates": value}))
        assert usb.is_allowed(summary) is allowed
    summary.write_text("{")
    assert not usb.is_allowed(summary)


def test_the_machines_own_disk_is_no_stick(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    assert not usb.is_own(Path("/dev/sda1"), disk)
    disk.write_text("/dev/sda\n")
    assert usb.is_own(Path("/dev/sda1"), disk)
    assert not usb.is_own(Path("/dev/sdb1"), disk)
    assert not usb.is_own(Path("/dev/sdaa1"), disk)


def test_the_result_is_written_only_where_it_is_new(tmp_path: Path) -> None:
    usb.write_result(tmp_path, ["one", "two"])
    path = tmp_path / usb.RESULT
    assert path.read_bytes() == b"one\r\ntwo\r\n"
    before = path.stat().st_mtime_ns
    usb.write_result(tmp_path, ["one", "two"])
    assert path.stat().st_mtime_ns == before
    usb.write_result(tmp_path, ["three"])
    assert path.read_bytes() == b"three\r\n"
