"""
The cluster of a machine, by this computer's own kubectl, over a forwarded port.

And the bundles, which a server of this computer gives to the machine at an address that only the
machine knows: its network reaches nothing else.
"""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.node import find_kubectl
from tests.vm.console import MachineError
from tests.vm.machine import Machine

SERVER = "10.0.2.100"  # of the machine's network, see QEMU's guestfwd
READY = 900.0  # seconds, with emulated processors on a busy computer


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@dataclass(kw_only=True)
class Served(Machine):
    """A machine that reaches one folder of this computer, at ``http://10.0.2.100/``."""

    serves: Path
    network: str = "restricted"
    forwards: Sequence[int] = (22, 6443, 8080)
    _server: ThreadingHTTPServer | None = field(default=None, init=False)

    def _network(self) -> list[str]:
        if self._server is None:
            handler = partial(Handler, directory=str(self.serves))
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
        busybox = shutil.which("busybox") or "/bin/busybox"
        relay = f"{busybox} nc 127.0.0.1 {self._server.server_port}"
        option, rules = super()._network()
        return [option, f"{rules},guestfwd=tcp:{SERVER}:80-cmd:{relay}"]

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@dataclass(kw_only=True)
class Cluster:
    machine: Machine
    kubeconfig: Path

    def connect(self, seconds: float = READY) -> None:
        """Wait for the node, and take the administrator's kubeconfig from it."""
        self.machine.wait_shell(seconds)
        self.machine.run("systemctl start pinnace", seconds=seconds)  # returns when it is ready
        found = self.machine.run(
            f"pinnace kubeconfig --server=https://127.0.0.1:{self.machine.port(6443)}",
            seconds=seconds,
        )
        text = found[found.index("apiVersion") :]
        self.kubeconfig.write_text(text)

    def kubectl(self, *arguments: str, stdin: str = "", seconds: float = 60) -> str:
        """What it prints. Raises :class:`MachineError` where it fails."""
        argv = [find_kubectl(), f"--kubeconfig={self.kubeconfig}", *arguments]
        try:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise MachineError(f"kubectl {' '.join(arguments)}: no answer") from None
        if done.returncode:
            raise MachineError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, manifest: str) -> None:
        self.until(lambda: self.kubectl("apply", "-f", "-", stdin=manifest), 300)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def until(self, holds: Callable[[], Any], seconds: float = READY) -> Any:
        """
        Wait until this is true; a machine that is starting again answers nothing meanwhile.

        Asking again is all there is: a watch ends with the machine that it watches.
        """
        deadline, last = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            try:
                if found := holds():
                    return found
                last = "it did not hold"
            except (MachineError, KeyError, OSError) as err:
                last = str(err)
            threading.Event().wait(2)
        said = self.machine.console.text[-2500:]
        raise MachineError(f"not within {seconds:g} s: {last}\nthe console:\n{said}")

    def ready(self, seconds: float = READY) -> None:
        def holds() -> bool:
            [node] = self.get("nodes")["items"]
            found = {c["type"]: c["status"] for c in node["status"]["conditions"]}
            return bool(found["Ready"] == "True")

        self.until(holds, seconds)

    def version(self) -> str:
        """What the node says that it runs; a label holds no plus."""
        [node] = self.get("nodes")["items"]
        version, minus, build = node["metadata"]["labels"]["pinnace.dev/version"].rpartition("-")
        return f"{version}+{build}" if minus else build
