"""What a Raspberry Pi's firmware finds: on the first partition, and on those of the slots."""

import contextlib
import subprocess
from pathlib import Path

import pytest
from appliance import boards, gpt, image, raspberry
from appliance.raspberry import FirmwareError

from node.update.boot import State, TryBoot
from tests.unit.images.test_disk import HostTools, needs_mtools

TREES = ("bcm2711-rpi-4-b.dtb", "bcm2837-rpi-3-b.dtb", "bcm2837-rpi-zero-2-w.dtb")
INIT = image.FILES / "init"


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    """What the packages bring, in short."""
    folder = tmp_path / "boot"
    firmware, trees = folder / "raspi-firmware", folder / "linux-image-6.12.1-arm64"
    for place in (firmware / "overlays", trees / "broadcom", trees / "rockchip"):
        place.mkdir(parents=True)
    for stem in ("start", "start4", "start_x", "start_cd", "start4cd"):
        (firmware / f"{stem}.elf").write_bytes(stem.encode())
        (firmware / f"{stem.replace('start', 'fixup')}.dat").write_bytes(b"dat")
    (firmware / "bootcode.bin").write_bytes(b"code")
    (firmware / "overlays/pi4-spidev.dtbo").write_bytes(b"overlay")
    for name in TREES:
        (trees / "broadcom" / name).write_bytes(b"tree")
    (trees / "rockchip/rk3399-rockpro64.dtb").write_bytes(b"tree")
    return folder


def setting(text: bytes | Path, name: str) -> str:
    """Of a config.txt whose lines hold for every board."""
    assert isinstance(text, bytes)
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    [value] = [line.removeprefix(f"{name}=") for line in lines if line.startswith(f"{name}=")]
    return value


def test_the_first_partition_says_which_slot_is_next(boot: Path) -> None:
    found = dict(raspberry.first_files(boot))
    content = found["autoboot.txt"]
    assert isinstance(content, bytes)
    assert len(content) <= 512
    lines = [line for line in content.decode().split("\n") if line and not line.startswith("#")]
    assert lines == [
        "[all]",
        "tryboot_a_b=1",
        "boot_partition=2",
        "[tryboot]",
        "boot_partition=3",
    ]


def test_an_older_board_finds_its_boot_loader_on_the_first_partition_only(boot: Path) -> None:
    first = dict(raspberry.first_files(boot))
    slot = dict(raspberry.slot_files(boards.RPI_ARM64, boot))
    assert first["bootcode.bin"] == boot / "raspi-firmware/bootcode.bin"
    assert "config.txt" in first
    assert "bootcode.bin" not in slot
    assert "autoboot.txt" not in slot


def test_a_slot_has_the_programs_of_all_boards_and_their_device_trees(boot: Path) -> None:
    found = set(raspberry_names(boot))
    assert found == {
        *("start.elf", "fixup.dat", "start_cd.elf", "fixup_cd.dat"),
        *("start4.elf", "fixup4.dat", "start4cd.elf", "fixup4cd.dat"),
        *("config.txt", "cmdline.txt", "overlays/pi4-spidev.dtbo", *TREES),
    }


def raspberry_names(boot: Path) -> list[str]:
    return [name for name, _ in raspberry.slot_files(boards.RPI_ARM64, boot)]


def test_the_configuration_names_what_lies_beside_it(boot: Path) -> None:
    text = dict(raspberry.slot_files(boards.RPI_ARM64, boot))["config.txt"]
    assert setting(text, "arm_64bit") == "1"
    assert setting(text, "upstream_kernel") == "1"  # or trees by Linux's names are not found
    assert setting(text, "kernel") == image.KERNEL
    assert setting(text, "enable_uart") == "1"
    assert isinstance(text, bytes)
    assert f"\ninitramfs {image.RAMDISK} followkernel\n" in text.decode()


def test_the_command_line_is_one_line_without_a_slot(boot: Path) -> None:
    text = dict(raspberry.slot_files(boards.RPI_ARM64, boot))["cmdline.txt"]
    assert isinstance(text, bytes)
    assert text.count(b"\n") == 1
    words = text.decode().split()
    assert {"console=ttyS1,115200n8", "console=tty0", "panic=10", "cgroup_enable=memory"} <= {
        *words
    }
    assert not any(word.startswith(("pinnace.slot", "root=")) for word in words)


