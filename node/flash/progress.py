"""A bar for people, plain lines for files. The clock comes as an argument."""

from collections.abc import Callable
from typing import TextIO

_WIDTH = 28
_OFTEN = 0.2  # seconds between two pictures of the bar
_STEP = 10  # percent between two plain lines


class Progress:
    """Of one pass over ``total`` bytes."""

    def __init__(self, what: str, total: int, stream: TextIO, clock: Callable[[], float]) -> None:
        self._what = what
        self._total = max(total, 1)
        self._stream = stream
        self._clock = clock
        self._bar = stream.isatty()
        self._began = clock()
        self._last = self._began - _OFTEN
        self._said = -_STEP

    def show(self, done: int) -> None:
        percent = min(100, done * 100 // self._total)
        now = self._clock()
        if self._bar and (now - self._last >= _OFTEN or done >= self._total):
            self._last = now
            self._stream.write(f"\r{self._line(done, percent, now)}\x1b[K")
            self._stream.flush()
        elif not self._bar and percent >= self._said + _STEP:
            self._said = percent // _STEP * _STEP
            self._stream.write(self._line(done, percent, now) + "\n")
            self._stream.flush()

    def end(self) -> None:
        if self._bar:
            self._stream.write("\n")
            self._stream.flush()

    def _line(self, done: int, percent: int, now: float) -> str:
        spent = max(now - self._began, 1e-6)
        rate = done / spent
        left = (self._total - done) / rate if rate else 0.0
        filled = percent * _WIDTH // 100
        bar = f" [{'#' * filled}{'.' * (_WIDTH - filled)}]" if self._bar else ""
        return (
            f"{self._what:<9}{bar} {percent:3d} %  {done / 1e6:.0f} of {self._total / 1e6:.0f} MB  "
            f"{rate / 1e6:.1f} MB/s  {_duration(left)} left"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
