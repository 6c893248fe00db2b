"""
The kernel's own word that memory is getting short, so that nobody has to look all the time.

PSI where the kernel has it (and was not told psi=0), else the pressure level of cgroup v1.
Source: Documentation/accounting/psi.rst, Documentation/admin-guide/cgroup-v1/memory.rst.
"""

import contextlib
import os
import select
from pathlib import Path

_PSI = Path("/proc/pressure/memory")
_V1 = Path("/sys/fs/cgroup/memory")
# Some task stalled for 150 ms within a second.
_TRIGGER = b"some 150000 1000000\0"


class MemoryAlarm:
    """
    Readable for a selector (``fileno``) when memory was short; :meth:`silence` it then.

    ``works`` is False where the kernel tells nothing: look from time to time instead.
    """

    def __init__(self, psi: Path = _PSI, v1: Path = _V1) -> None:
        self._epoll = select.epoll()
        self._files: list[int] = []
        self._count = -1  # the eventfd of cgroup v1
        self.works = self._by_psi(psi) or self._by_level(v1)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def silence(self) -> bool:
        """Whether there was an alarm; the next one is told anew."""
        events = self._epoll.poll(0)
        if self._count >= 0:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._count)
        # A trigger whose kernel side is gone would be readable for ever.
        for descriptor, what in events:
            if what & select.EPOLLERR:
                self._epoll.unregister(descriptor)
                self.works = False
        return bool(events)

    def close(self) -> None:
        self._epoll.close()
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()

    def _by_psi(self, path: Path) -> bool:
        try:
            trigger = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        self._files.append(trigger)
        try:
            os.write(trigger, _TRIGGER)
        except OSError:  # the kernel was told psi=0
            return False
        self._epoll.register(trigger, select.EPOLLPRI)
        return True

    def _by_level(self, folder: Path) -> bool:
        try:
            level = os.open(folder / "memory.pressure_level", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        self._files.append(level)
        self._count = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._files.append(self._count)
        try:
            (folder / "cgroup.event_control").write_text(f"{self._count} {level} medium")
        except OSError:
            return False
        self._epoll.register(self._count, select.EPOLLIN)
        return True
