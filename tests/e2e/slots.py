"""
A node on a machine with two slots: what boot loader and systemd do, done by a thread.

Both slots run the code of this checkout, by :mod:`tests.fakes.other_version`, which says that it is
another version and may be broken. A "boot" begins the daemon anew; the pods are left running.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.node import Namespace, Node, with_images
from tests.fakes.slots import FakeMachine

V1, V2, V3 = (f"v1.36.{patch}+pinnace1" for patch in (3, 4, 5))
NODE = ("node", "pi")


@dataclass
class SlottedNode(Node):
    machine: FakeMachine = field(kw_only=True)
    booting: threading.Thread | None = None
    _powered: bool = False

    @property
    def command(self) -> tuple[str, ...]:
        program = ("-m", "tests.fakes.other_version", str(self.machine.folder))
        return (*self.namespace.enter_mounts, sys.executable, *program)

    def power_on(self) -> None:
        """Boot, and boot again whenever the daemon ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").touch()
        self._powered = True
        self.booting = threading.Thread(target=self._boot_again_and_again, daemon=True)
        self.booting.start()

    def _boot_again_and_again(self) -> None:
        while self._powered:
            self.machine.power_on()
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*self.command, "server", *self.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | self.extra_environment,
                )
            self.process.wait()

    def cut_power(self) -> None:
        """Everything of the daemon ends at once; then the machine boots."""
        process = self.process
        assert process is not None
        doomed = [process.pid, *_below(process.pid)]
        for number in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def power_off(self) -> None:
        self._powered = False
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.cut_power()
        if self.booting is not None:
            self.booting.join(timeout=30)
        self.process = None

    def clean_up(self) -> None:
        self.power_off()
        super().clean_up()

    # -- what a plan would see

    def object(self) -> dict[str, Any]:
        """The Node, or nothing while nobody answers."""
        found = self.kubectl("get", *NODE, "-o", "json", check=False)
        return dict(json.loads(found.stdout)) if found.returncode == 0 else {}

    def report(self) -> dict[str, Any]:
        annotations = self.object().get("metadata", {}).get("annotations", {})
        return dict(json.loads(annotations.get("upgrade.pinnace.dev/report", "{}")))

    def request(self, **fields: Any) -> None:
        content = {"plan": "fleet", "uid": "u-1", "attempt": 1, "stage": "switch"} | fields
        text = json.dumps({"soakSeconds": 1, "deadlineSeconds": 120} | content)
        annotation = f"upgrade.pinnace.dev/request={text}"
        self.until(
            lambda: (
                self.kubectl("annotate", "--overwrite", *NODE, annotation, check=False).returncode
                == 0
            )
        )

    def reaches(self, phase: str, *, timeout: float = 90.0) -> dict[str, Any]:
        """The report, once it says so."""

        def there() -> dict[str, Any]:
            report = self.report()
            return report if report.get("phase") == phase else {}

        found: dict[str, Any] = self.until(there, timeout=timeout, seen=self.report)
        return found

    def is_ready(self) -> bool:
        conditions = self.object().get("status", {}).get("conditions", ())
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _below(pid: int) -> list[int]:
    """Its children: containerd's shims are none of them, and go on."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [n for child in map(int, text.split()) for n in (child, *_below(child))]
    return []


@contextlib.contextmanager
def slotted(folder: Path, *flags: str, name: str) -> Iterator[SlottedNode]:
    """A node on version V1 that is Ready."""
    with Namespace(f"{name}-{os.getpid()}") as namespace:
        machine = FakeMachine(folder / "machine", version=V1)
        made = SlottedNode(folder, namespace, flags, machine=machine)
        with_images(made)
        try:
            made.power_on()
            made.until(made.is_ready)
            yield made
        finally:
            made.clean_up()
