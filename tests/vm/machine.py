"""
A machine in QEMU: starts from an image, is talked to, loses its power.

It is a PC with UEFI, a disk, a network card behind a network of QEMU's own and a hardware
watchdog. What it says on its serial line goes to a file and to whoever waits for it. On a
second one there is a root shell (the debug shell of systemd, asked for by the boot loader and its
``custom.cfg`` on the machine's own disk), so that tests need no keys and no network.

**Power.** ``power_cut`` kills QEMU. What the guest wrote until then is in the file, what it had
not sent to its disk is gone: the guest's memory. A real disk has a cache in addition, which loses
what was not flushed; :mod:`tests.vm.volatile` is a disk that has one.
"""

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.vm.console import Console, MachineError, Shell
from tests.vm.qemu import PROGRAM, Monitor, accelerator, firmware, free_port, listen

_CONSOLES = "console=tty0 console=ttyS0,115200n8"
_SHELL = "systemd.debug_shell=ttyS1"
_STATE = "memory"
MIB = 1 << 20
CONFIG_OFFSET = MIB  # of the config partition in an image


@dataclass(kw_only=True)
class Machine:
    """
    One machine and its disk, which lies in ``folder`` and outlives every start.

    Use it as a context: nothing of it runs afterwards.
    """

    folder: Path
    image: Path  # a raw disk image, which is copied (sparse) and stays as it is
    memory: int = 1024  # MiB
    processors: int = 2
    disk_size: int = 4096 * MIB  # bytes that the disk has in the end
    arguments: str = ""  # of the kernel, added to the image's
    files: Mapping[str, bytes] = field(default_factory=dict)  # put on the config partition
    forwards: Sequence[int] = (22, 6443)  # TCP ports of the machine, reached from this one
    network: str = "open"  # "open", "restricted" (only the forwards), "none"
    clock: str = ""  # of QEMU's -rtc base=: utc, or 1970-01-01T00:00:00
    disks: Sequence[str] = ()  # further -drive options, as they are
    options: Sequence[str] = ()  # further options of QEMU

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.disk = self.folder / "disk.img"
        self.console = Console(self.folder / "serial.log")
        self.shell = Console(self.folder / "shell.log")
        self._ports = {port: free_port() for port in self.forwards}
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._shell: Shell | None = None
        self._monitor: Monitor | None = None
        if not self.disk.exists():
            self._prepare_disk()

    def _prepare_disk(self) -> None:
        _copy(self.image, self.disk)
        if self.disk.stat().st_size < self.disk_size:
            os.truncate(self.disk, self.disk_size)
        words = f"{_CONSOLES} {_SHELL} systemd.journald.forward_to_console=0 {self.arguments}"
        self.put({"custom.cfg": f'set extra="{words}"\n'.encode(), **self.files})

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write files to the config partition of a machine that is off; folders are made."""
        for name, content in files.items():
            for parent in reversed(Path(name).parents[:-1]):
                self._mtools("mmd", "-D", "s", at=f"::/{parent}", check=False)
            self._mtools("mcopy", "-o", "-D", "o", "-", at=f"::/{name}", stdin=content)

    def take(self, name: str) -> bytes:
        """A file of the config partition of a machine that is off. KeyError: not there."""
        done = self._mtools("mtype", at=f"::/{name}", check=False)
        if done.returncode:
            raise KeyError(name)
        return done.stdout

    def _mtools(
        self, *argv: str, at: str, stdin: bytes = b"", check: bool = True
    ) -> "subprocess.CompletedProcess[bytes]":
        if self._process is not None:
            raise MachineError("the machine runs: its disk is its own")
        program, *rest = argv
        where = f"{self.disk}@@{CONFIG_OFFSET}"
        return subprocess.run(
            [program, "-i", where, *rest, at],
            input=stdin,
            capture_output=True,
            check=check,
            env={**os.environ, "MTOOLS_SKIP_CHECK": "1"},
        )

    # Power

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.power_cut()

    def start(self, *options: str) -> None:
        """Switch it on, with further options of QEMU for this one time."""
        if self._process is not None:
            raise MachineError("the machine runs already")
        variables = self.folder / "vars.fd"
        if not variables.exists():
            shutil.copyfile(firmware()[1], variables)
        here = Path(f"/tmp/vm-{uuid.uuid4().hex[:12]}")  # paths of sockets are short
        here.mkdir(mode=0o700)
        listeners = {name: listen(here / name) for name in ("serial", "shell", "qmp")}
        try:
            with (self.folder / "qemu.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._command(variables, here), *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            connections = {name: self._accept(one) for name, one in listeners.items()}
        except BaseException:
            self.power_cut()
            raise
        finally:
            for listener in listeners.values():
                listener.close()
            shutil.rmtree(here)
        self._sockets = list(connections.values())
        self._shell = Shell(self.shell, connections["shell"])
        self._monitor = Monitor(connections["qmp"])
        self._follow(self.console, connections["serial"])
        self._follow(self.shell, connections["shell"])

    def _accept(self, listener: socket.socket) -> socket.socket:
        listener.settimeout(20)
        try:
            return listener.accept()[0]
        except TimeoutError:
            said = (self.folder / "qemu.log").read_text(errors="replace")
            raise MachineError(f"QEMU does not start: {said[-1000:]}") from None

    def _follow(self, console: Console, connection: socket.socket) -> None:
        console.opened()
        thread = threading.Thread(target=console.follow, args=(connection,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _command(self, variables: Path, here: Path) -> list[str]:
        code = firmware()[0]
        command = [PROGRAM, "-nodefaults", "-display", "none"]
        command += ["-machine", f"q35,accel={accelerator()}", "-cpu", "max"]
        command += ["-smp", str(self.processors), "-m", str(self.memory)]
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        command += ["-drive", f"if=pflash,format=raw,file={variables}"]
        command += ["-drive", f"{self.drive()},if=none,id=disk"]
        command += ["-device", "virtio-blk-pci,drive=disk,bootindex=0"]
        for name in ("serial", "shell"):
            command += ["-chardev", f"socket,id={name},path={here / name}"]
            command += ["-serial", f"chardev:{name}"]
        command += ["-qmp", f"unix:{here / 'qmp'},server=off"]
        command += ["-device", "i6300esb", "-watchdog-action", "reset"]
        command += ["-device", "virtio-rng-pci", "-device", "VGA"]
        command += ["-rtc", f"base={self.clock or 'utc'}"]
        command += self._network()
        for drive in self.disks:
            command += ["-drive", drive]
        return [*command, *self.options]

    def drive(self) -> str:
        # Written to the file at once, so that nothing of a killed machine lingers in QEMU.
        return f"file={self.disk},format=raw,cache=writethrough,discard=unmap"

    def _network(self) -> list[str]:
        if self.network == "none":
            return []
        rules = "".join(
            f",hostfwd=tcp:127.0.0.1:{local}-:{remote}" for remote, local in self._ports.items()
        )
        restrict = ",restrict=on" if self.network == "restricted" else ""
        return ["-nic", f"user,model=virtio-net-pci{restrict}{rules}"]

    def port(self, remote: int) -> int:
        """Where on 127.0.0.1 a port of the machine is reached."""
        return self._ports[remote]

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def power_cut(self) -> None:
        """The plug is pulled, at this instant. Nothing happens where it is off."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)
        for connection in self._sockets:
            connection.close()
        self._sockets, self._threads, self._shell, self._monitor = [], [], None, None

    def reset(self) -> None:
        """The button: as a power cut, but at once on again, and without QEMU anew."""
        self.monitor("system_reset")

    def shutdown(self, seconds: float = 120) -> None:
        """An orderly end, asked for in its shell, since nobody there hears the power button."""
        self.run("systemctl --no-block poweroff")
        self.wait_off(seconds)

    def wait_off(self, seconds: float) -> None:
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                said = self.console.text[-2000:]
                raise MachineError(f"still on after {seconds:g} s:\n{said}") from None
            self.power_cut()

    def monitor(self, command: str, **arguments: Any) -> Any:
        """A command of QMP, and its answer."""
        if self._monitor is None:
            raise MachineError("the machine is off")
        return self._monitor.ask(command, arguments)

    # Talking to it

    def until(self, pattern: str, seconds: float = 120, *, since: int = 0) -> re.Match[str]:
        """Wait for a line on the serial console; see :meth:`Console.until`."""
        return self.console.until(pattern, seconds, since=since)

    def wait_shell(self, seconds: float = 240) -> None:
        """Until the root shell on the second serial line answers: systemd has come up so far."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.run("true", seconds=5, check=False)
            except MachineError:
                if time.monotonic() > deadline or not self.runs:
                    raise
            else:
                return

    def run(self, command: str, *, seconds: float = 60, check: bool = True) -> str:
        """
        What a command of the root shell prints, both outputs.

        Raises :class:`MachineError` where it takes longer, or fails and ``check`` is set.
        """
        if self._shell is None:
            raise MachineError("the machine is off")
        return self._shell.run(command, seconds=seconds, check=check)

    # Snapshots

    def save(self, folder: Path) -> None:
        """
        All of a running machine, memory and disk, into a folder; it is off then.

        What took minutes to reach is so the start of many tests: see :meth:`resume`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self._monitor is None:
            raise MachineError("the machine is off")
        state = [{"capability": "events", "state": True}]
        self.monitor("migrate-set-capabilities", capabilities=state)
        self.monitor("stop")
        self.monitor("migrate", uri=f"exec:cat >{shlex.quote(str(folder / _STATE))}")
        self._monitor.wait_for("MIGRATION", "completed")
        self.power_cut()
        for name in ("disk.img", "vars.fd"):
            _copy(self.folder / name, folder / name)

    def resume(self, folder: Path) -> None:
        """Go on where :meth:`save` left, however often; with the options that it had then."""
        for name in ("disk.img", "vars.fd"):
            _copy(folder / name, self.folder / name)
        self.start("-incoming", "defer")
        assert self._monitor is not None
        state = [{"capability": "events", "state": True}]
        self.monitor("migrate-set-capabilities", capabilities=state)
        self.monitor("migrate-incoming", uri=f"exec:cat {shlex.quote(str(folder / _STATE))}")
        self._monitor.wait_for("MIGRATION", "completed")
        self.monitor("cont")  # it was stopped when it was saved


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)
