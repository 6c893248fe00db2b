"""
A whole node for tests: the real daemon in a network namespace of its own.

The namespace has one link with an address and a default route that leads
nowhere, so that nothing a test does reaches beyond this machine. Everything
the node writes lies below one folder or in a mount namespace of its own, so that
it and the node beside it (a developer's, another test's) leave each other alone.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node import kubectl

ROOT = Path(__file__).parent.parent.parent
ADDRESS = "10.99.0.2"
PATIENCE = 60.0

# Where containerd, the CNI plugins and the kubelet write whatever they were told.
SHARED = ("/run/netns", "/var/lib/cni", "/var/log/pods", "/var/log/containers")
KEEPER = (
    "mount --make-rshared /; "
    + "; ".join(f"mkdir -p {place}; mount -t tmpfs e2e {place}" for place in SHARED)
    + "; echo; exec cat"
)


class Timeout(AssertionError):
    """Something that should have become true did not; the text shows what was seen last."""


def run(*argv: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, **more)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    return done


@dataclass
class Namespace:
    """A network namespace with a link to nowhere, and a mount namespace for its node."""

    name: str
    keeper: "subprocess.Popen[str] | None" = None

    @property
    def enter(self) -> tuple[str, ...]:
        """Not ``ip netns exec``: that hides /sys/fs/cgroup behind a fresh /sys."""
        return ("nsenter", f"--net=/run/netns/{self.name}", "--")

    @property
    def enter_mounts(self) -> tuple[str, ...]:
        """For the node: both namespaces, and the folder of the sources again."""
        assert self.keeper is not None
        mounts = ("nsenter", f"--mount=/proc/{self.keeper.pid}/ns/mnt", "--")
        return (*self.enter, *mounts, "env", f"--chdir={ROOT}")

    def __enter__(self) -> "Namespace":
        run("ip", "netns", "add", self.name)
        self.keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation=slave", "sh", "-ec", KEEPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.keeper.stdout is not None
        self.keeper.stdout.readline()
        self.exec("ip", "link", "set", "lo", "up")
        self.exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "nowhere")
        self.exec("ip", "link", "set", "nowhere", "up")
        self.exec("ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0")
        self.exec("ip", "link", "set", "eth0", "up")
        self.exec("ip", "route", "add", "default", "via", "10.99.0.1")
        return self

    def __exit__(self, *_: object) -> None:
        if self.keeper is not None:
            self.keeper.communicate(timeout=10)
        run("ip", "netns", "delete", self.name, check=False)

    def exec(self, *argv: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return run(*self.enter, *argv, **more)


@functools.cache
def find_kubectl() -> str:
    return kubectl.find(os.environ["PATH"], lambda _: None)


@dataclass
class Node:
    """The daemon and what a person would do with it."""

    folder: Path
    namespace: Namespace
    flags: Sequence[str] = ()
    process: "subprocess.Popen[bytes] | None" = None
    extra_environment: dict[str, str] = field(default_factory=dict)
    ingress: bool = False  # with Traefik, whose image takes seconds to import

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "pinnace.log"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def command(self) -> tuple[str, ...]:
        return (*self.namespace.enter_mounts, sys.executable, "-m", "node")

    @property
    def arguments(self) -> list[str]:
        return [
            f"--data-dir={self.data}",
            f"--run-dir={self.folder / 'run'}",
            f"--write-kubeconfig={self.kubeconfig}",
            f"--config={self.folder / 'config.yaml'}",
            "--node-name=pi",
            f"--node-ip={ADDRESS}",
            *(() if self.ingress else ("--disable=traefik",)),
            *self.flags,
        ]

    def start(self, *, timeout: float = PATIENCE) -> float:
        """Seconds until the daemon says that it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").touch()
        offset = self.log.stat().st_size if self.log.exists() else 0
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "server", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.extra_environment,
            )
        self.until(lambda: "pinnace is ready" in self.log_since(offset), timeout=timeout)
        return time.monotonic() - began

    def log_since(self, offset: int) -> str:
        text = self.log.read_bytes()[offset:].decode(errors="replace")
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"pinnace ended with {self.process.returncode}: {text[-4000:]}")
        return text

    def stop(self) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    def kill(self) -> None:
        """As a crash: no orderly stop of anything."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)
        self.process = None

    def clean_up(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        if self.process is not None:
            self.kill()
        run(*self.command, "killall", *self.arguments, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def children(self) -> dict[str, int]:
        """Process numbers of the daemon's children, by name."""
        assert self.process is not None
        daemon = self.process.pid
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                with contextlib.suppress(OSError):
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == daemon:
                        found[(folder / "comm").read_text().strip()] = int(folder.name)
        return found

    def kubectl(
        self, *arguments: str, check: bool = True, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        own = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.folder / "cache")}
        environment = os.environ | own | more.pop("env", {})
        program = find_kubectl()
        return self.namespace.exec(program, *arguments, check=check, env=environment, **more)

    def kubectl_in_background(self, *arguments: str, **more: Any) -> "subprocess.Popen[str]":
        """The caller ends it. Standard output and error are pipes."""
        return subprocess.Popen(
            [*self.namespace.enter, find_kubectl(), *arguments],
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def apply(self, manifest: str, *flags: str) -> None:
        self.kubectl("apply", "-f", "-", *flags, input=manifest)

    def exec(self, pod: str, *argv: str, check: bool = True) -> str:
        return self.kubectl("exec", pod, "--", *argv, check=check).stdout

    def http(self, url: str) -> str:
        """What a client on this machine gets."""
        return self.namespace.exec(sys.executable, "-c", FETCH, url, check=False).stdout

    def until(self, condition: Any, *, timeout: float = PATIENCE, seen: Any = None) -> Any:
        """The first true value of the condition; it is asked again ten times a second."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                shown = seen() if seen else ""
                tail = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
                raise Timeout(f"not within {timeout} s; {shown}\n{tail}")
            time.sleep(0.1)


FETCH = """
import sys, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
        print(answer.status, answer.read().decode())
except OSError as err:
    print("failed", err)
"""


def with_images(node: Node) -> Node:
    """The same node, given the images of a node without a registry."""
    images = node.data / "agent" / "images"
    run(sys.executable, str(ROOT / "image-build" / "images.py"), str(images))
    if node.ingress:
        run(sys.executable, str(ROOT / "image-build" / "charts.py"), "--packaged")
        run(sys.executable, str(ROOT / "image-build" / "traefik.py"), str(images))
    return node


@contextlib.contextmanager
def booted(
    folder: Path, *flags: str, name: str = "pinnace-e2e", ingress: bool = False
) -> Iterator[Node]:
    """A node that runs, with the images of a node without a registry."""
    with Namespace(f"{name}-{os.getpid()}") as namespace:
        node = with_images(Node(folder, namespace, flags, ingress=ingress))
        try:
            node.start()
            yield node
        finally:
            node.clean_up()
