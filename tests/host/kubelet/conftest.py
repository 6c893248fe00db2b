"""A containerd for the module, a kubelet for each test."""

import asyncio
import base64
import contextlib
import inspect
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from node.config import Config
from node.cri.client import CriClient
from node.kubelet.run import Kubelet
from tests.host.cri.containerd import BUSYBOX, Containerd
from tests.host.kubelet.api import Api, ApiClient, ApiReads


@pytest.fixture(scope="package")
def containerd() -> Iterator[Containerd]:
    # A short path: a unix socket's name has at most 107 bytes.
    made = Containerd(Path(tempfile.mkdtemp(prefix="ctd-")) / "c")
    made.prepare()
    made.start()
    try:
        made.import_images()
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.root.parent, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class TestConfig(Config):
    __test__ = False
    logs: Path = Path("/nowhere")

    @property
    def log_dir(self) -> Path:
        return self.logs


def config(folder: Path, containerd: Containerd) -> TestConfig:
    return TestConfig(
        data_dir=folder / "data",
        run_dir=folder / "run",
        server="https://127.0.0.1:1",
        node_name="n1",
        node_ips=("127.0.0.1",),
        node_external_ips=(),
        node_labels={},
        node_taints=(),
        is_server=True,
        cluster_cidr=IPv4Network("10.42.0.0/16"),
        service_cidr=IPv4Network("10.43.0.0/16"),
        node_port_range=(30000, 32767),
        cluster_dns=IPv4Address("10.43.0.10"),
        cluster_domain="cluster.local",
        resolv_conf="",
        kubelet_port=0,
        containerd_socket=containerd.socket,
        pause_image="registry.test/pause:1",
        max_pods=110,
        disable=frozenset(),
        system_default_registry="",
        logs=folder / "logs",
    )


@dataclass
class Node:
    """A kubelet on the module's containerd and an API of its own."""

    containerd: Containerd
    config: TestConfig
    api: Api = field(default_factory=Api)
    kubelet: Kubelet | None = None
    _task: asyncio.Task[None] | None = None
    _stop: asyncio.Event | None = None

    async def start(self) -> Kubelet:
        runtime = CriClient(self.containerd.socket)
        self.runtime = runtime
        self.kubelet = Kubelet(
            self.config,
            ApiClient(self.api),
            ApiReads(self.api),
            self.api,
            runtime=runtime,
            clock=lambda: datetime.now(UTC),
            cgroup_root=self.containerd.cgroup,
        )
        self._stop = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self.kubelet.run(self._stop))
        return self.kubelet

    async def stop(self) -> None:
        if self._task is not None and self._stop is not None:
            self._stop.set()
            await self._task
            await self.runtime.close()

    async def idle(self, seconds: float = 10) -> None:
        """Until every worker is done: nothing of any pod is left."""
        if self.kubelet is not None:
            kubelet = self.kubelet
            await until(lambda: not kubelet.workers, seconds)

    def status(self, name: str) -> dict[str, Any]:
        return self.api.pod(name)["status"]  # type: ignore[no-any-return]

    async def phase(self, name: str, phase: str, seconds: float = 20) -> dict[str, Any]:
        await self.api.until(lambda: self.status(name)["phase"] == phase, seconds)
        return self.status(name)

    async def ready(self, name: str, seconds: float = 20) -> dict[str, Any]:
        def holds() -> bool:
            conditions = self.status(name)["conditions"]
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        await self.api.until(holds, seconds)
        return self.status(name)

    def log(self, name: str, container: str = "c", attempt: int = 0) -> str:
        meta = self.api.pod(name)["metadata"]
        folder = self.config.logs / f"{meta['namespace']}_{meta['name']}_{meta['uid']}"
        lines = (folder / container / f"{attempt}.log").read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)


@pytest_asyncio.fixture
async def node(containerd: Containerd) -> AsyncIterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="klet-"))
    made = Node(containerd, config(folder, containerd))
    await made.start()
    try:
        yield made
    finally:
        await _sweep(made)
        await made.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _sweep(node: Node) -> None:
    """Leaves nothing of a test's pods behind."""
    from node.kubelet.base import PODS

    if node.kubelet is None:
        return
    for (resource, namespace, name), pod in list(node.api._objects.items()):
        if resource == PODS:
            pod["metadata"]["deletionGracePeriodSeconds"] = 0
            node.api.remove(PODS, namespace, name)
    with contextlib.suppress(TimeoutError):
        await node.idle(20)


async def until(holds: Callable[[], Any], seconds: float = 10) -> None:
    """For what no event tells of: the inside of the kubelet, a port, a file."""
    async with asyncio.timeout(seconds):
        while True:
            result = holds()
            if (await result) if inspect.isawaitable(result) else result:
                return
            await asyncio.sleep(0.02)


def pod(name: str, command: str = "", **more: Any) -> dict[str, Any]:
    """A pod of one busybox container ``c``; ``spec`` and ``container`` are merged in."""
    container: dict[str, Any] = {
        "name": "c",
        "image": BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command or "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
    }
    container |= more.get("container", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", **more.get("meta", {})},
        "spec": {
            "nodeName": "n1",
            "containers": [container],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 3,
            **more.get("spec", {}),
        },
    }


def secret(name: str, data: dict[str, str]) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    meta = {"name": name, "namespace": "default"}
    return {"kind": "Secret", "metadata": meta, "type": "Opaque", "data": encoded}


def config_map(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def service(name: str, address: str, port: int) -> dict[str, Any]:
    spec = {"clusterIP": address, "ports": [{"port": port, "protocol": "TCP"}]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
