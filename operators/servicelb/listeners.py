"""
Programs of this node that listen at its addresses: their ports are not for a Service.

An SSH server that nobody reaches any more is worse than a Service without an address. What
listens in a pod is left out: its ports are told by the API. Linux tells no one when a program
begins or ends to listen, so the kernel's tables are read when somebody wants a port that it
did not have. Source: proc(5), /proc/net/tcp and /proc/pid/fd.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import inet_aton
from sys import byteorder

PortKey = tuple[str, int]
_TABLES = {"tcp": "TCP", "tcp6": "TCP", "udp": "UDP", "udp6": "UDP"}
_LISTENS = {"TCP": "0A", "UDP": "07"}
_ANYWHERE = frozenset({"0" * 8, "0" * 32})
_MAPPED = "0000000000000000FFFF0000"  # of an IPv4 address in IPv6's table
_KERNEL = "kernel"


def owners(
    wanted: Iterable[PortKey], addresses: Iterable[str], proc: Path = Path("/proc")
) -> dict[PortKey, str]:
    """Those of the ports that are in use at one of the addresses (IPv4), with the program."""
    ports = set(wanted)
    own = {*_ANYWHERE, *(_hex(address) for address in addresses if ":" not in address)}
    inodes: dict[str, set[PortKey]] = {}
    for table, protocol in _TABLES.items():
        with suppress(OSError):
            lines = (proc / "net" / table).read_text().splitlines()[1:]
            for inode, key in _listening(lines, protocol, own):
                if key in ports:
                    inodes.setdefault(inode, set()).add(key)
    if not inodes:
        return {}
    programs = _programs(set(inodes), proc)
    return {key: name for inode, name in programs.items() if name for key in inodes[inode]}


def _listening(lines: Iterable[str], protocol: str, own: set[str]) -> Iterator[tuple[str, PortKey]]:
    """(inode, port) of each."""
    for line in lines:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if fields[3] == _LISTENS[protocol] and address.removeprefix(_MAPPED) in own:
            yield fields[9], (protocol, int(port, 16))


def _hex(address: str) -> str:
    """As the kernel prints it: the number of the machine's byte order."""
    return f"{int.from_bytes(inet_aton(address), byteorder):08X}"


def _programs(inodes: set[str], proc: Path) -> dict[str, str]:
    """Each inode's program; "" for one in a pod. A socket that no program has is the kernel's."""
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
    return (process / "comm").read_text().strip()
