"""
Kernel settings below /proc/sys.
"""

from pathlib import Path

from node.host.netlink import run_inside

_ROOT = Path("/proc/sys")


def read(name: str) -> str | None:
    """``name`` with dots, as sysctl(8) writes it; None: this kernel has no such setting."""
    try:
        return _path(name).read_text().strip()
    except FileNotFoundError:
        return None


def ensure(name: str, value: str, *, netns: str = "") -> bool:
    """
    Set it unless it is so already; False: this kernel has no such setting.

    Those of the network belong to a namespace. ``OSError`` where it may not be written,
    such as in a container.
    """
    return run_inside(netns, lambda: _ensure(name, value))


def _ensure(name: str, value: str) -> bool:
    found = read(name)
    if found is None:
        return False
    if found != value:
        _path(name).write_text(value)
    return True


def _path(name: str) -> Path:
    return _ROOT / name.replace(".", "/")
