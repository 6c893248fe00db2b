"""Our values from CRI answers."""

from node.cri.base import (
    Container,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    Image,
    Sandbox,
    SandboxStatus,
)
from node.cri.generated import api_pb2 as pb


def sandbox(value: pb.PodSandbox | pb.PodSandboxStatus) -> Sandbox:
    return Sandbox(
        id=value.id,
        name=value.metadata.name,
        namespace=value.metadata.namespace,
        uid=value.metadata.uid,
        attempt=value.metadata.attempt,
        ready=value.state == pb.SANDBOX_READY,
        created_at=value.created_at,
        labels=dict(value.labels),
        annotations=dict(value.annotations),
        runtime_handler=value.runtime_handler,
    )


def sandbox_status(value: pb.PodSandboxStatus) -> SandboxStatus:
    first = [value.network.ip] if value.network.ip else []
    more = [ip.ip for ip in value.network.additional_ips]
    return SandboxStatus(
        sandbox=sandbox(value),
        ips=tuple(first + more),
        host_network=value.linux.namespaces.options.network == pb.NODE,
    )


def container(value: pb.Container) -> Container:
    return Container(
        id=value.id,
        sandbox_id=value.pod_sandbox_id,
        name=value.metadata.name,
        attempt=value.metadata.attempt,
        state=ContainerState(value.state),
        created_at=value.created_at,
        image_ref=value.image_ref,
        labels=dict(value.labels),
        annotations=dict(value.annotations),
    )


def container_status(value: pb.ContainerStatus) -> ContainerStatus:
    user = None
    if value.HasField("user") and value.user.HasField("linux"):
        linux = value.user.linux
        user = (linux.uid, linux.gid, tuple(linux.supplemental_groups))
    return ContainerStatus(
        id=value.id,
        name=value.metadata.name,
        attempt=value.metadata.attempt,
        state=ContainerState(value.state),
        created_at=value.created_at,
        started_at=value.started_at,
        finished_at=value.finished_at,
        exit_code=value.exit_code,
        reason=value.reason,
        message=value.message,
        image=value.image.image,
        image_ref=value.image_ref,
        image_id=value.image_id,
        labels=dict(value.labels),
        annotations=dict(value.annotations),
        log_path=value.log_path,
        user=user,
    )


def image(value: pb.Image) -> Image:
    return Image(
        id=value.id,
        tags=tuple(value.repo_tags),
        digests=tuple(value.repo_digests),
        size=value.size,
        uid=value.uid.value if value.HasField("uid") else None,
        username=value.username,
        pinned=value.pinned,
    )


def stats(value: pb.ContainerStats) -> ContainerStats:
    cpu, memory, layer = value.cpu, value.memory, value.writable_layer
    has_rate = cpu.HasField("usage_nano_cores")
    return ContainerStats(
        id=value.attributes.id,
        name=value.attributes.metadata.name,
        labels=dict(value.attributes.labels),
        timestamp=cpu.timestamp,
        cpu_ns=cpu.usage_core_nano_seconds.value,
        cpu_nano_cores=cpu.usage_nano_cores.value if has_rate else None,
        memory_usage=memory.usage_bytes.value,
        memory_working_set=memory.working_set_bytes.value,
        memory_rss=memory.rss_bytes.value,
        page_faults=memory.page_faults.value,
        major_page_faults=memory.major_page_faults.value,
        rootfs_used=layer.used_bytes.value,
        rootfs_inodes=layer.inodes_used.value,
    )
