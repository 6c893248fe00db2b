"""Tables of partitions: written, read, grown, and what a power cut leaves of them."""

import os
import uuid
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from appliance import gpt as layouts

from node.appliance import gpt, grow

TABLE = layouts.layout("x86-64", "v1.36.3+pinnace1", layouts.Sizes(config=2, boot=2, root=2))
BYTES = TABLE.sectors * gpt.SECTOR


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(BYTES)
        file.write(layouts.mbr(TABLE))
    grow.write(path, TABLE)
    return path


def test_what_is_written_is_read_again(disk: Path) -> None:
    assert grow.read(disk) == TABLE


def test_the_copy_at_the_end_is_read_when_the_start_is_torn(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(2 * gpt.SECTOR)
        file.write(b"torn")
    assert grow.read(disk) == TABLE


def test_a_disk_without_a_table_is_none(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(gpt.TableError, match="no GPT header"):
        grow.read(path)


def test_the_last_partition_takes_what_a_larger_disk_has(disk: Path) -> None:
    os.truncate(disk, 64 << 20)
    assert grow.grow(disk, "data")
    table = grow.read(disk)
    data, before = table.named("data"), TABLE.named("data")
    assert data is not None
    assert before is not None
    assert table.sectors == (64 << 20) // gpt.SECTOR
    assert data.first == before.first
    assert data.last == table.sectors - 2048 - 1  # whole MiB, and room for the copy
    assert [p for p in table.partitions if p != data] == list(TABLE.partitions[:-1])


def test_growing_again_writes_nothing(disk: Path) -> None:
    os.truncate(disk, 64 << 20)
    grow.grow(disk, "data")
    before = disk.read_bytes()
    assert not grow.grow(disk, "data")
    assert disk.read_bytes() == before


def test_a_disk_that_is_too_small_is_left_alone(disk: Path) -> None:
    os.truncate(disk, BYTES - (4 << 20))
    before = disk.read_bytes()
    with pytest.raises(gpt.TableError, match="smaller than its partitions"):
        grow.grow(disk, "data")
    assert disk.read_bytes() == before


def test_wherever_growing_is_cut_off_there_is_one_valid_table(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 64 << 20
    os.truncate(disk, size)
    before = disk.read_bytes()
    writes: list[tuple[int, bytes]] = []
    real = os.pwrite

    def record(descriptor: int, data: bytes, offset: int) -> int:
        writes.extend((offset + at, data[at : at + 512]) for at in range(0, len(data), 512))
        return real(descriptor, data, offset)

    monkeypatch.setattr("os.pwrite", record)
    grow.grow(disk, "data")
    grown = grow.read(disk)
    disk.write_bytes(before)
    with disk.open("r+b", buffering=0) as file:
        for offset, sector in writes:
            file.seek(offset)
            file.write(sector)
            assert grow.read(disk) in (TABLE, grown)


def test_a_partition_is_marked_as_never_used_until_somebody_says_otherwise(disk: Path) -> None:
    assert grow.is_unused(disk, "data")
    assert not grow.is_unused(disk, "root-a")
    grow.set_unused(disk, "data", unused=False)
    assert not grow.is_unused(disk, "data")
    grow.set_unused(disk, "data", unused=True)
    assert grow.read(disk) == TABLE


@pytest.mark.parametrize(("disk_name", "expected"), [("sda", "sda6"), ("mmcblk0", "mmcblk0p6")])
def test_partitions_are_named_as_the_kernel_names_them(disk_name: str, expected: str) -> None:
    assert grow.partition_name(disk_name, 6) == expected


def test_the_mbr_protects_the_table_and_lists_what_old_firmware_reads() -> None:
    sector = layouts.mbr(TABLE)
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    rows = [sector[446 + 16 * n : 462 + 16 * n] for n in range(4)]
    assert [row[4] for row in rows] == [0x0C, 0x0C, 0x0C, 0xEE]
    starts = [int.from_bytes(row[8:12], "little") for row in rows]
    assert starts == [p.first for p in TABLE.partitions[:3]] + [1]
    assert int.from_bytes(rows[3][12:16], "little") == TABLE.partitions[0].first - 1


def test_the_mbr_of_a_table_alone_covers_the_disk() -> None:
    row = gpt.mbr()[446:462]
    assert row[4] == 0xEE
    assert int.from_bytes(row[12:16], "little") == 0xFFFFFFFF


def test_identities_follow_from_board_version_and_role() -> None:
    again = layouts.layout("x86-64", "v1.36.3+pinnace1", layouts.Sizes(config=2, boot=2, root=2))
    assert again == TABLE
    other = layouts.layout("x86-64", "v1.36.4+pinnace1", layouts.Sizes(config=2, boot=2, root=2))
    found = {p.identity for table in (TABLE, other) for p in table.partitions}
    assert len(found) == 12


def test_every_partition_begins_at_a_mib_and_none_overlap() -> None:
    for board in ("x86-64", "rpi-arm64"):
        table = layouts.layout(board, "v1.36.3+pinnace1", layouts.sizes(board))
        names = [p.name for p in table.partitions]
        assert names == ["config", "boot-a", "boot-b", "root-a", "root-b", "data"]
        ends = [0, *(p.last for p in table.partitions)]
        assert all(p.first > end for p, end in zip(table.partitions, ends, strict=False))
        assert all(p.first % 2048 == 0 for p in table.partitions)


def test_entries_of_another_size_are_read() -> None:
    # UEFI allows entries of 256 bytes; a tool that moved the table may have chosen so.
    head = bytearray(gpt.header(TABLE, copy=False))
    head[16:20] = bytes(4)
    array = gpt.entries(TABLE)
    wide = b"".join(array[at : at + 128] + bytes(128) for at in range(0, 128 * 8, 128))
    head[80:92] = b"".join(n.to_bytes(4, "little") for n in (8, 256, zlib.crc32(wide)))
    head[16:20] = zlib.crc32(bytes(head[:92])).to_bytes(4, "little")
    assert gpt.parse(bytes(head), wide) == TABLE


def test_a_table_with_something_behind_the_data_is_not_grown() -> None:
    data = TABLE.partitions[-1]
    more = replace(
        data, number=7, first=data.last + 1, last=data.last + 2048, name="x", identity=uuid.uuid4()
    )
    table = replace(TABLE, partitions=(*TABLE.partitions, more), sectors=TABLE.sectors + 4096)
    with pytest.raises(gpt.TableError, match="no last partition"):
        gpt.grown(table, table.sectors * 2, "data")
