"""Real loop devices as cards: what is in use is refused, what is free is written and read back."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.flash import devices, plan, run
from node.flash.fat import Fat
from node.host import mounts
from tests.unit.firstboot.files import WHOLE
from tests.unit.flash import images

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices and mounts need root"),
    pytest.mark.skipif(
        not shutil.which("mkfs.fat"), reason="mkfs.fat (Debian: dosfstools) is not installed"
    ),
]
SIZE = 40 * images.MIB


def losetup(*argv: str) -> str:
    done = subprocess.run(["losetup", *argv], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Path]:
    """A disk with something old all over it."""
    file = tmp_path / "card"
    file.write_bytes(b"\xa5" * SIZE)
    try:
        device = losetup("--find", "--show", "--partscan", str(file))
    except subprocess.CalledProcessError as err:
        pytest.skip(f"there are no loop devices here: {err.stderr.strip()}")
    yield Path(device)
    losetup("--detach", device)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "x.img"
    path.write_bytes(images.image(images.fat(images.CONFIG_SIZE)))
    return path


def flash(image: Path, device: Path, *more: str) -> tuple[int, str]:
    said: list[str] = []
    words = ["--image", str(image), "--yes", f"--force={device}", *more, str(device)]
    return run.main(words, said.append, said.append), said[-1]


def test_a_disk_is_written_and_nothing_old_is_left_in_it(
    card: Path, image: Path, tmp_path: Path
) -> None:
    assert flash(image, card) == (0, f"{card} is ready")
    content = image.read_bytes()
    with card.open("rb") as file:
        assert file.read(len(content)) == content
        rest = file.read()
    assert rest[-images.MIB :] == bytes(images.MIB)  # where an old copy of the table would lie
    assert set(rest[: -images.MIB]) == {0xA5}


def test_the_first_partition_is_whole_and_has_the_files(
    card: Path, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "manifests/sub").mkdir(parents=True)
    (tmp_path / "manifests/sub/long name of a manifest.yaml").write_text("kind: A\n")
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps/web.yaml").write_text("kind: Web\n")
    (tmp_path / "pinnace.yaml").write_text(WHOLE)
    code, said = flash(image, card, "--config", str(tmp_path / "pinnace.yaml"))
    assert code == 0, said
    part = tmp_path / "part"
    with card.open("rb") as file:
        file.seek(images.CONFIG)
        part.write_bytes(file.read(images.CONFIG_SIZE))
    done = subprocess.run(["fsck.fat", "-n", str(part)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    wanted = {
        "pinnace.yaml": WHOLE,
        "manifests/sub/long name of a manifest.yaml": "kind: A\n",
        "APPS/WEB.YAML": "kind: Web\n",
    }
    if shutil.which("mtype"):
        for name, text in wanted.items():
            argv = ["mtype", "-i", str(part), f"::/{name}"]
            assert subprocess.run(argv, capture_output=True, check=True).stdout == text.encode()
    _read_by_the_kernel(part, tmp_path / "mnt", wanted)


def _read_by_the_kernel(part: Path, target: Path, wanted: dict[str, str]) -> None:
    if "vfat" not in Path("/proc/filesystems").read_text():
        return  # mtools have read it
    target.mkdir()
    subprocess.run(["mount", "-o", "loop,ro", str(part), str(target)], check=True)
    try:
        for name, text in wanted.items():
            assert (target / name).read_text() == text
    finally:
        mounts.unmount(target)


def test_a_disk_of_this_machine_is_named_by_force_or_refused(card: Path, image: Path) -> None:
    said: list[str] = []
    words = ["--image", str(image), "--yes", str(card)]
    assert run.main(words, said.append, said.append) == 1
    assert f"--force={card}" in said[-1]


def test_a_card_that_is_too_small_is_refused(card: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.img"
    content = images.image(images.fat(images.CONFIG_SIZE), size=SIZE + images.MIB)
    large.write_bytes(content)
    code, said = flash(large, card)
    assert code == 1
    assert "too small" in said


def test_a_mounted_disk_is_refused_and_stays_as_it_is(
    card: Path, image: Path, tmp_path: Path
) -> None:
    subprocess.run(["mkfs.ext4", "-q", str(card)], check=True, capture_output=True)
    target = tmp_path / "mnt"
    target.mkdir()
    mounts.mount(str(card), target, "ext4")
    try:
        before = (target / "x").write_text("precious")
        code, said = flash(image, card)
        assert code == 1
        assert f"is mounted at {target}" in said
        assert len((target / "x").read_text()) == before
    finally:
        mounts.unmount(target)


def test_swap_is_refused(card: Path, image: Path) -> None:
    subprocess.run(["mkswap", str(card)], check=True, capture_output=True)
    on = subprocess.run(["swapon", str(card)], capture_output=True, text=True)
    if on.returncode:
        pytest.skip(f"no swap can be used here: {on.stderr.strip()}")
    try:
        code, said = flash(image, card)
        assert code == 1
        assert "is swap" in said
    finally:
        subprocess.run(["swapoff", str(card)], check=True)


def test_a_disk_that_somebody_holds_is_refused(card: Path, image: Path) -> None:
    """As a file system that is mounted in another namespace does."""
    held = os.open(card, os.O_RDONLY | os.O_EXCL)
    try:
        code, said = flash(image, card)
        assert code == 1
        assert "in use by the system" in said
    finally:
        os.close(held)


def test_a_partition_is_refused_with_the_name_of_its_disk(card: Path, image: Path) -> None:
    assert flash(image, card)[0] == 0
    part = Path(f"{card}p1")
    if not part.exists():
        pytest.skip("no device is made for a partition here")
    code, said = flash(image, part)
    assert code == 1
    assert f"the whole disk, {card}" in said


def test_what_holds_this_system_is_known() -> None:
    root = Path("/").stat().st_dev
    link = Path("/sys/dev/block") / f"{os.major(root)}:{os.minor(root)}"
    if not link.exists():
        pytest.skip("the root of this machine lies on no disk")
    disk = devices.described(link, "/dev/x", Path("/proc"))
    found = devices.described(
        Path("/sys/class/block") / (disk.parent or disk.name), "/dev/x", Path("/proc")
    )
    assert "own disk" in plan.refusal(found, 1, "/dev/x")


def test_a_write_protected_disk_is_refused(card: Path, image: Path, tmp_path: Path) -> None:
    file = tmp_path / "other"
    file.write_bytes(bytes(SIZE))
    device = losetup("--find", "--show", "--read-only", str(file))
    try:
        code, said = flash(image, Path(device))
        assert code == 1
        assert "write-protected" in said
    finally:
        losetup("--detach", device)


def test_a_member_of_a_mapped_volume_is_refused(card: Path, image: Path) -> None:
    if not shutil.which("dmsetup"):
        pytest.skip("dmsetup is not installed")
    name = f"pinnace-flash-{os.getpid()}"
    table = f"0 {SIZE // 512} linear {card} 0"
    made = subprocess.run(["dmsetup", "create", name, "--table", table], capture_output=True)
    if made.returncode:
        pytest.skip(f"no mapped volume can be made here: {made.stderr.decode().strip()}")
    try:
        code, said = flash(image, card)
        assert code == 1
        assert "is part of dm-" in said
    finally:
        subprocess.run(["dmsetup", "remove", name], check=True)


def test_the_configuration_is_replaced_on_a_card_that_was_written_before(
    card: Path, image: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / "pinnace.yaml").write_text(f"hostname: {name}\n")
        assert flash(image, card, "--config", str(tmp_path / "pinnace.yaml"))[0] == 0
    with card.open("rb") as file:
        fat = Fat(file.fileno(), images.CONFIG, images.CONFIG_SIZE)
        assert fat.read_file("pinnace.yaml") == b"hostname: two\n"
