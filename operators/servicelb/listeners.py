"""
Programs of this node that others reach: their ports are not for a Service.

An SSH server that nobody reaches any more is worse than a Service without an address. What
listens in a pod is left out, and so are the programs of this daemon: their ports are told by
the API. Linux tells no one when a program begins or ends to listen, so the kernel's
tables are read when somebody wants a port that it did not have.
Source: proc(5), /proc/net/tcp and /proc/pid/fd.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from sys import byteorder

PortKey = tuple[str, int]
_TABLES = {"tcp": "TCP", "tcp6": "TCP", "udp": "UDP", "udp6": "UDP"}
_LISTENS = {"TCP": "0A", "UDP": "07"}
_MAPPED = "0000000000000000FFFF0000"  # of an IPv4 address in IPv6's table
_ANY_IPV6 = "0" * 32
_KERNEL = "kernel"


def owners(wanted: Iterable[PortKey], proc: Path = Path("/proc")) -> dict[PortKey, str]:
    """Those of the ports that a program has at an IPv4 address of this node, with its name."""
    ports = set(wanted)
    inodes: dict[str, set[PortKey]] = {}
    for table, protocol in _TABLES.items():
        with suppress(OSError):
            lines = (proc / "net" / table).read_text().splitlines()[1:]
            for inode, key in _listening(lines, protocol):
                if key in ports:
                    inodes.setdefault(inode, set()).add(key)
    if not inodes:
        return {}
    programs = _programs(set(inodes), proc)
    return {key: name for inode, name in programs.items() if name for key in inodes[inode]}


def _listening(lines: Iterable[str], protocol: str) -> Iterator[tuple[str, PortKey]]:
    """(inode, port) of each."""
    for line in lines:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if fields[3] == _LISTENS[protocol] and _is_reached(address):
            yield fields[9], (protocol, int(port, 16))


def _is_reached(address: str) -> bool:
    """``address`` as the kernel prints it: the number of the machine's byte order."""
    if address == _ANY_IPV6:
        return True
    address = address.removeprefix(_MAPPED)
    return len(address) == 8 and int(address, 16).to_bytes(4, byteorder)[0] != 127


def _programs(inodes: set[str], proc: Path) -> dict[str, str]:
    """Each inode's program; "" for one left out. A socket that no program has is the kernel's."""
    found = dict.fromkeys(inodes, _KERNEL)
    targets = {f"socket:[{inode}]": inode for inode in inodes}
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    inode = targets.get(str(descriptor.readlink()))
                    if inode:
                        found[inode] = _name(process)
    return found


def _name(process: Path) -> str:
    if "kubepods" in (process / "cgroup").read_text():
        return ""
    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
    # Its siblings are the other children of the daemon.
    if int(parent) == os.getppid():
        return ""
    return (process / "comm").read_text().strip()
