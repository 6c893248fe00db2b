"""
From a pod's specification to what CRI is asked for: sandbox and container configurations.

Pure: everything fetched (environment, mounts, the image's user) is an argument.
Labels and annotations are kubelet's, so that crictl, cAdvisor and log shippers understand
what they see and so that a restarted agent recognises its containers.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.client.base import Object
from node.cri.base import (
    ContainerConfig,
    Device,
    Image,
    Mount,
    NamespaceMode,
    Namespaces,
    PortMapping,
    Profile,
    SandboxConfig,
    SecurityContext,
)
from node.kubelet import env as environment
from node.kubelet import naming, resources
from node.kubelet.base import (
    CONTAINER_HASH,
    CONTAINER_NAME,
    GRACE_PERIOD,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    RESOURCES,
    RESTART_COUNT,
    ConfigError,
    Settings,
    all_containers,
    uid_of,
)

_MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_NUMBER = re.compile(r"[0-9]+")


def _security(pod: Object) -> Mapping[str, Any]:
    return pod["spec"].get("securityContext") or {}


def _context(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return container.get("securityContext") or {}


def container_hash(container: Mapping[str, Any]) -> str:
    """
    Changes when the container must be made anew.

    Of what may be changed in place only the image asks for that; resources are updated.
    """
    kept = {key: container.get(key) for key in ("name", "image")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def log_directory(pod: Object, settings: Settings) -> Path:
    meta = pod["metadata"]
    return settings.log_dir / f"{meta['namespace']}_{meta['name']}_{meta['uid']}"


def log_path(pod: Object, settings: Settings, container: str, attempt: int) -> Path:
    return log_directory(pod, settings) / container / f"{attempt}.log"


def message_file(pod: Object, settings: Settings, container: str, attempt: int) -> Path:
    """Where a container's termination message is kept on the host."""
    return settings.pods_dir / uid_of(pod) / "containers" / container / f"{attempt}.message"


def namespaces(pod: Object, target: str = "") -> Namespaces:
    spec = pod["spec"]
    pid = NamespaceMode.CONTAINER
    if spec.get("hostPID"):
        pid = NamespaceMode.NODE
    elif spec.get("shareProcessNamespace"):
        pid = NamespaceMode.POD
    elif target:
        pid = NamespaceMode.TARGET
    return Namespaces(
        network=NamespaceMode.NODE if spec.get("hostNetwork") else NamespaceMode.POD,
        ipc=NamespaceMode.NODE if spec.get("hostIPC") else NamespaceMode.POD,
        pid=pid,
        target=target,
    )


def _profile(own: Any, of_pod: Any) -> Profile | None:
    chosen = own or of_pod
    if not chosen:
        return None
    name = chosen.get("localhostProfile", "")
    return Profile(type=chosen["type"], localhost_ref=name)


def _seccomp(own: Any, of_pod: Any) -> Profile:
    """Unconfined where nothing is said, as kubelet without --seccomp-default."""
    profile = _profile(own, of_pod) or Profile(type="Unconfined")
    if profile.type == "Localhost":
        ref = f"/var/lib/kubelet/seccomp/{profile.localhost_ref}"
        return Profile(type="Localhost", localhost_ref=ref)
    return profile


def _labels(pod: Object) -> dict[str, str]:
    meta = pod["metadata"]
    return {
        POD_NAME: meta["name"],
        POD_NAMESPACE: meta["namespace"],
        POD_UID: meta["uid"],
    }


def _ports(pod: Object) -> tuple[PortMapping, ...]:
    if pod["spec"].get("hostNetwork"):
        return ()
    return tuple(
        PortMapping(
            protocol=port.get("protocol", "TCP"),
            container_port=port["containerPort"],
            host_port=port["hostPort"],
            host_ip=port.get("hostIP", ""),
        )
        for container in all_containers(pod)
        for port in container.get("ports", ())
        if port.get("hostPort")
    )


def _groups(pod: Object) -> tuple[int, ...]:
    security = _security(pod)
    extra = [security["fsGroup"]] if security.get("fsGroup") is not None else []
    return tuple(dict.fromkeys([*extra, *security.get("supplementalGroups", ())]))


