"""
A whole cluster of upstream's control plane with our agent as its node, in one namespace.

What runs in it are real pods, on the real containerd: only who decides is another.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controlplane.config import from_settings
from controlplane.pki.ensure import ensure_pki
from node import settings
from tests.e2e.node import ADDRESS, ROOT, Namespace, Node, run, with_images
from tests.e2e.operators_image import with_operators
from tests.upstream.cluster import Upstream

PORT = 6443
# What our agent asks beyond upstream's kubelet, for it is the service proxy and the DNS as well.
RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:pinnace-agent"}
rules:
- {apiGroups: [""], resources: [services, endpoints, nodes, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch]}
- {apiGroups: [""], resources: [configmaps], verbs: [list, watch], resourceNames: [coredns-custom]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:pinnace-agent"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:pinnace-agent"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]
"""


@dataclass
class Foreign(Node):
    """:class:`tests.e2e.node.Node` whose API server is upstream's; kubectl works as there."""

    cluster: Upstream | None = None

    def start(self, *, timeout: float = 60.0) -> float:
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").touch()
        read = settings.read("server", self.arguments, {})
        pki = ensure_pki(from_settings(read), datetime.now(UTC))
        cluster = self.cluster = Upstream(
            data=self.data,
            port=PORT,
            pki=pki,
            enter=self.namespace.enter_mounts,
            peers=(2379, 2380, 10257, 10259),
        )
        cluster.admin = self.kubeconfig
        cluster.start_etcd()
        cluster.start_api(
            wait=False,
            bind_address="0.0.0.0",
            advertise_address=ADDRESS,
            endpoint_reconciler_type="lease",
            kubelet_client_certificate=pki.kubelet_client[0],
            kubelet_client_key=pki.kubelet_client[1],
        )
        ready = ("get", "--raw", "/readyz")
        cluster.until_answers(lambda: self.kubectl(*ready, check=False).stdout == "ok")
        cluster.start_controllers()
        cluster.start_scheduler()
        self.apply(RIGHTS)
        argv = [sys.executable, "-m", "tests.upstream.agent", *self.arguments]
        cluster.spawn("agent", argv)
        cluster.until_answers(lambda: "the agent is ready" in cluster.log("agent"))
        return time.monotonic() - began

    @property
    def log(self) -> Path:
        return self.data / "agent.log"

    def clean_up(self) -> None:
        if self.cluster is not None:
            if "agent" in self.cluster.children:
                self.cluster.end("agent")
            for child in self.cluster.children.values():
                child.kill()
                child.wait()
        run(*self.command, "killall", *self.arguments, check=False)
        super().clean_up()


@contextlib.contextmanager
def foreign(folder: Path, *flags: str, name: str = "upstream") -> Iterator[Foreign]:
    with Namespace(f"{name}-{os.getpid()}") as namespace:
        node = Foreign(folder, namespace, flags)
        with_images(node)
        images = node.data / "agent" / "images"
        run(sys.executable, str(ROOT / "image-build" / "servicelb.py"), str(images))
        with_operators(node)
        try:
            node.start()
            yield node
        finally:
            node.clean_up()