@pytest.mark.parametrize("name", ["start.elf", "start4.elf"])
def test_a_package_without_a_program_is_refused(boot: Path, name: str) -> None:
    (boot / "raspi-firmware" / name).unlink()
    with pytest.raises(FirmwareError, match=name):
        raspberry_names(boot)


def test_a_kernel_without_device_trees_is_refused(boot: Path) -> None:
    for path in boot.rglob("bcm*.dtb"):
        path.unlink()
    with pytest.raises(FirmwareError, match="no device trees"):
        raspberry_names(boot)


def test_the_kernel_is_packed_the_same_each_time(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bytes(range(256)) * 1000)
    made = [raspberry.packed(HostTools(root=Path("/")), kernel) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0][:2] == b"\x1f\x8b"  # by which the firmware knows
    assert len(made[0]) < 10_000


@needs_mtools
def test_two_builds_of_the_partitions_are_the_same_bytes(boot: Path, tmp_path: Path) -> None:
    made = [fats(boot, tmp_path / name) for name in ("one", "two")]
    assert made[0] == made[1]
    listed = subprocess.run(
        ["mdir", "-b", "-i", str(tmp_path / "one/boot.img"), "::/"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    assert {"::/vmlinuz", "::/initrd.img", "::/config.txt", "::/start4.elf"} <= set(listed)


def fats(boot: Path, folder: Path) -> tuple[bytes, bytes]:
    """The config partition and a slot's, as an image has them."""
    folder.mkdir()
    parts = image.Parts(
        board=boards.RPI_ARM64,
        version="v1.36.3+pinnace1",
        epoch=1_790_000_000,
        root=folder,
        kernel=INIT,
        modules=folder,
        busybox=folder,
        firmware=boot,
    )
    tools = HostTools(root=Path("/"))
    image.make_boot(tools, parts, folder / "boot.img", b"ramdisk")
    image.make_config(tools, parts, folder / "config.img")
    return (folder / "boot.img").read_bytes(), (folder / "config.img").read_bytes()


def test_partitions_have_room_for_years_and_stand_in_the_old_table() -> None:
    sizes = gpt.sizes("rpi-arm64")
    assert sizes.boot >= 128
    table = gpt.layout("rpi-arm64", "v1.36.3+pinnace1", sizes)
    sector = gpt.mbr(table)
    entries = [sector[446 + 16 * at : 462 + 16 * at] for at in range(4)]
    kinds = [entry[4] for entry in entries]
    assert sorted(kinds) == [0x0C, 0x0C, 0x0C, 0xEE]
    starts = [int.from_bytes(e[8:12], "little") for e in entries if e[4] == 0x0C]
    assert starts == [part.first for part in table.partitions[:3]]


# The RAM disk's part


@pytest.mark.parametrize("slot", ["a", "b"])
@pytest.mark.parametrize("tried", ["", "a", "b"])
def test_the_ram_disk_takes_the_try_of_its_own_slot_back(
    tmp_path: Path, slot: str, tried: str
) -> None:
    primary = {"a": "b", "b": "a"}.get(tried, "a")
    loader = TryBoot(tmp_path / "autoboot.txt", contextlib.nullcontext)
    before = State(primary=primary, try_once=tried, good=frozenset("ab"))
    loader.write(before)
    old = loader.path.read_bytes()
    trial = take_try_back(tmp_path, slot)
    if tried == slot:
        assert trial == "1"
        assert loader.read() == State(primary=primary, good=frozenset("ab"))
        new = loader.path.read_bytes()
        loader.path.unlink()
        loader.write(State(primary=primary, good=frozenset("ab")))
        assert loader.path.read_bytes() == new  # as the machine would have written it
    else:
        assert trial == ""
        assert loader.path.read_bytes() == old


def take_try_back(folder: Path, slot: str) -> str:
    """Of the script, with ``folder`` for the mounted partition; what ``trial`` is then."""
    text = INIT.read_text().partition("take_try_back() {")[2].partition("\n}\n")[0]
    (folder / "run").mkdir()
    places = {"/root/": f"{folder}/", "/run/": f"{folder}/run/", "/proc/device-tree": str(folder)}
    for old, new in places.items():
        text = text.replace(old, new)
    stubs = "labelled() { echo vda1; }; mount() { :; }; umount() { :; }; trial="
    script = f"{stubs}\ntake() {{{text}\n}}\nslot={slot}\ntake\necho $trial"
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()
