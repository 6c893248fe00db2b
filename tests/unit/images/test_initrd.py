"""The initial RAM disk: its archive, and which modules are in it."""

import io
import lzma
import stat
import subprocess
from pathlib import Path

import pytest
from appliance import initrd
from appliance.initrd import Entry, InitrdError

NAMES = ("squashfs", "overlay", "ext4", "jbd2", "vfat", "fat", "nls_cp437", "nls_ascii")


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / "lib/modules/6.12.1-amd64"
    (folder / "kernel/fs").mkdir(parents=True)
    for name in (*NAMES, "crc32c_generic", "crc32c-intel", "virtio_blk", "sound"):
        data = lzma.compress(f"\x7fELF {name}".encode())
        (folder / f"kernel/fs/{name}.ko.xz").write_bytes(data)
    needs = {"ext4": "kernel/fs/jbd2.ko.xz", "vfat": "kernel/fs/fat.ko.xz"}
    names = [path.name.partition(".")[0] for path in (folder / "kernel/fs").iterdir()]
    dep = "".join(f"kernel/fs/{name}.ko.xz: {needs.get(name, '')}\n" for name in names)
    (folder / "modules.dep").write_text(dep)
    (folder / "modules.softdep").write_text("# from modules\nsoftdep ext4 pre: crc32c\n")
    (folder / "modules.alias").write_text(
        "alias fs-ext4 ext4\nalias crc32c crc32c_generic\nalias crc32c crc32c_intel\n"
        "alias virtio:d00000002v* virtio_blk\nalias snd-* sound\n"
    )
    (folder / "modules.builtin").write_text("kernel/drivers/virtio/virtio_pci.ko\n")
    return folder


def test_busybox_reads_the_archive() -> None:
    made = initrd.archive(
        {
            "bin/busybox": initrd.file(b"program", 0o755),
            "bin/sh": initrd.link("busybox"),
            "empty": initrd.file(b""),
        }
    )
    done = subprocess.run(["busybox", "cpio", "-tv"], input=made, capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == [
        "drwxr-xr-x",
        "-rwxr-xr-x",
        "lrwxrwxrwx",
        "-rw-r--r--",
    ]
    assert lines[2].endswith("bin/sh -> busybox")


def test_the_archive_is_what_the_kernel_documents() -> None:
    made = io.BytesIO(initrd.archive({"dev/console": Entry(mode=stat.S_IFCHR, device=(5, 1))}))
    found = {}
    while True:
        head = made.read(110)
        assert head[:6] == b"070701"
        fields = [int(head[at : at + 8], 16) for at in range(6, 110, 8)]
        name = made.read(fields[11]).rstrip(b"\0").decode()
        made.seek(-made.tell() % 4, io.SEEK_CUR)
        made.seek(fields[6] + -fields[6] % 4, io.SEEK_CUR)
        if name == "TRAILER!!!":
            break
        found[name] = fields
    assert list(found) == ["dev", "dev/console"]
    mode, user, group, time = (found["dev/console"][at] for at in (1, 2, 3, 5))
    assert (stat.S_ISCHR(mode), user, group, time) == (True, 0, 0, 0)
    assert found["dev/console"][9:11] == [5, 1]


def test_modules_come_with_what_they_need_and_softly_need(modules: Path) -> None:
    read = initrd.read_modules(modules)
    assert read.closure(["ext4"]) == ["crc32c_generic", "crc32c_intel", "ext4", "jbd2"]


def test_only_drivers_of_disks_are_taken_and_unpacked(modules: Path) -> None:
    found = initrd.module_files(initrd.read_modules(modules))
    base = "lib/modules/6.12.1-amd64"
    taken = {path for path in found if path.endswith(".ko")}
    assert f"{base}/kernel/fs/virtio_blk.ko" in taken
    assert f"{base}/kernel/fs/sound.ko" not in taken
    assert found[f"{base}/kernel/fs/ext4.ko"].data == b"\x7fELF ext4"


def test_the_lists_for_modprobe_name_only_what_is_there(modules: Path) -> None:
    found = initrd.module_files(initrd.read_modules(modules))
    base = "lib/modules/6.12.1-amd64"
    dep = found[f"{base}/modules.dep"].data.decode().splitlines()
    assert "kernel/fs/ext4.ko: kernel/fs/jbd2.ko" in dep
    assert not any(".xz" in line or "sound" in line for line in dep)
    alias = found[f"{base}/modules.alias"].data.decode()
    assert "alias virtio:d00000002v* virtio_blk\n" in alias
    assert "snd" not in alias
    assert found[f"{base}/modules.softdep"].data == b"softdep ext4 pre: crc32c\n"


def test_a_kernel_that_cannot_mount_the_root_is_refused(modules: Path) -> None:
    dep = modules / "modules.dep"
    lines = [line for line in dep.read_text().splitlines(True) if "squashfs" not in line]
    dep.write_text("".join(lines))
    with pytest.raises(InitrdError, match=r"6\.12\.1-amd64 has no squashfs"):
        initrd.module_files(initrd.read_modules(modules))


def test_what_is_built_in_need_not_be_a_module(modules: Path) -> None:
    dep = modules / "modules.dep"
    lines = [line for line in dep.read_text().splitlines(True) if "squashfs" not in line]
    dep.write_text("".join(lines))
    (modules / "modules.builtin").write_text("kernel/fs/squashfs/squashfs.ko\n")
    assert initrd.module_files(initrd.read_modules(modules))


def test_modules_without_their_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InitrdError, match="run depmod"):
        initrd.read_modules(tmp_path)


def test_the_same_parts_give_the_same_bytes(modules: Path, tmp_path: Path) -> None:
    for name in ("init", "event"):
        (tmp_path / name).write_text("#!/bin/sh\n")
    read = initrd.read_modules(modules)
    made = [initrd.build(read, b"busybox", tmp_path) for _ in range(2)]
    assert made[0] == made[1]
    assert len(made[0]) % 512 == 0
