"""
Whether the kernel can do what a node needs, found out by trying.

Configuration files of kernels lie about what is a module that is not there, so each
thing is done once, in a network namespace that ends with the check.
"""

import contextlib
import ctypes
import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from node.host.links import Links
from node.host.mounts import mount
from node.host.netlink import NetlinkError

_NEW_NETWORK = 0x40000000
_NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
_CONTROLLERS = ("cpu", "memory", "pids")
_BRIDGE_SETTINGS = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
# One of everything that the service proxy and the policies use.
_RULES = """table ip pinnace_probe {
map verdicts { type ipv4_addr . inet_proto . inet_service : verdict; }
set clients { type ipv4_addr; size 16; flags dynamic,timeout; timeout 1s; }
chain nat { type nat hook prerouting priority dstnat;
  ip daddr . meta l4proto . th dport vmap @verdicts
  fib daddr type local update @clients { ip saddr }
  meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 192.0.2.1 . 1, 1 : 192.0.2.2 . 1 }
}
chain source { type nat hook postrouting priority srcnat; ct status dnat masquerade fully-random; }
chain filter { type filter hook input priority filter; meta l4proto tcp reject with tcp reset; }
}
"""


def missing_features() -> list[str]:
    """One line for each thing that is missing: what it is, and what to do. Empty: all is well."""
    found = [*_file_systems(), *_namespaces(), *_controllers(Path("/sys/fs/cgroup"))]
    result: list[str | None] = []
    thread = threading.Thread(target=lambda: result.extend(_network()))
    thread.start()  # its network namespace is its own, and ends with it
    thread.join()
    found += [line for line in result if line]
    return found + list(_bridge_filter())


def _file_systems() -> Iterator[str]:
    if "\toverlay\n" in Path("/proc/filesystems").read_text():
        return
    try:
        mount("overlay", "/", "overlay")  # without folders: refused, but the module is loaded
    except OSError as error:
        if error.errno == errno.ENODEV:
            yield (
                "the kernel has no overlay file system: install a kernel with "
                "CONFIG_OVERLAY_FS, or run modprobe overlay"
            )


def _namespaces() -> Iterator[str]:
    for name in _NAMESPACES:
        if not Path("/proc/self/ns", name).exists():
            yield f"the kernel has no {name} namespaces: install one with CONFIG_NAMESPACES"


def _controllers(root: Path) -> Iterator[str]:
    present = controllers(root)
    for name in _CONTROLLERS:
        if name in present:
            continue
        text = f"the cgroup controller {name} is off: "
        if name == "memory":
            # Raspberry Pi's firmware turns it off unless told otherwise.
            yield text + "add cgroup_enable=memory to the kernel's command line and reboot"
        else:
            yield text + "install a kernel with it, and mount the cgroup file system"


def controllers(root: Path) -> frozenset[str]:
    """What containers can be limited by; ``root`` is where cgroups are mounted, v2 or v1."""
    unified = root / "cgroup.controllers"
    if unified.exists():
        return frozenset(unified.read_text().split())
    try:
        return frozenset(path.name for path in root.iterdir() if (path / "tasks").exists())
    except FileNotFoundError:
        return frozenset()


def _network() -> Iterator[str | None]:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) != 0:
        code = ctypes.get_errno()
        yield f"cannot make a network namespace ({os.strerror(code)}): run as root"
        return
    with Links() as links:
        for kind in ("bridge", "veth"):
            try:
                links.add(f"{kind}0", kind)
            except NetlinkError as error:
                yield (
                    f"the kernel cannot make {kind} links ({error.strerror}): "
                    f"install one with CONFIG_{kind.upper()}"
                )
    yield _rules()


def _rules(seconds: float = 60) -> str | None:
    """``seconds``: after so many nobody knows, which is no reason against a start."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"],
            input=_RULES.encode(),
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return None
    except FileNotFoundError:
        return "nft is missing: apt-get install nftables"
    if done.returncode == 0:
        return None
    reason = (done.stderr.decode(errors="replace").splitlines() or ["unknown"])[0]
    return (
        f"the kernel cannot load our nftables rules ({reason}): install one with "
        "CONFIG_NF_TABLES_IPV4, CONFIG_NF_NAT, CONFIG_NFT_NUMGEN and CONFIG_NFT_FIB_IPV4"
    )


def _bridge_filter() -> Iterator[str]:
    """Replies between two pods must pass the translation of addresses."""
    if _BRIDGE_SETTINGS.exists():
        return
    with contextlib.suppress(FileNotFoundError):
        # Nothing asks the kernel for this module by itself.
        subprocess.run(["modprobe", "-q", "br_netfilter"], check=False, capture_output=True)
    if not _BRIDGE_SETTINGS.exists():
        yield (
            "the kernel module br_netfilter is missing: install a kernel with "
            "CONFIG_BRIDGE_NETFILTER, or run modprobe br_netfilter"
        )
