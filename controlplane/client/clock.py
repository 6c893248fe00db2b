"""
The machine's clock, and the moment at which somebody sets it.

The kernel tells who waits on a timer with TFD_TIMER_CANCEL_ON_SET (timerfd_create(2)) that the
time of day was set; nothing is asked at idle. Whoever asks for the time finds the same by
comparing with the clock that counts from the machine's start, so a message that is late, or
of a clock that is no kernel's, costs nothing. A clock below its floor is not believed: time goes
on from the floor then, so that no object is ever said to be of 1970.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.objects.moment import BUILD, Moment, Step, moment

_NOTICED = 5.0  # seconds; less than that nobody minds, and clocks are slewed by less
_KEPT = 8  # steps; who sets the clock more often has other problems
_NEVER = 8_000_000_000  # seconds since 1970: the timer itself is not what is waited for
_REALTIME, _NONBLOCK, _CLOEXEC, _ABSTIME_CANCEL_ON_SET = 0, os.O_NONBLOCK, os.O_CLOEXEC, 1 | 2


def _boot_time() -> float:
    """Seconds since the machine's start, what it slept included; nobody can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WallClock:
    """
    The time of day with its history.

    Its mutable state: how far the clock is ahead of the time since the start, and the steps
    that it made. Copied by a fork: a child knows what the daemon knew.
    """

    def __init__(
        self,
        *,
        floor: float = BUILD.timestamp(),
        sure: bool = True,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = _boot_time,
    ) -> None:
        """``floor``: seconds since 1970, no true clock is behind it."""
        self._wall, self._steady, self.floor = wall, steady, floor
        self.sure = sure and wall() >= floor
        self._offset = max(wall(), floor) - steady()
        self._begin = self._offset + steady()
        self._steps: tuple[Step, ...] = ()
        self.on_step: list[Callable[[timedelta], None]] = []  # told by how much it was set

    def now(self) -> Moment:
        """UTC."""
        seconds = self.check()
        return moment(seconds, steps=self._steps, sure=self.sure)

    def check(self) -> float:
        """Seconds since 1970; whether the clock was set is seen on the way."""
        steady, wall = self._steady(), self._wall()
        expected = self._offset + steady
        if wall < self.floor:
            return expected
        if abs(wall - expected) < _NOTICED:
            self._offset = wall - steady
            return wall
        self._step(expected, wall)
        return wall

    def _step(self, before: float, after: float) -> None:
        made = Step(*(datetime.fromtimestamp(at, UTC) for at in (self._begin, before, after)))
        self._steps = (*self._steps, made)[-_KEPT:]
        self._offset += after - before
        self._begin = after
        self.sure = True
        for tell in self.on_step:
            tell(timedelta(seconds=after - before))

    # -- kept while the machine runs, whoever of us is restarted

    def state(self) -> dict[str, Any]:
        """As JSON has it; :meth:`resume` takes it in."""
        steps = [[at.timestamp() for at in (s.begin, s.before, s.after)] for s in self._steps]
        return {"offset": self._offset, "begin": self._begin, "sure": self.sure, "steps": steps}

    def resume(self, state: Mapping[str, Any]) -> None:
        """
        Go on from the state of a process before this one, since the machine's start.

        Raises KeyError, TypeError or ValueError for what is no state.
        """
        steps = tuple(
            Step(*(datetime.fromtimestamp(float(at), UTC) for at in times))
            for times in state["steps"]
        )
        offset, begin, sure = float(state["offset"]), float(state["begin"]), bool(state["sure"])
        self._steps, self._offset, self._begin, self.sure = steps, offset, begin, sure

    # -- the kernel's message

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """For as long as the loop runs: whoever is to be told is told at once."""
        with contextlib.suppress(OSError):  # a kernel without it: found out when time is asked for
            handle = open_timer()
            loop.add_reader(handle, self.heard, handle)

    def heard(self, handle: int) -> None:
        """The timer of :func:`open_timer` can be read."""
        was_set(handle)
        self.check()


def open_timer() -> int:
    """A file descriptor that can be read once the clock was set. Raises OSError."""
    handle = _create()
    _arm(handle)
    return handle


def was_set(handle: int) -> bool:
    """Whether the clock was set since the last call; the timer is made ready again."""
    try:
        os.read(handle, 8)
    except BlockingIOError:
        return False
    except OSError as err:
        if err.errno != errno.ECANCELED:
            raise
        _arm(handle)
        return True
    return False


def _create() -> int:
    if hasattr(os, "timerfd_create"):  # Python 3.13
        return int(os.timerfd_create(_REALTIME, flags=_NONBLOCK | _CLOEXEC))
    return _checked(_libc().timerfd_create(_REALTIME, _NONBLOCK | _CLOEXEC))


def _arm(handle: int) -> None:
    if hasattr(os, "timerfd_settime"):
        os.timerfd_settime(handle, flags=_ABSTIME_CANCEL_ON_SET, initial=float(_NEVER))
        return
    timer = struct.pack("@4l", 0, 0, _NEVER, 0)  # struct itimerspec: interval, then the time
    _checked(_libc().timerfd_settime(handle, _ABSTIME_CANCEL_ON_SET, timer, None))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
