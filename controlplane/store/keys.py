"""
Keys in byte order, so that a prefix is a slice.

One flat list: inserting moves pointers, which for the tens of thousands of keys
of an edge cluster costs microseconds and no memory beyond 8 bytes a key. The
order of code points in ``str`` is the byte order of UTF-8.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable


class Keys:
    """A sorted set of keys."""

    __slots__ = ("_sorted",)

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._sorted = sorted(keys)

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, key: str) -> None:
        """``key`` is absent."""
        insort(self._sorted, key)

    def remove(self, key: str) -> None:
        """``key`` is present."""
        del self._sorted[bisect_left(self._sorted, key)]

    def page(self, prefix: str, start: str, limit: int) -> tuple[list[str], int]:
        """The first ``limit`` (0: all) keys with the prefix from ``start`` on; how many follow."""
        lowest = bisect_left(self._sorted, max(prefix, start))
        end = after_prefix(prefix)
        highest = len(self._sorted) if end is None else bisect_left(self._sorted, end)
        highest = max(lowest, highest)
        last = min(highest, lowest + limit) if limit else highest
        return self._sorted[lowest:last], highest - last


def after_prefix(prefix: str) -> str | None:
    """The least string greater than all that begin with ``prefix``; None: there is none."""
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None
