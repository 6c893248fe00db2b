"""What the kernel's tables say: mounts, and the health of a file system."""

import struct
from pathlib import Path

import pytest

from node.host import ext4, mountinfo
from node.host.ext4 import Health

TABLE = r"""21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 21 7:3 / /srv/my\040data rw,noatime shared:9 master:2 - ext4 /dev/loop3 rw,discard
41 21 0:50 / /srv/my\040data ro - tmpfs tmpfs rw,size=1024k
42 21 7:4 / /srv/broken rw - ext4 /dev/loop4 ro,errors=remount-ro
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return path


def test_the_last_mount_of_a_place_is_what_a_path_shows(table: Path) -> None:
    found = mountinfo.at(Path("/srv/my data"), table)
    assert found is not None
    assert (found.kind, found.source, found.device, found.read_only) == (
        "tmpfs",
        "tmpfs",
        (0, 50),
        True,
    )
    assert mountinfo.at(Path("/srv"), table) is None


def test_a_file_system_that_became_read_only_is_told_from_its_mount(table: Path) -> None:
    found = mountinfo.at(Path("/srv/broken"), table)
    assert found is not None
    assert found.read_only
    first = next(mountinfo.mounts(table))
    assert (first.point, first.device, first.read_only) == (Path("/"), (8, 1), False)


def superblock(path: Path, state: int, features: int, magic: int = 0xEF53) -> Path:
    block = bytearray(2048)
    struct.pack_into("<HH", block, 1024 + 0x38, magic, state)
    struct.pack_into("<I", block, 1024 + 0x5C, features)
    path.write_bytes(block)
    return path


JOURNAL = 0x4


@pytest.mark.parametrize(
    ("state", "features", "expected", "check"),
    [
        (1, JOURNAL, Health(clean=True, errors=False), False),
        (0, JOURNAL, Health(clean=True, errors=False), False),  # the journal makes it so
        (0, 0, Health(clean=False, errors=False), True),
        (3, JOURNAL, Health(clean=True, errors=True), True),
    ],
)
def test_a_file_system_is_checked_where_its_journal_is_not_enough(
    tmp_path: Path, *, state: int, features: int, expected: Health, check: bool
) -> None:
    found = ext4.health(superblock(tmp_path / "disk", state, features))
    assert found == expected
    assert found.needs_check is check


def test_what_is_no_file_system_has_no_health(tmp_path: Path) -> None:
    assert ext4.health(superblock(tmp_path / "disk", 1, 0, magic=0)) is None
    (tmp_path / "short").write_bytes(b"\0" * 100)
    assert ext4.health(tmp_path / "short") is None
