"""
The flags of ``pinnace server`` and ``pinnace agent``, as data.

Names are K3s's wherever the meaning is the same. A flag that K3s has and
Pinnace does not is listed too, so that it is refused by name and not taken for
a typing error.
"""

from dataclasses import dataclass
from typing import Any

Default = str | int | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag; its type is the type of its default. A tuple may be given several times."""

    name: str
    default: Default
    help: str
    short: str = ""
    server_only: bool = False

    @property
    def environment(self) -> str:
        return "PINNACE_" + self.name.upper().replace("-", "_")

    @property
    def repeatable(self) -> bool:
        return isinstance(self.default, tuple)


def _server(name: str, default: Default, text: str) -> Flag:
    return Flag(name, default, text, server_only=True)


FLAGS: tuple[Flag, ...] = (
    Flag(
        "config", "/etc/pinnace/config.yaml", "configuration file; <name>.d/*.yaml follow it", "c"
    ),
    Flag("debug", False, "log more"),
    Flag("data-dir", "/var/lib/pinnace", "where everything that lasts is kept", "d"),
    Flag("run-dir", "/run/pinnace", "sockets and locks"),
    Flag("set-clock", False, "set a clock that cannot be right forward, as an appliance does"),
    Flag("token", "", "secret by which machines join; made at the first start if empty", "t"),
    Flag("token-file", "", "file that holds the token"),
    Flag("server", "", "the server to join: https://host:6443", "s"),
    _server("bind-address", "0.0.0.0", "address that the API server listens on"),
    Flag("https-listen-port", 6443, "port of the API server"),
    _server("advertise-address", "", "address of the API server for pods; default: the node's"),
    _server("tls-san", (), "further names and addresses in the serving certificate"),
    Flag("cluster-cidr", "10.42.0.0/16", "addresses of pods"),
    Flag("service-cidr", "10.43.0.0/16", "addresses of services"),
    Flag("service-node-port-range", "30000-32767", "ports of NodePort services"),
    Flag("cluster-dns", "10.43.0.10", "address of the cluster DNS server"),
    Flag("cluster-domain", "cluster.local", "domain of the cluster"),
    _server("begin-empty", False, "begin an empty cluster where there was one whose data is lost"),
    _server("write-kubeconfig", "/etc/pinnace/pinnace.yaml", "where the admin kubeconfig goes"),
    _server("write-kubeconfig-mode", "0600", "its file mode"),
    _server("datastore-endpoint", "", "another datastore than the embedded SQLite"),
    Flag("disable", (), "packaged components and AddOns to leave out"),
    Flag(
        "cluster-dns-provider",
        "pinnace",
        "who answers cluster DNS: pinnace, within the agent, or coredns, in a pod",
    ),
    Flag("disable-network-policy", False, "enforce no network policies"),
    Flag(
        "network-policy-fail",
        "closed",
        "a pod whose policies could not be loaded in time: closed waits on, open starts",
    ),
    _server("disable-helm-controller", False, "leave HelmCharts to somebody else"),
    Flag("default-local-storage-path", "", "local-path volumes; default: <data-dir>/storage"),
    Flag("servicelb-namespace", "kube-system", "of the pods of the service load balancer"),
    Flag("node-name", "", "name of this node; default: the host name"),
    Flag("node-ip", (), "addresses of this node; default: found out"),
    Flag("node-external-ip", (), "addresses of this node seen from outside"),
    Flag("node-label", (), "label at the first registration: key=value"),
    Flag("node-taint", (), "taint at the first registration: key=value:Effect"),
    Flag("resolv-conf", "", "resolver configuration for pods; default: the machine's"),
    Flag("default-runtime", "", "container runtime of pods without a class; default: runc"),
    Flag("pause-image", "pinnace.dev/pause:1", "image of the sandbox container"),
    Flag("private-registry", "/etc/pinnace/registries.yaml", "mirrors, credentials of registries"),
    Flag("system-default-registry", "", "registry of the system's own images"),
    Flag("kubelet-port", 10250, "port of the kubelet's API"),
    Flag("max-pods", 110, "pods that may run on this node"),
)

BY_NAME: dict[str, Flag] = {flag.name: flag for flag in FLAGS}
BY_SHORT: dict[str, Flag] = {flag.short: flag for flag in FLAGS if flag.short} | {
    "o": BY_NAME["write-kubeconfig"],
    "i": BY_NAME["node-ip"],
}

# What K3s has and Pinnace refuses by name.
NOT_SUPPORTED: frozenset[str] = frozenset(
    """
    advertise-port agent-token agent-token-file airgap-extra-registry alsologtostderr cluster-init
    cluster-reset cluster-reset-restore-path container-runtime-endpoint datastore-cafile
    datastore-certfile datastore-keyfile disable-agent
    disable-apiserver disable-apiserver-lb disable-cloud-controller disable-controller-manager
    disable-default-registry-endpoint disable-etcd disable-kube-proxy
    disable-scheduler docker egress-selector-mode embedded-registry
    enable-pprof etcd-arg etcd-disable-snapshots etcd-expose-metrics etcd-s3 etcd-snapshot-dir
    etcd-snapshot-compress etcd-snapshot-name etcd-snapshot-retention etcd-snapshot-schedule-cron
    flannel-backend flannel-cni-conf flannel-conf flannel-external-ip flannel-iface
    flannel-ipv6-masq helm-controller-arg helm-job-image image-credential-provider-bin-dir
    image-credential-provider-config image-service-endpoint kine-tls kube-apiserver-arg
    kube-cloud-controller-manager-arg kube-controller-manager-arg kube-proxy-arg
    kube-scheduler-arg kubelet-arg lb-server-port log node-external-dns node-internal-dns
    nonroot-devices prefer-bundled-bin protect-kernel-defaults rootless
    secrets-encryption secrets-encryption-provider selinux snapshotter
    supervisor-metrics tls-san-security vmodule vpn-auth vpn-auth-file with-node-id
    write-kubeconfig-group
    """.split()
)


def defaults() -> dict[str, Any]:
    return {flag.name: flag.default for flag in FLAGS}
