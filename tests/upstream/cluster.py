"""
Upstream's control plane as children: etcd, API server and, where asked for, the others.

Keys and kubeconfigs are those that Pinnace makes for itself, so that whatever joins a node
of Pinnace joins this one as well: the operators, and the agent with its kubelet.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import yaml

from controlplane.config import from_settings
from controlplane.pki.ensure import Pki, ensure_pki
from node import settings
from tests.fakes.operators_cluster import ROOT, Cluster
from tests.upstream.build import PROGRAMS, programs

PATIENCE = 60.0
CONTROLLERS = "kube-controller-manager"
SCHEDULER = "kube-scheduler"


def needs_upstream(*names: str) -> pytest.MarkDecorator:
    missing = sorted(set(names or PROGRAMS) - programs().keys())
    reason = f"not built here: {', '.join(missing)} (make test-upstream builds them)"
    return pytest.mark.skipif(bool(missing), reason=reason)


@dataclass(kw_only=True)
class Upstream(Cluster):
    """``enter``: what is put in front of each command, to run it in another namespace."""

    pki: Pki
    enter: Sequence[str] = ()
    # Of etcd for its clients and for its peers, of controllers and of the scheduler.
    peers: tuple[int, int, int, int]
    ports: dict[str, int] = field(default_factory=dict)  # of the operators' health, by child
    admin: Path | None = None  # the administrator's kubeconfig, where it is not in ``data``

    @property
    def kubeconfig(self) -> Path:
        return self.admin or self.data / "admin.yaml"

    def start_etcd(self) -> None:
        client, peer = self.peers[:2]
        flags = {
            "name": "e",
            "data-dir": self.data / "etcd",
            "listen-client-urls": f"http://127.0.0.1:{client}",
            "advertise-client-urls": f"http://127.0.0.1:{client}",
            "listen-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-cluster": f"e=http://127.0.0.1:{peer}",
            "unsafe-no-fsync": "true",
            "log-level": "error",
        }
        self.start_program("etcd", flags)

    def start_api(self, *, wait: bool = True, **more: object) -> None:
        pki, tls = self.pki, self.pki.tls_dir
        flags = {
            "etcd-servers": f"http://127.0.0.1:{self.peers[0]}",
            "secure-port": self.port,
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",
            "tls-cert-file": pki.serving[0],
            "tls-private-key-file": pki.serving[1],
            "client-ca-file": pki.client_ca,
            "kubelet-certificate-authority": pki.server_ca,
            "kubelet-client-certificate": pki.admin_client[0],
            "kubelet-client-key": pki.admin_client[1],
            "kubelet-preferred-address-types": "InternalIP",
            "requestheader-client-ca-file": pki.request_header_ca,
            "requestheader-allowed-names": "system:auth-proxy",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": pki.service_key,
            "service-account-signing-key-file": pki.service_key,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-cluster-ip-range": "10.43.0.0/16",
            "allow-privileged": "true",
            "cert-dir": tls,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        self.start_program("kube-apiserver", flags)
        if wait:
            self.until_answers(self._ready)

    def _ready(self) -> bool:
        certificate, key = self.pki.admin_client
        answer = requests.get(
            f"https://127.0.0.1:{self.port}/readyz",
            cert=(str(certificate), str(key)),
            verify=str(self.pki.server_ca),
            timeout=10,
        )
        return answer.ok

    def start_controllers(self) -> None:
        flags = {
            "kubeconfig": self.kubeconfig,
            "secure-port": self.peers[2],
            "bind-address": "127.0.0.1",
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self.pki.service_key,
            "root-ca-file": self.pki.server_ca,
            "cluster-signing-cert-file": self.pki.client_ca,
            "cluster-signing-key-file": self.pki.tls_dir / "client-ca.key",
            "cluster-cidr": "10.42.0.0/16",
            "allocate-node-cidrs": "true",
            "cert-dir": self.data / "controllers",
        }
        self.start_program(CONTROLLERS, flags)

    def start_scheduler(self) -> None:
        flags = {
            "kubeconfig": self.kubeconfig,
            "secure-port": self.peers[3],
            "bind-address": "127.0.0.1",
            "leader-elect": "false",
            "cert-dir": self.data / "scheduler",
        }
        self.start_program(SCHEDULER, flags)

    def start_program(self, name: str, flags: dict[str, object]) -> None:
        argv = [str(programs()[name]), *(f"--{flag}={value}" for flag, value in flags.items())]
        self.spawn(name, argv)

    def spawn(self, name: str, argv: Sequence[str], **environment: str) -> None:
        """A child of the test; what it prints is :meth:`log` of its name."""
        with (self.data / f"{name}.log").open("a") as log:
            self.children[name] = subprocess.Popen(
                [*self.enter, *argv],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                env=os.environ | environment,
            )

    def operators(
        self, name: str, *flags: str, kubeconfig: Path | None = None, ready: bool = True
    ) -> None:
        """``python -m operators``; it has begun to watch, or to wait for the Lease."""
        self.ports[name] = free_port()
        told = {
            "kubeconfig": kubeconfig or self.kubeconfig,
            "run-dir": self.data / "run",
            "health-address": f"127.0.0.1:{self.ports[name]}",
        }
        argv = [f"--{flag}={value}" for flag, value in told.items()]
        self.spawn(name, [sys.executable, "-m", "operators", *argv, *flags])
        if ready:
            self.until_answers(lambda: requests.get(f"{self.health(name)}/readyz", timeout=5).ok)

    def health(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def metric(self, name: str, metric: str) -> float:
        """The first sample of this name; -1: none yet."""
        text = requests.get(f"{self.health(name)}/metrics", timeout=5).text
        lines = (line.rpartition(" ") for line in text.splitlines())
        found = [float(value) for title, _, value in lines if title.startswith(metric)]
        return found[0] if found else -1.0

    def end(self, name: str) -> int:
        """An orderly stop; the exit code."""
        child = self.children.pop(name)
        child.send_signal(signal.SIGTERM)
        try:
            return child.wait(20)
        finally:
            child.kill()
            child.wait()

    def kill(self, module: str) -> None:
        child = self.children.pop(module)
        child.kill()
        child.wait()

    def until_answers(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if holds():
                    return
                last = "no"
            except (requests.RequestException, AssertionError, ValueError) as err:
                last = str(err)
            gone = [name for name, child in self.children.items() if child.poll() is not None]
            if gone or time.monotonic() > deadline:
                logs = "\n".join(self.log(name)[-3000:] for name in gone or self.children)
                raise AssertionError(f"{gone or 'nobody'} ended; {last}\n{logs}")
            time.sleep(0.1)

    def account(self, namespace: str, name: str) -> Path:
        """A kubeconfig of a service account, with its token in a file, as in a pod."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        made = self.create(path, {"spec": {"expirationSeconds": 3600}})
        folder = self.data / f"{namespace}-{name}"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(made["status"]["token"])
        server = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.pki.server_ca),
        }
        document = {
            "current-context": "a",
            "clusters": [{"name": "a", "cluster": server}],
            "users": [{"name": "a", "user": {"tokenFile": "token"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        }
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(document))
        return kubeconfig


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def upstream(
    data: Path, *others: str, enter: Sequence[str] = (), port: int = 0
) -> Iterator[Upstream]:
    """``others``: of the programs, those beside etcd and the API server."""
    port = port or free_port()
    flags = [
        f"--data-dir={data}",
        f"--write-kubeconfig={data}/admin.yaml",
        f"--https-listen-port={port}",
        "--node-ip=127.0.0.1",
        "--node-name=n1",
    ]
    read = settings.read("server", flags, {})
    cluster = Upstream(
        data=data,
        port=port,
        pki=ensure_pki(from_settings(read), datetime.now(UTC)),
        enter=enter,
        peers=(free_port(), free_port(), free_port(), free_port()),
    )
    try:
        cluster.start_etcd()
        cluster.start_api()
        if CONTROLLERS in others:
            cluster.start_controllers()
        if SCHEDULER in others:
            cluster.start_scheduler()
        yield cluster
    finally:
        for child in cluster.children.values():
            child.kill()
            child.wait()
