"""
QEMU itself: where it is, what it can do here, and its monitor.

KVM may be there and not able to run a stock guest (a software KVM within a virtual machine), so it
is tried by starting the firmware, never by looking at ``/dev/kvm`` alone.
"""

import functools
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.vm.console import MachineError

PROGRAM = "qemu-system-x86_64"
_FIRMWARE = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
)
_TRIAL = 20  # seconds for the firmware to speak; without KVM it takes 3


def missing() -> str:
    """What has to be installed before a machine can start; "" where nothing."""
    needed = {PROGRAM: "qemu-system-x86", "mcopy": "mtools"}
    packages = [package for program, package in needed.items() if not shutil.which(program)]
    if not any(Path(code).exists() for code, _ in _FIRMWARE):
        packages.append("ovmf")
    return " ".join(packages)


def firmware() -> tuple[Path, Path]:
    """UEFI: its code, and the variables that a new machine has."""
    for code, variables in _FIRMWARE:
        if Path(code).exists():
            return Path(code), Path(variables)
    raise MachineError("there is no firmware for the machine: install ovmf")


@functools.cache
def accelerator() -> str:
    """``kvm`` where a guest really starts with it, else ``tcg``."""
    if not Path("/dev/kvm").exists():
        return "tcg"
    with tempfile.TemporaryDirectory() as folder:
        variables = Path(folder, "vars.fd")
        shutil.copyfile(firmware()[1], variables)
        command = [PROGRAM, "-nodefaults", "-display", "none", "-machine", "q35,accel=kvm"]
        command += ["-cpu", "max", "-m", "256", "-serial", "stdio", "-no-reboot"]
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={firmware()[0]}"]
        command += ["-drive", f"if=pflash,format=raw,file={variables}"]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            try:
                said = process.communicate(timeout=_TRIAL)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                said = process.communicate()[0]
    return "kvm" if b"BdsDxe" in said else "tcg"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listen(path: Path) -> socket.socket:
    """A socket that QEMU connects to, before it starts: nothing that is said is lost."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


class Monitor:
    """QMP: JSON lines both ways; events are kept until they are waited for."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        self._file = connection.makefile("rwb")
        self._events: list[dict[str, Any]] = []
        self._answer()
        self.ask("qmp_capabilities", {})

    def ask(self, command: str, arguments: Mapping[str, Any]) -> Any:
        self._file.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._file.flush()
        while True:
            answer = self._answer()
            if "event" in answer:
                self._events.append(answer)
            if "error" in answer:
                raise MachineError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait_for(self, event: str, status: str) -> None:
        """Until an event with this status. Raises :class:`MachineError` where it failed."""
        while True:
            found = self._events.pop(0) if self._events else self._answer()
            state = found.get("data", {}).get("status")
            if found.get("event") == event and state == status:
                return
            if found.get("event") == event and state == "failed":
                raise MachineError(f"{event} failed")

    def _answer(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise MachineError("QEMU is gone")
        answer: dict[str, Any] = json.loads(line)
        return answer
