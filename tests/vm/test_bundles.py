"""
The real RAUC on a real image: it writes what is good, and whoever changed a bundle gets nowhere.

The bundles are small, so that the kernel, RAUC and its dm-verity are what is tested; that a
whole release starts from its slot is the matter of ``test_story.py``.
"""

import json
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from appliance import bundle, keys

from node.update.bundle import LENGTH
from tests.fakes.bundles import V2, Bench, pair
from tests.vm.machine import MIB, Machine
from tests.vm.releases import FIRST, Releases

pytestmark = pytest.mark.skipif(not shutil.which("mksquashfs"), reason="needs mksquashfs")
BOARD = "x86-64"
_NODE_RESTS = "systemd.mask=pinnace.service"


def _flip(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 16
    return bytes(changed)


def _root(folder: Path, version: str, size: int) -> bytes:
    tree = folder / "usr/share/pinnace"
    tree.mkdir(parents=True)
    release = {"version": version, "board": BOARD, "epoch": 0}
    (tree / "release.json").write_text(json.dumps(release))
    (tree / "filling").write_bytes(random.Random(version).randbytes(size))
    made = folder.with_name(f"{folder.name}.squashfs")
    bundle.mksquashfs(folder, made, 0)
    return made.read_bytes()


def _make(folder: Path, trusted: Path) -> dict[str, bytes]:
    """By the name of the file; what is refused is named after its reason."""
    ours, bench = keys.load(trusted), Bench(folder, bundle.mksquashfs)
    root = _root(folder / "root", V2, 600_000)
    good = bench.make(V2, root=root, signer=ours).read_bytes()
    length = int.from_bytes(good[-LENGTH:])
    end = len(good) - LENGTH - length
    large = _root(folder / "large", "v1.36.6+pinnace1", 40 * MIB)
    made = {
        "good": good,
        "large": bench.make("v1.36.6+pinnace1", root=large, signer=ours).read_bytes(),
        "WrongBoard": bench.make(board="rpi-arm64", root=root, signer=ours).read_bytes(),
        "BadSignature": bench.make(root=root, signer=pair("stranger")).read_bytes(),
        "NotABundle": b"\x7fELF" * 9000,
        "Tampered-header": _flip(good, 41),
        "Tampered-payload": _flip(good, end // 2),
        "Tampered-tree": _flip(good, end - 4000),
        "Tampered-signature": _flip(good, end + length - 30),
        "Tampered-manifest": _flip(good, good.index(b"verity-hash=", end) + 20),
        "Tampered-length": _flip(good, len(good) - 1),
    }
    for number in range(1, 21):
        made[f"Truncated-{number}"] = good[: len(good) * number // 21]
    return made


def _disk(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """A FAT disk with bundles and what looks at them."""
    disk = folder / name
    subprocess.run(["mkfs.vfat", "-C", str(disk), str(128 << 10)], check=True, capture_output=True)
    sources = [Path(__file__).with_name("judge.py")]
    for name, content in files.items():
        sources.append(folder / f"{name}.raucb")
        sources[-1].write_bytes(content)
    argv = ["mcopy", "-i", str(disk), *map(str, sources), "::/"]
    subprocess.run(argv, check=True, capture_output=True)
    return disk


@dataclass(frozen=True, slots=True)
class Lab:
    machine: Machine
    stick: Path
    names: list[str]

    def start(self) -> None:
        self.machine.start()
        self.machine.wait_shell(600)
        self.machine.run("timeout 400 systemctl is-system-running --wait; true", seconds=420)
        self.machine.run("mkdir -p /run/bundles && mount -o ro -t vfat /dev/vdb /run/bundles")

    def judge(self, verb: str, *names: str) -> list[dict[str, Any]]:
        paths = " ".join(f"/run/bundles/{name}.raucb" for name in names)
        said = self.machine.run(f"python3 -I /run/bundles/judge.py {verb} {paths}", seconds=300)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def digest(self) -> str:
        """Of the running slot, so far as a bundle of these would reach."""
        names = "/dev/disk/by-partlabel/root-a /dev/disk/by-partlabel/boot-a"
        return self.machine.run(f"head -qc {41 * MIB} {names} | sha256sum", seconds=300)

    def slots(self) -> dict[str, Any]:
        [said] = self.judge("check", "good")
        return said


@pytest.fixture(scope="module")
def bench(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("bundles")
    made = _make(folder, releases.keys)
    disk = _disk(folder, "bundles.img", made)
    chosen = ("good", "WrongBoard", "BadSignature", "Tampered-manifest", "Truncated-9")
    stick = _disk(folder, "stick.img", {name: made[name] for name in chosen})
    with Machine(
        folder=folder / "machine",
        image=releases.disk,
        arguments=_NODE_RESTS,
        disks=(
            f"file={disk},format=raw,if=virtio,readonly=on",
            f"file={stick},format=raw,if=none,id=stick,cache=writethrough",
        ),
        options=("-device", "qemu-xhci,id=usb"),
        network="none",
    ) as machine:
        found = Lab(machine, stick, list(made))
        found.start()
        yield found


def test_each_attack_is_refused_with_its_reason(bench: Lab) -> None:
    before = bench.digest()
    names = [name for name in bench.names if name not in ("good", "large")]
    for said, name in zip(bench.judge("install", *names), names, strict=True):
        assert said["reason"] == name.partition("-")[0], said
        assert said["message"]
        assert said["other"] == ""
    assert bench.digest() == before


def test_rauc_and_the_kernel_refuse_what_nobody_had_checked(bench: Lab) -> None:
    before = bench.digest()
    names = [name for name in bench.names if name.startswith(("Tampered", "Bad"))]
    for said, name in zip(bench.judge("force", *names), names, strict=True):
        assert said["reason"] == name.partition("-")[0], said
        assert said["bad"], said
    assert bench.digest() == before
    state = bench.machine.run("cat /boot/pinnace/grubenv")
    assert "\nprimary=a\n" in state
    assert "\ntry=\n" in state
    assert "\nbad_b=1\n" in state


def test_a_good_bundle_is_written_and_nothing_of_rauc_stays(bench: Lab) -> None:
    [said] = bench.judge("install", "good")
    assert (said["reason"], said["other"], said["bad"]) == ("", V2, False), said
    assert said["percents"][-1] == 100
    assert len(said["percents"]) > 3
    written = "dd if=/dev/disk/by-partlabel/root-b bs=4096 count=100 status=none | sha256sum"
    source = "dd if=/run/one/root.squashfs bs=4096 count=100 status=none | sha256sum"
    mount = "mkdir -p /run/one && mount -o loop,ro -t squashfs /run/bundles/good.raucb /run/one"
    run = bench.machine.run
    run(mount)
    assert run(written) == run(source)
    run("umount /run/one")
    assert run("systemctl is-active rauc.service; true").strip() == "inactive"
    assert "rauc" not in run("cat /proc/mounts; ls /dev/mapper")
    assert run("mount | grep ' /boot/pinnace '").count("(ro,") == 1


def test_rauc_itself_knows_the_slots(bench: Lab) -> None:
    told = json.loads(
        bench.machine.run(
            "systemctl start rauc.service; rauc status --output-format=json 2>/dev/null"
        )
    )
    bench.machine.run("systemctl stop rauc.service")
    assert (told["compatible"], told["booted"], told["boot_primary"]) == (
        f"pinnace-{BOARD}",
        "a",
        "rootfs.0",
    )


def test_a_stick_is_noticed_judged_and_written_to(bench: Lab) -> None:
    machine = bench.machine
    bench.judge("install", "large")  # the stick's must take its place
    since = machine.console.length
    machine.monitor("device_add", driver="usb-storage", drive="stick", bus="usb.0", id="plug")
    machine.until("update from USB: good.raucb .*was written", 300, since=since)
    machine.until("update from USB: WrongBoard.raucb: is for rpi-arm64", 60, since=since)
    # Until the result is on it, its service is starting; that of a service once is "inactive".
    ended = "systemctl show -P ActiveState pinnace-usb@sda | grep -qx inactive"
    machine.run(f"until {ended}; do sleep 0.2; done; sync", seconds=120)
    assert bench.slots()["other"] == V2
    told = subprocess.run(
        ["mtype", "-i", str(bench.stick), "::/pinnace-update.txt"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = told.stdout.splitlines()
    assert f": {FIRST} runs" in lines[0]
    assert lines[1].startswith(f"good.raucb ({V2}): was written")
    for name in ("BadSignature", "Tampered", "Truncated"):
        assert any(f": {name}: " in line for line in lines[2:]), name


def test_the_power_goes_while_a_slot_is_written(bench: Lab) -> None:
    machine = bench.machine
    before = bench.digest()
    judge = "python3 -I /run/bundles/judge.py install /run/bundles/large.raucb"
    for bytes_written in (1, 8 * MIB, 24 * MIB):
        machine.run(f"nohup {judge} >/dev/null 2>&1 &")
        status = "/sys/class/block/$(basename $(readlink -f /dev/disk/by-partlabel/root-b))/stat"
        start = f"b=$(awk '{{print $7}}' {status})"
        moved = f"[ $(($(awk '{{print $7}}' {status}) - b)) -gt {bytes_written // 512} ]"
        machine.run(f"{start}; until {moved}; do sleep 0.05; done", seconds=120)
        machine.power_cut()
        bench.start()
        said = bench.slots()
        assert (said["other"], said["bad"]) == ("", True), said
        assert machine.run("cat /run/pinnace-boot/slot").strip() == "a"
    assert bench.digest() == before
    [said] = bench.judge("install", "large")
    assert (said["reason"], said["other"]) == ("", "v1.36.6+pinnace1"), said
    assert FIRST in machine.run("cat /usr/share/pinnace/release.json")


def test_a_slot_that_starts_nothing_is_left_by_the_boot_loader(bench: Lab) -> None:
    """The large bundle has no kernel: the one try is spent, and the old slot runs again."""
    script = (
        "import asyncio; from node.update import rauc; s = rauc.of_machine();"
        "asyncio.run(s.try_once()); asyncio.run(s.restart())"
    )
    machine = bench.machine
    since = machine.console.length
    machine.run(f'python3 -I -c "{script}"')
    machine.until("Slot b cannot be loaded", 300, since=since)
    machine.wait_shell(300)
    assert machine.run("cat /run/pinnace-boot/slot; ls /run/pinnace-boot").split()[0] == "a"
    assert "\ntry=\n" in machine.run("cat /boot/pinnace/grubenv")
