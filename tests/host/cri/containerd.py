"""A containerd of one's own for a test: its own folders, socket, network and cgroups."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.fakes.ociimage import FOLDERS, busybox_files, write_image

BUSYBOX = "registry.test/busybox:1"
PAUSE = "registry.test/pause:1"
USER_IMAGE = "registry.test/user:1"

_CONFIG = """
version = 2
root = "{root}/lib"
state = "{root}/run"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{root}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  enable_selinux = false
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{root}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


class Containerd:
    """Its mutable state is the process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "containerd.sock"
        self.tag = uuid.uuid4().hex[:8]
        self.bridge = f"ct{self.tag}"
        self.cgroup = f"/pinnace-test-{self.tag}"
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        (self.root / "cni").mkdir(parents=True)
        subnet = _free_subnet()
        network = {
            "cniVersion": "0.4.0",
            "name": f"test-{self.tag}",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.root / "ipam"),
                        "ranges": [[{"subnet": subnet}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
            ],
        }
        (self.root / "cni" / "10-test.conflist").write_text(json.dumps(network))
        (self.root / "config.toml").write_text(_CONFIG.format(root=self.root, pause=PAUSE))

    def start(self) -> None:
        log = (self.root / "containerd.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                ["/usr/bin/containerd", "--config", str(self.root / "config.toml")],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while self.ctr("version", check=False).returncode != 0:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.root / "containerd.log").read_text()[-2000:])
            time.sleep(0.02)  # containerd tells nobody when it is ready

    def crash(self) -> None:
        """SIGKILL to containerd alone: shims and containers stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def import_images(self) -> None:
        files = busybox_files()
        tar = self.root / "image.tar"
        path = ["PATH=/bin"]
        pause = {"pause": files["pause"]}
        write_image(tar, PAUSE, pause, config={"Entrypoint": ["/pause", "-P"]})
        self.ctr("-n", "k8s.io", "images", "import", str(tar))
        write_image(tar, BUSYBOX, files, folders=FOLDERS, config={"Cmd": ["sh"], "Env": path})
        self.ctr("-n", "k8s.io", "images", "import", str(tar))
        user = {"Cmd": ["sh"], "Env": path, "User": "user", "WorkingDir": "/home"}
        write_image(tar, USER_IMAGE, files, folders=FOLDERS, config=user)
        self.ctr("-n", "k8s.io", "images", "import", str(tar))

    def ctr(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["/usr/bin/ctr", "-a", str(self.socket), *args],
            check=check,
            capture_output=True,
            timeout=60,
        )

    def stop(self) -> None:
        for pid in self._shims():
            _kill_shim(pid)
        self.crash()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            target = line.split()[1]
            if target.startswith(str(self.root)):
                subprocess.run(["umount", "-l", target], check=False)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)
        for folder in self._cgroups():
            with contextlib.suppress(OSError):
                folder.rmdir()
        shutil.rmtree(self.root, ignore_errors=True)

    def _shims(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (entry / "cmdline").read_bytes()
                    if b"containerd-shim" in line and str(self.socket).encode() in line:
                        found.append(int(entry.name))
        return found

    def _cgroups(self) -> Iterator[Path]:
        for top in Path("/sys/fs/cgroup").glob(f"*{self.cgroup}"):
            yield from sorted(top.rglob("*/"), key=lambda p: -len(p.parts))
            yield top


def _free_subnet() -> str:
    """Of 10.42.128.0/17, where no product network lies; not one of another test that runs now."""
    taken = subprocess.run(["ip", "route"], check=True, capture_output=True, text=True).stdout
    while True:
        subnet = f"10.42.{secrets.choice(range(128, 256))}.0/24"
        if subnet not in taken:
            return subnet


def _kill_shim(shim: int) -> None:
    """A shim that is killed leaves its containers behind: those first; then wait for the end."""
    doomed = [*_children(shim), shim]
    for process in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{p}/exe").exists() for p in doomed) and time.monotonic() < deadline:
        time.sleep(0.01)  # they are not our children: nobody tells us


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found