def sandbox_config(
    pod: Object,
    attempt: int,
    settings: Settings,
    *,
    machine: naming.ResolvConf,
    handler: str = "",
) -> SandboxConfig:
    """Raise :class:`ConfigError` for what cannot be isolated as the pod asks."""
    meta, security = pod["metadata"], _security(pod)
    privileged = any(_context(c).get("privileged") for c in all_containers(pod))
    if pod["spec"].get("hostUsers") is False:
        raise ConfigError("Pinnace does not support user namespaces (hostUsers: false)")
    whole, overhead = resources.of_sandbox(pod)
    return SandboxConfig(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        attempt=attempt,
        hostname="" if pod["spec"].get("hostNetwork") else naming.uts_hostname(pod, settings),
        log_directory=str(log_directory(pod, settings)),
        dns=naming.dns(pod, settings, machine),
        ports=_ports(pod),
        labels={**meta.get("labels", {}), **_labels(pod)},
        annotations=meta.get("annotations", {}),
        cgroup_parent=resources.cgroup_parent(pod, settings),
        sysctls={item["name"]: item["value"] for item in security.get("sysctls", ())},
        namespaces=namespaces(pod),
        privileged=privileged,
        run_as_user=security.get("runAsUser"),
        run_as_group=security.get("runAsGroup") if "runAsUser" in security else None,
        supplemental_groups=_groups(pod),
        resources=whole,
        overhead=overhead,
        runtime_handler=handler,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What was fetched or made for one container before it can be described."""

    image: Image
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    devices: tuple[Device, ...] = ()
    target: str = ""  # id of the container whose processes an ephemeral one sees


def _user(pod: Object, container: Mapping[str, Any], image: Image) -> tuple[int | None, str]:
    """(uid, name): of the container, the pod, or the image; checked against runAsNonRoot."""
    own, of_pod = _context(container), _security(pod)
    wanted = own.get("runAsUser", of_pod.get("runAsUser"))
    not_root = own.get("runAsNonRoot", of_pod.get("runAsNonRoot"))
    uid = wanted if wanted is not None else image.uid
    if uid is None and not image.username:
        uid = 0
    if not_root:
        _check_not_root(wanted, uid, image, _where(pod, container))
    if wanted is not None:
        return wanted, ""
    return (uid, "") if uid is not None else (None, image.username)


def _where(pod: Object, container: Mapping[str, Any]) -> str:
    meta = pod["metadata"]
    return (
        f'(pod: "{meta["name"]}_{meta["namespace"]}({meta["uid"]})", '
        f"container: {container['name']})"
    )


def _check_not_root(wanted: int | None, uid: int | None, image: Image, where: str) -> None:
    if wanted == 0:
        raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
    if uid is None and image.username:
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
            f"cannot verify user is non-root {where}"
        )
    if not uid:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")


def _security_context(pod: Object, container: Mapping[str, Any], given: Given) -> SecurityContext:
    own, of_pod = _context(container), _security(pod)
    uid, username = _user(pod, container, given.image)
    privileged = bool(own.get("privileged"))
    unmasked = privileged or own.get("procMount") == "Unmasked"
    capabilities = own.get("capabilities") or {}
    return SecurityContext(
        add_capabilities=tuple(capabilities.get("add", ())),
        drop_capabilities=tuple(capabilities.get("drop", ())),
        privileged=privileged,
        namespaces=namespaces(pod, given.target),
        run_as_user=uid,
        run_as_username=username,
        run_as_group=own.get("runAsGroup", of_pod.get("runAsGroup")),
        readonly_rootfs=bool(own.get("readOnlyRootFilesystem")),
        supplemental_groups=_groups(pod),
        strict_groups=of_pod.get("supplementalGroupsPolicy") == "Strict",
        no_new_privs=own.get("allowPrivilegeEscalation") is False,
        masked_paths=() if unmasked else _MASKED,
        readonly_paths=() if unmasked else _READONLY,
        seccomp=(
            Profile(type="Unconfined")
            if privileged
            else _seccomp(own.get("seccompProfile"), of_pod.get("seccompProfile"))
        ),
        apparmor=_profile(own.get("appArmorProfile"), of_pod.get("appArmorProfile")),
        selinux=own.get("seLinuxOptions") or of_pod.get("seLinuxOptions") or {},
    )


def container_config(
    pod: Object, container: Mapping[str, Any], attempt: int, given: Given, *, settings: Settings
) -> ContainerConfig:
    """Raise :class:`ConfigError` for what the pod's own rules forbid."""
    name = container["name"]

    def expanded(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(environment.expand(word, given.env) for word in words)

    return ContainerConfig(
        name=name,
        attempt=attempt,
        image=given.image.id,
        user_image=container["image"],
        command=expanded(container.get("command", ())),
        args=expanded(container.get("args", ())),
        working_dir=container.get("workingDir", ""),
        env=tuple(given.env.items()),
        mounts=given.mounts,
        devices=given.devices,
        labels={**_labels(pod), CONTAINER_NAME: name},
        annotations={
            CONTAINER_HASH: container_hash(container),
            RESTART_COUNT: str(attempt),
            RESOURCES: json.dumps(container.get("resources") or {}, sort_keys=True),
            GRACE_PERIOD: str(pod["spec"].get("terminationGracePeriodSeconds", 30)),
            "io.kubernetes.container.terminationMessagePath": container.get(
                "terminationMessagePath", "/dev/termination-log"
            ),
            "io.kubernetes.container.terminationMessagePolicy": container.get(
                "terminationMessagePolicy", "File"
            ),
        },
        log_path=f"{name}/{attempt}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        resources=resources.of_container(pod, container, settings),
        security=_security_context(pod, container, given),
        stop_signal=(container.get("lifecycle") or {}).get("stopSignal", ""),
    )
