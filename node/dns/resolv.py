"""
Which servers answer for the world: the machine's resolv.conf, read again when it changes.

Whoever manages the network rewrites the file at any time; a look at its
modification time when a query is forwarded is enough to notice.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

DNS_PORT = 53


class Upstream(NamedTuple):
    address: str
    port: int


def parse(text: str, *, not_these: Iterable[str] = ()) -> tuple[Upstream, ...]:
    """The nameservers in order, without our own addresses: asking ourselves would never end."""
    own = frozenset(not_these)
    found = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2 or words[0] != "nameserver" or words[1] in own:
            continue
        try:
            ip_address(words[1].partition("%")[0])
        except ValueError:
            continue
        found.append(Upstream(words[1], DNS_PORT))
    return tuple(dict.fromkeys(found))


class ResolvConf:
    """Its mutable state is what the file said when it was last read."""

    def __init__(self, path: Path, *, not_these: Iterable[str]) -> None:
        self._path = path
        self._own = frozenset(not_these)
        self._seen: tuple[int, int] | None = None
        self._upstreams: tuple[Upstream, ...] = ()

    def upstreams(self) -> tuple[Upstream, ...]:
        """One stat of a file that is in the page cache; empty where there is none."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                text = self._path.read_text(errors="replace")
                self._upstreams = parse(text, not_these=self._own)
                self._seen = seen
        except OSError:
            self._seen, self._upstreams = None, ()
        return self._upstreams
