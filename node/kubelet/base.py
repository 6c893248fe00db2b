"""
What the parts of the kubelet are given: settings, clock, the policy gate, and who listens.

:class:`Settings` is what the pod code needs of the configuration plus the facts
found at start (cgroup driver and version, memory), so that pure code asks no kernel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from controlplane.client.base import Object
from controlplane.objects.kinds import Resource
from node.cri.base import Features

PODS = Resource("", "v1", "pods", True)
NODES = Resource("", "v1", "nodes", False)
SECRETS = Resource("", "v1", "secrets", True)
CONFIG_MAPS = Resource("", "v1", "configmaps", True)
SERVICES = Resource("", "v1", "services", True)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", True)
EVENTS = Resource("", "v1", "events", True)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", True)
VOLUMES = Resource("", "v1", "persistentvolumes", False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", True)
TRUST_BUNDLES = Resource("certificates.k8s.io", "v1", "clustertrustbundles", False)
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", False)

Clock = Callable[[], datetime]  # UTC, with tzinfo

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
CONTAINER_HASH = "io.kubernetes.container.hash"
RESOURCES = "pinnace.dev/resources"  # JSON of what the container was started with
RESTART_COUNT = "io.kubernetes.container.restartCount"
GRACE_PERIOD = "io.kubernetes.pod.terminationGracePeriod"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    node_name: str
    node_ips: tuple[str, ...]
    pods_dir: Path
    log_dir: Path
    cluster_dns: str
    cluster_domain: str
    resolv_conf: Path
    cgroup_root: str = ""  # "": kubepods directly below the root
    cgroup_driver: str = "cgroupfs"
    cgroup_v2: bool = False
    memory: int = 0  # bytes of the machine
    cpus: int = 1
    handlers: Mapping[str, Features] = field(default_factory=dict)  # of the runtime, by name
    # What Downward API fields of limits fall back to.
    allocatable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Covered:
    """``start``: the pod may start. ``why``: its rules are not loaded, for this reason."""

    start: bool
    why: str = ""


class Gate(Protocol):
    async def covered(self, pod: Object, ips: Sequence[str]) -> Covered:
        """
        Are the rules that select this pod loaded? Waits for as long as it may.

        Asked after the sandbox has its addresses, ``ips``, and before the first container starts.
        """
        ...


class OpenGate:
    """No policies are enforced on this node."""

    async def covered(self, pod: Object, ips: Sequence[str]) -> Covered:
        return Covered(True)


class Recorder(Protocol):
    def record(self, about: Object, type: str, reason: str, message: str) -> None:  # noqa: A002
        """Never waits; what cannot be sent is dropped. ``about`` may carry a ``fieldPath``."""


class ConfigError(Exception):
    """The pod asks for what is not there (yet) or not right: CreateContainerConfigError."""


def is_recursive_read_only(mount: Mapping[str, Any], features: Features) -> bool:
    """What a mount asks for and gets (KEP-3857); ``ValueError`` where it cannot be done."""
    wanted, name = mount.get("recursiveReadOnly") or "Disabled", mount["name"]
    if wanted == "Disabled":
        return False
    if wanted == "Enabled" and not features.recursive_read_only:
        raise ValueError(
            f'volume "{name}" requested recursive read-only mode, but it is not supported by the '
            "runtime"
        )
    return features.recursive_read_only


def uid_of(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def key_of(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def all_containers(pod: Object) -> list[Mapping[str, Any]]:
    spec = pod["spec"]
    return [
        *spec.get("initContainers", ()),
        *spec["containers"],
        *spec.get("ephemeralContainers", ()),
    ]


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """Of an init container: does it keep running beside the others? (KEP-753)"""
    return container.get("restartPolicy") == "Always"


def grace_of(pod: Object) -> int:
    """Seconds that the pod's containers have to stop."""
    asked = pod["metadata"].get("deletionGracePeriodSeconds")
    if asked is None:
        asked = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return int(asked)
