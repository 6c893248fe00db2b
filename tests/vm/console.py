"""
What a machine says on its serial lines, and a shell at the other end of one.
"""

import base64
import re
import socket
import threading
import time
import uuid
from pathlib import Path

_CONTROL = re.compile(rb"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")
_CHUNK = 1000  # characters typed in a line: a terminal takes 4095


class MachineError(Exception):
    """The machine did not do what was waited for; the text ends with what it said last."""


class Console:
    """What comes out of a serial line: kept, written to a file, and waited for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = b""
        self._changed = threading.Condition()
        self._ended = False

    def opened(self) -> None:
        """Somebody will speak (again)."""
        self._ended = False

    def follow(self, connection: socket.socket) -> None:
        """Until the other side is gone; in a thread of its own."""
        with self.path.open("ab") as file:
            while True:
                try:
                    chunk = connection.recv(65536)
                except OSError:
                    chunk = b""
                if chunk:
                    file.write(chunk)
                    file.flush()
                with self._changed:
                    self._text += chunk
                    self._ended = not chunk
                    self._changed.notify_all()
                if not chunk:
                    return

    @property
    def text(self) -> str:
        """All of it, without control sequences."""
        return self.since(0)

    def since(self, start: int) -> str:
        return _CONTROL.sub(b"", self._text[start:]).decode(errors="replace")

    @property
    def length(self) -> int:
        """Where what comes next begins; for ``since``."""
        return len(self._text)

    def until(self, pattern: str, seconds: float, *, since: int = 0) -> re.Match[str]:
        """
        The first match of what was said from ``since`` on, waited for.

        Raises :class:`MachineError` after so many seconds, or when the line is closed.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                said = self.since(since)
                if found := re.search(pattern, said, re.MULTILINE):
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    why = "the line was closed" if self._ended else f"not within {seconds:g} s"
                    raise MachineError(f"{pattern!r}: {why}; it said:\n{said[-3000:]}")
                self._changed.wait(left)


class Shell:
    """A shell of the machine, on a serial line: commands in, what they print out."""

    def __init__(self, console: Console, connection: socket.socket) -> None:
        self._console = console
        self._connection = connection

    def run(self, command: str, *, seconds: float, check: bool) -> str:
        """
        What a command prints, both outputs. It may have several lines.

        Raises :class:`MachineError` where it takes longer, or fails and ``check`` is set.
        """
        mark = uuid.uuid4().hex[:8]
        since = self._console.length
        # A terminal repeats what is typed and ends long lines: so it is packed, in pieces, and
        # the marks around the output are put together only when they are printed.
        packed = base64.b64encode(command.encode()).decode()
        pieces = [packed[i : i + _CHUNK] for i in range(0, len(packed), _CHUNK)]
        lines = [
            " export SYSTEMD_PAGER=cat PAGER=cat SYSTEMD_COLORS=0",
            " c=",
            *(f" c=${{c}}{piece}" for piece in pieces),
        ]
        lines.append(
            f" echo; echo {mark}'-begin'; (eval \"$(echo $c | base64 -d)\") </dev/null 2>&1"
        )
        lines.append(f" r=$?; echo; echo {mark}'-end' $r")
        # One command, or the prompts between would be part of the output.
        self._connection.sendall((" {\n" + "\n".join(lines) + "\n }\n").encode())
        try:
            end = self._console.until(rf"^{mark}-end (\d+)$", seconds, since=since)
        except MachineError:
            self._connection.sendall(b"\x03")  # the next command is not to wait for this one
            raise
        said = self._console.since(since)
        output = said.partition(f"\n{mark}-begin\n")[2].partition(f"\n{end[0]}")[0]
        output = output.removesuffix("\n")
        if check and end[1] != "0":
            raise MachineError(f"{command!r} ended with {end[1]}:\n{output[-3000:]}")
        return output
