"""
What the control plane was told: a frozen value, read in one place.

The node daemon reads flags, environment and files; what concerns the control
plane comes here as settings: flag names without dashes in front, in K3s's
spelling, each with its value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    data_dir: Path  # /var/lib/pinnace
    bind_address: str  # 0.0.0.0
    https_port: int  # 6443
    advertise_address: str  # of the default/kubernetes endpoints: this node's address
    tls_sans: tuple[str, ...]
    cluster_cidr: IPv4Network  # 10.42.0.0/16
    service_cidr: IPv4Network  # 10.43.0.0/16
    node_port_range: tuple[int, int]  # 30000, 32767; both inclusive
    cluster_dns: IPv4Address  # 10.43.0.10
    cluster_domain: str  # cluster.local
    node_name: str  # of the agent on this machine
    node_ips: tuple[str, ...]
    disable: frozenset[str]  # names of packaged components and of AddOns
    write_kubeconfig: Path  # /etc/pinnace/pinnace.yaml
    write_kubeconfig_mode: int  # 0o600
    token: str  # "": made at the first start
    datastore_endpoint: str  # "": the embedded SQLite
    system_default_registry: str = ""  # host[:port] of the images of packaged components
    local_storage_path: str = ""  # of local-path volumes; "": below data_dir
    cluster_dns_provider: str = "pinnace"  # or coredns

    @property
    def server_dir(self) -> Path:
        return self.data_dir / "server"

    @property
    def tls_dir(self) -> Path:
        return self.data_dir / "server" / "tls"

    @property
    def agent_dir(self) -> Path:
        """Where the agent of this machine finds its certificates and kubeconfigs."""
        return self.data_dir / "agent"


def from_settings(settings: Mapping[str, Any]) -> Config:
    """``settings`` is complete: the node daemon has filled in every default."""
    first, _, last = settings["service-node-port-range"].partition("-")
    node_ips = tuple(settings["node-ip"])
    return Config(
        data_dir=Path(settings["data-dir"]),
        bind_address=settings["bind-address"],
        https_port=settings["https-listen-port"],
        advertise_address=settings["advertise-address"] or node_ips[0],
        tls_sans=tuple(settings["tls-san"]),
        cluster_cidr=IPv4Network(settings["cluster-cidr"]),
        service_cidr=IPv4Network(settings["service-cidr"]),
        node_port_range=(int(first), int(last)),
        cluster_dns=IPv4Address(settings["cluster-dns"]),
        cluster_domain=settings["cluster-domain"],
        node_name=settings["node-name"],
        node_ips=node_ips,
        disable=frozenset(settings["disable"]),
        write_kubeconfig=Path(settings["write-kubeconfig"]),
        write_kubeconfig_mode=int(settings["write-kubeconfig-mode"], 8),
        token=settings["token"],
        datastore_endpoint=settings["datastore-endpoint"],
        system_default_registry=settings["system-default-registry"].rstrip("/"),
        local_storage_path=settings["default-local-storage-path"],
        cluster_dns_provider=settings["cluster-dns-provider"],
    )
