"""Pods, containers and views for the tests of what is pure."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from node.cri.base import ContainerState, ContainerStatus, Sandbox
from node.kubelet.base import CONTAINER_HASH, Settings
from node.kubelet.spec import container_hash
from node.kubelet.view import PodView, Seen

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

SETTINGS = Settings(
    node_name="n1",
    node_ips=("192.168.1.5",),
    pods_dir=Path("/pods"),
    log_dir=Path("/var/log/pods"),
    cluster_dns="10.43.0.10",
    cluster_domain="cluster.local",
    resolv_conf=Path("/etc/resolv.conf"),
    memory=1 << 30,
    allocatable={"cpu": "4", "memory": "1Gi"},
)


def container(name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox:1", **more}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    meta = {"name": "p", "namespace": "ns", "uid": "u1", **spec.pop("meta", {})}
    status = spec.pop("status", {})
    wanted = {"containers": list(containers) or [container()], "restartPolicy": "Always", **spec}
    return {"metadata": meta, "spec": wanted, "status": status}


def nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def seen(
    spec: dict[str, Any],
    state: ContainerState = ContainerState.RUNNING,
    *,
    code: int = 0,
    attempt: int = 0,
    ago: float = 60,
    sandbox: str = "s0",
    message: str = "",
) -> Seen:
    """``ago``: seconds since it started, or ended."""
    at = nanoseconds(NOW - timedelta(seconds=ago))
    exited = state is ContainerState.EXITED
    status = ContainerStatus(
        id=f"{spec['name']}-{attempt}",
        name=spec["name"],
        attempt=attempt,
        state=state,
        created_at=at,
        started_at=at,
        finished_at=at if exited else 0,
        exit_code=code,
        reason=("Completed" if code == 0 else "Error") if exited else "",
        image="docker.io/library/busybox:1",
        image_ref="sha256:1",
        annotations={CONTAINER_HASH: container_hash(spec)},
    )
    return Seen(status, sandbox, message)


def sandbox(number: int = 0, *, ready: bool = True) -> Sandbox:
    return Sandbox(
        id=f"s{number}",
        name="p",
        namespace="ns",
        uid="u1",
        attempt=number,
        ready=ready,
        created_at=number,
    )


def view(*containers: Seen, sandboxes: tuple[Sandbox, ...] | None = None) -> PodView:
    """Containers newest first."""
    boxes = (sandbox(),) if sandboxes is None else sandboxes
    ips = ("10.42.0.9",) if boxes and boxes[0].ready else ()
    return PodView(boxes, tuple(containers), ips)
