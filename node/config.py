"""
What the agent was told: a frozen value made from the settings of the node daemon.

Reading flags, environment and files into settings is :mod:`node.settings`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    data_dir: Path  # /var/lib/pinnace
    run_dir: Path  # /run/pinnace
    server: str  # https://127.0.0.1:6443
    node_name: str
    node_ips: tuple[str, ...]  # the node's internal addresses, the first is the main one
    node_external_ips: tuple[str, ...]
    node_labels: Mapping[str, str]  # of the first registration
    node_taints: tuple[str, ...]  # key=value:Effect, of the first registration
    is_server: bool  # a control plane runs on this machine
    cluster_cidr: IPv4Network
    service_cidr: IPv4Network
    node_port_range: tuple[int, int]  # both inclusive
    cluster_dns: IPv4Address
    cluster_domain: str
    resolv_conf: str  # "": the machine's own
    kubelet_port: int  # 10250
    containerd_socket: Path
    pause_image: str
    max_pods: int  # 110
    disable: frozenset[str]
    system_default_registry: str
    network_policy: bool = True  # enforced by the operators of this node
    network_policy_fail: str = "closed"  # "closed" | "open"
    cluster_dns_provider: str = "pinnace"  # or coredns
    private_registry: Path = Path("/etc/pinnace/registries.yaml")
    default_runtime: str = ""  # of pods without a RuntimeClass; "": runc
    datastore: str = ""  # what kind of datastore there is instead of the embedded one: "etcd", …

    @property
    def answers_dns(self) -> bool:
        """The agent has the cluster DNS address; else whoever the Service kube-dns selects."""
        return self.cluster_dns_provider == "pinnace" and "coredns" not in self.disable

    @property
    def agent_dir(self) -> Path:
        """Certificates, kubeconfigs, containerd's state, preloaded images."""
        return self.data_dir / "agent"

    @property
    def pods_dir(self) -> Path:
        """Volumes and container files of each pod, by uid."""
        return self.data_dir / "agent" / "pods"

    @property
    def images_dir(self) -> Path:
        return self.data_dir / "agent" / "images"

    @property
    def log_dir(self) -> Path:
        """Where containers' logs go; the path is kubelet's, log shippers look there."""
        return Path("/var/log/pods")

    @property
    def own_ports(self) -> tuple[int, ...]:
        """TCP ports of the kubelet and, on a server, of the API server."""
        api = urlsplit(self.server).port if self.is_server else None
        return (self.kubelet_port, *([api] if api else []))

    @property
    def cni_conf_dir(self) -> Path:
        return self.data_dir / "agent" / "etc" / "cni" / "net.d"


def _pairs(items: tuple[str, ...]) -> dict[str, str]:
    return {key: value for key, _, value in (item.partition("=") for item in items)}


def datastore(settings: Mapping[str, Any]) -> str:
    """The kind of datastore, and nothing else of an address that may hold a password."""
    return str(settings.get("datastore-endpoint") or "").partition(":")[0]


def from_settings(settings: Mapping[str, Any]) -> Config:
    """``settings`` is complete: :mod:`node.settings` has filled in every default."""
    first, _, last = settings["service-node-port-range"].partition("-")
    run_dir = Path(settings["run-dir"])
    return Config(
        data_dir=Path(settings["data-dir"]),
        run_dir=run_dir,
        server=settings["server"] or f"https://127.0.0.1:{settings['https-listen-port']}",
        node_name=settings["node-name"],
        node_ips=tuple(settings["node-ip"]),
        node_external_ips=tuple(settings["node-external-ip"]),
        node_labels=_pairs(tuple(settings["node-label"])),
        node_taints=tuple(settings["node-taint"]),
        is_server=settings["role"] == "server",
        cluster_cidr=IPv4Network(settings["cluster-cidr"]),
        service_cidr=IPv4Network(settings["service-cidr"]),
        node_port_range=(int(first), int(last)),
        cluster_dns=IPv4Address(settings["cluster-dns"]),
        cluster_domain=settings["cluster-domain"],
        resolv_conf=settings["resolv-conf"],
        kubelet_port=settings["kubelet-port"],
        containerd_socket=run_dir / "containerd" / "containerd.sock",
        pause_image=settings["pause-image"],
        max_pods=settings["max-pods"],
        disable=frozenset(settings["disable"]),
        system_default_registry=settings["system-default-registry"],
        network_policy=not settings["disable-network-policy"],
        network_policy_fail=settings["network-policy-fail"],
        cluster_dns_provider=settings["cluster-dns-provider"],
        private_registry=Path(settings["private-registry"]),
        default_runtime=settings["default-runtime"],
        datastore=datastore(settings),
    )
