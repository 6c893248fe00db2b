"""
Kernel settings below /proc/sys.
"""

from pathlib import Path

_ROOT = Path("/proc/sys")


def read(name: str) -> str | None:
    """``name`` with dots, as sysctl(8) writes it; None: this kernel has no such setting."""
    try:
        return _path(name).read_text().strip()
    except FileNotFoundError:
        return None


def ensure(name: str, value: str) -> bool:
    """
    Set it unless it is so already; False: this kernel has no such setting.

    ``OSError`` where it may not be written, such as in a container.
    """
    found = read(name)
    if found is None:
        return False
    if found != value:
        _path(name).write_text(value)
    return True


def _path(name: str) -> Path:
    return _ROOT / name.replace(".", "/")
