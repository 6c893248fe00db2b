"""
Is a bolt database, in which containerd keeps what it knows, whole? Read without its library.

Two meta pages take turns, each with a checksum; the tree that the newer one names has pages that
say what they are and which they are. Source: the file format as bolt's own ``page.go``,
``meta.go`` and ``bucket.go`` lay it out.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

_MAGIC, _VERSION = 0xED0CDAED, 2
_BRANCH, _LEAF, _BUCKET = 0x01, 0x02, 0x01
_PAGE_HEAD = struct.Struct("<QHHI")
_META = struct.Struct(
    "<IIIIQQQQQQ"
)  # magic … root, its sequence, freelist, pages, transaction, sum
_BRANCH_ITEM = struct.Struct("<IIQ")
_LEAF_ITEM = struct.Struct("<IIII")
_MOST_PAGES = 1_000_000


def wrong_with(path: Path) -> str:
    """ "" for a database that is whole or not there. Raises OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ""
    try:
        size, root, pages = _newest(data)
        seen: set[int] = set()
        for number in _walk(data, size, root):
            if number in seen or number >= pages or len(seen) > _MOST_PAGES:
                return f"page {number} is used twice or beyond the end"
            seen.add(number)
    except (ValueError, struct.error) as err:
        return str(err)
    return ""


def _newest(data: bytes) -> tuple[int, int, int]:
    """Size of a page, root page, number of pages: of the newer meta page that is whole."""
    found = []
    for place in (0, int.from_bytes(data[24:28], "little") or 4096, 4096):
        try:
            fields = _META.unpack_from(data, place + _PAGE_HEAD.size)
        except struct.error:
            continue
        start = place + _PAGE_HEAD.size
        whole = fields[:2] == (_MAGIC, _VERSION) and fields[9] == _sum(data[start : start + 56])
        if whole:
            found.append((fields[8], fields[2], fields[4], fields[7]))
    if not found:
        raise ValueError("neither of its meta pages is whole")
    _, size, root, pages = max(found)
    return size, root, pages


def _sum(data: bytes) -> int:
    """FNV-1a of 64 bits."""
    result = 0xCBF29CE484222325
    for byte in data:
        result = (result ^ byte) * 0x100000001B3 % 2**64
    return result


def _walk(data: bytes, size: int, root: int) -> Iterator[int]:
    """The numbers of all pages of the tree, those of the buckets within it too."""
    pending = [root]
    while pending:
        number = pending.pop()
        yield number
        start = number * size
        if start + size > len(data):
            raise ValueError(f"page {number} is not in the file")
        named, flags, count, overflow = _PAGE_HEAD.unpack_from(data, start)
        end = start + (1 + overflow) * size
        if named != number or flags not in {_BRANCH, _LEAF} or end > len(data):
            raise ValueError(f"page {number} is none of its tree")
        page = data[start:end]
        pending += _below(page, flags, count)


def _below(page: bytes, flags: int, count: int) -> list[int]:
    found: list[int] = []
    for index in range(count):
        if flags == _BRANCH:
            place = _PAGE_HEAD.size + index * _BRANCH_ITEM.size
            found.append(_BRANCH_ITEM.unpack_from(page, place)[2])
            continue
        place = _PAGE_HEAD.size + index * _LEAF_ITEM.size
        kind, at, key, value = _LEAF_ITEM.unpack_from(page, place)
        if place + at + key + value > len(page):
            raise ValueError("an item reaches beyond its page")
        if kind & _BUCKET:
            root = int.from_bytes(page[place + at + key : place + at + key + 8], "little")
            if root:  # else the bucket is small and within this very item
                found.append(root)
    return found
