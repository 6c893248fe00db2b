"""
CRI v1 over a unix socket: the runtime contract on containerd.

One HTTP/2 connection, made on first use and again after containerd was away. No
grpclib or protobuf error leaves this module: callers act on ``base``'s few errors.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from node.cri import decode, encode
from node.cri.base import (
    Auth,
    Container,
    ContainerConfig,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    Features,
    FsUsage,
    Image,
    NotFound,
    Resources,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeRefused,
    RuntimeStatus,
    RuntimeUnavailable,
    Sandbox,
    SandboxConfig,
    SandboxStatus,
    Unsupported,
    Version,
)
from node.cri.generated import api_pb2 as pb
from node.cri.generated import events_pb2, health_pb2
from node.cri.generated.api_grpc import ImageServiceStub, RuntimeServiceStub
from node.cri.generated.events_grpc import EventsStub
from node.cri.reference import NAMESPACE

_QUICK = 120.0  # seconds, as kubelet's runtime request timeout
_CRI_EVENTS = {0: "created", 1: "started", 2: "stopped", 3: "deleted"}
_OWN_EVENTS = {
    "/tasks/start": "started",
    "/tasks/exit": "stopped",
    "/containers/delete": "deleted",
}


def translate(err: GRPCError) -> RuntimeFailure:
    text = err.message or err.status.name
    match err.status:
        case Status.NOT_FOUND:
            return NotFound(text)
        case Status.UNIMPLEMENTED:
            return Unsupported(text)
        case Status.UNAVAILABLE | Status.CANCELLED:
            return RuntimeUnavailable(text)
        case Status.DEADLINE_EXCEEDED:
            return RuntimeUnavailable(f"no answer in time: {text}")
        case _:
            # containerd 1.6 answers Unknown for what is gone in some of its calls.
            if text.endswith(": not found"):
                return NotFound(text)
            return RuntimeRefused(text)


@contextlib.contextmanager
def not_cancelled() -> Iterator[None]:
    """
    Take back the cancellations that grpclib turned into errors.

    It wakes a task that waits for a lost connection or past a deadline by cancelling it, raises
    its own error instead and leaves the request standing: a later TaskGroup of the same task
    would end as cancelled (since Python 3.13). Two requests: somebody else's is among them.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except Exception:
        if task is not None and task.cancelling() > before and task.uncancel() > before:
            raise asyncio.CancelledError from None
        raise


class CriClient:
    """:class:`node.cri.base.Runtime` on containerd's socket. Its state is the channel."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel: Channel | None = None
        self._runtime: RuntimeServiceStub | None = None
        self._images: ImageServiceStub | None = None

    def _connect(self) -> tuple[RuntimeServiceStub, ImageServiceStub]:
        if self._runtime is None or self._images is None:
            config = Configuration(
                http2_connection_window_size=1 << 20, http2_stream_window_size=1 << 20
            )
            self._channel = Channel(path=str(self._socket), config=config)
            self._runtime = RuntimeServiceStub(self._channel)
            self._images = ImageServiceStub(self._channel)
        return self._runtime, self._images

    async def _call(
        self, method: Callable[..., Awaitable[Any]], request: Any, limit: float | None = _QUICK
    ) -> Any:
        try:
            with not_cancelled():
                return await method(request, timeout=limit)
        except GRPCError as err:
            raise translate(err) from err
        except (StreamTerminatedError, OSError) as err:
            # TimeoutError is an OSError too: grpclib raises it when the deadline passes.
            raise RuntimeUnavailable(f"{self._socket}: {str(err) or 'no answer in time'}") from err

    async def version(self) -> Version:
        runtime, _ = self._connect()
        answer = await self._call(runtime.Version, pb.VersionRequest(version="v1"), 10)
        return Version(name=answer.runtime_name, version=answer.runtime_version)

    async def status(self, *, verbose: bool = False) -> RuntimeStatus:
        runtime, _ = self._connect()
        answer = await self._call(runtime.Status, pb.StatusRequest(verbose=verbose), 10)
        conditions = {c.type: c for c in answer.status.conditions}
        broken = [
            f"{c.type}=false reason:{c.reason} message:{c.message}"
            for c in answer.status.conditions
            if c.type in {"RuntimeReady", "NetworkReady"} and not c.status
        ]
        return RuntimeStatus(
            runtime_ready="RuntimeReady" in conditions and conditions["RuntimeReady"].status,
            network_ready="NetworkReady" in conditions and conditions["NetworkReady"].status,
            message=", ".join(broken),
            info=dict(answer.info),
            handlers={
                handler.name: Features(
                    recursive_read_only=handler.features.recursive_read_only_mounts,
                    user_namespaces=handler.features.user_namespaces,
                )
                for handler in answer.runtime_handlers
            },
            strict_groups=answer.features.supplemental_groups_policy,
        )

    async def cgroup_driver(self) -> str:
        runtime, _ = self._connect()
        try:
            answer = await self._call(runtime.RuntimeConfig, pb.RuntimeConfigRequest(), 10)
        except Unsupported:  # before containerd 2.0 the configuration is told by Status
            return _driver_of((await self.status(verbose=True)).info.get("config", "{}"))
        return "systemd" if answer.linux.cgroup_driver == pb.SYSTEMD else "cgroupfs"

    async def run_sandbox(self, config: SandboxConfig) -> str:
        runtime, _ = self._connect()
        request = pb.RunPodSandboxRequest(
            config=encode.sandbox(config), runtime_handler=config.runtime_handler
        )
        answer = await self._call(runtime.RunPodSandbox, request, 2 * _QUICK)
        return str(answer.pod_sandbox_id)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        runtime, _ = self._connect()
        request = pb.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        with contextlib.suppress(NotFound):
            await self._call(runtime.StopPodSandbox, request)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        runtime, _ = self._connect()
        request = pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        with contextlib.suppress(NotFound):
            await self._call(runtime.RemovePodSandbox, request)

    async def sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[Sandbox]:
        runtime, _ = self._connect()
        choice = pb.PodSandboxFilter(label_selector=labels or {})
        answer = await self._call(runtime.ListPodSandbox, pb.ListPodSandboxRequest(filter=choice))
        return [decode.sandbox(item) for item in answer.items]

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        runtime, _ = self._connect()
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id)
        answer = await self._call(runtime.PodSandboxStatus, request)
        return decode.sandbox_status(answer.status)

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig
    ) -> str:
        runtime, _ = self._connect()
        request = pb.CreateContainerRequest(
            pod_sandbox_id=sandbox_id,
            config=encode.container(config),
            sandbox_config=encode.sandbox(sandbox),
        )
        answer = await self._call(runtime.CreateContainer, request)
        return str(answer.container_id)

    async def start_container(self, container_id: str) -> None:
        runtime, _ = self._connect()
        request = pb.StartContainerRequest(container_id=container_id)
        await self._call(runtime.StartContainer, request)

    async def stop_container(self, container_id: str, timeout: int) -> None:  # noqa: ASYNC109
        runtime, _ = self._connect()
        request = pb.StopContainerRequest(container_id=container_id, timeout=timeout)
        with contextlib.suppress(NotFound):
            await self._call(runtime.StopContainer, request, timeout + _QUICK)

    async def remove_container(self, container_id: str) -> None:
        runtime, _ = self._connect()
        request = pb.RemoveContainerRequest(container_id=container_id)
        with contextlib.suppress(NotFound):
            await self._call(runtime.RemoveContainer, request)

    async def containers(
        self,
        labels: Mapping[str, str] | None = None,
        *,
        id: str = "",  # noqa: A002
    ) -> Sequence[Container]:
        runtime, _ = self._connect()
        choice = pb.ContainerFilter(id=id, label_selector=labels or {})
        answer = await self._call(runtime.ListContainers, pb.ListContainersRequest(filter=choice))
        return [decode.container(item) for item in answer.containers]

    async def container_status(self, container_id: str) -> ContainerStatus:
        runtime, _ = self._connect()
        request = pb.ContainerStatusRequest(container_id=container_id)
        answer = await self._call(runtime.ContainerStatus, request)
        return decode.container_status(answer.status)

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        runtime, _ = self._connect()
        request = pb.UpdateContainerResourcesRequest(
            container_id=container_id, linux=encode.resources(resources)
        )
        await self._call(runtime.UpdateContainerResources, request)

    async def reopen_log(self, container_id: str) -> None:
        runtime, _ = self._connect()
        request = pb.ReopenContainerLogRequest(container_id=container_id)
        await self._call(runtime.ReopenContainerLog, request)

    async def exec_sync(
        self,
        container_id: str,
        command: Sequence[str],
        timeout: float,  # noqa: ASYNC109
    ) -> ExecResult:
        runtime, _ = self._connect()
        # Whole seconds on the wire; containerd kills the process, we stop waiting a little later.
        seconds = max(1, round(timeout)) if timeout else 0
        request = pb.ExecSyncRequest(container_id=container_id, cmd=command, timeout=seconds)
        try:
            answer = await self._call(runtime.ExecSync, request, seconds + 10 if seconds else None)
        except (RuntimeRefused, RuntimeUnavailable) as err:
            if seconds and ("timeout" in str(err) or "no answer in time" in str(err)):
                raise TimeoutError(f"command timed out after {seconds}s") from err
            raise
        return ExecResult(stdout=answer.stdout, stderr=answer.stderr, exit_code=answer.exit_code)

    async def exec_url(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> str:
        runtime, _ = self._connect()
        request = pb.ExecRequest(
            container_id=container_id,
            cmd=command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            tty=tty,
        )
        return str((await self._call(runtime.Exec, request)).url)

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        runtime, _ = self._connect()
        request = pb.AttachRequest(
            container_id=container_id, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty
        )
        return str((await self._call(runtime.Attach, request)).url)

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        runtime, _ = self._connect()
        request = pb.PortForwardRequest(pod_sandbox_id=sandbox_id, port=ports)
        return str((await self._call(runtime.PortForward, request)).url)

    async def stats(self, labels: Mapping[str, str] | None = None) -> Sequence[ContainerStats]:
        runtime, _ = self._connect()
        choice = pb.ContainerStatsFilter(label_selector=labels or {})
        request = pb.ListContainerStatsRequest(filter=choice)
        answer = await self._call(runtime.ListContainerStats, request)
        return [decode.stats(item) for item in answer.stats]

    async def images(self) -> Sequence[Image]:
        _, images = self._connect()
        answer = await self._call(images.ListImages, pb.ListImagesRequest())
        return [decode.image(item) for item in answer.images]

    async def image(self, reference: str) -> Image | None:
        _, images = self._connect()
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=reference))
        try:
            answer = await self._call(images.ImageStatus, request)
        except NotFound:
            return None
        return decode.image(answer.image) if answer.image.id else None

    async def pull(self, reference: str, auth: Auth | None, sandbox: SandboxConfig | None) -> str:
        _, images = self._connect()
        request = pb.PullImageRequest(
            image=pb.ImageSpec(image=reference, user_specified_image=reference),
            auth=encode.auth(auth),
            sandbox_config=encode.sandbox(sandbox) if sandbox is not None else None,
        )
        return str((await self._call(images.PullImage, request, None)).image_ref)

    async def remove_image(self, reference: str) -> None:
        _, images = self._connect()
        request = pb.RemoveImageRequest(image=pb.ImageSpec(image=reference))
        await self._call(images.RemoveImage, request)

    async def image_fs(self) -> Sequence[FsUsage]:
        _, images = self._connect()
        answer = await self._call(images.ImageFsInfo, pb.ImageFsInfoRequest())
        return [
            FsUsage(
                mountpoint=item.fs_id.mountpoint,
                used_bytes=item.used_bytes.value,
                inodes_used=item.inodes_used.value,
            )
            for item in answer.image_filesystems
        ]

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        self._connect()
        try:
            try:
                with not_cancelled():
                    async for event in self._cri_events():
                        yield event
            except GRPCError as err:
                if err.status is not Status.UNIMPLEMENTED:
                    raise
                with not_cancelled():
                    async for event in self._own_events():
                        yield event
        except GRPCError as err:
            raise translate(err) from err
        except (StreamTerminatedError, OSError) as err:
            raise RuntimeUnavailable(f"{self._socket}: {err}") from err

    async def _cri_events(self) -> AsyncIterator[RuntimeEvent]:
        runtime, _ = self._connect()
        async with runtime.GetContainerEvents.open() as stream:
            await stream.send_message(pb.GetEventsRequest(), end=True)
            async for event in stream:
                kind = _CRI_EVENTS.get(event.container_event_type, "")
                yield RuntimeEvent(id=event.container_id, kind=kind)

    async def _own_events(self) -> AsyncIterator[RuntimeEvent]:
        """containerd before 1.7 has no events in CRI, but a stream of its own."""
        self._connect()
        if self._channel is None:
            raise RuntimeUnavailable(f"{self._socket}: closed")
        filters = [f'topic=="{topic}",namespace=={NAMESPACE}' for topic in _OWN_EVENTS]
        async with EventsStub(self._channel).Subscribe.open() as stream:
            await stream.send_message(events_pb2.SubscribeRequest(filters=filters), end=True)
            async for envelope in stream:
                event = events_pb2.TaskExit()
                event.MergeFromString(envelope.event.value)
                # The end of an exec carries the exec's own id: no change of the container.
                if envelope.topic == "/tasks/exit" and event.id != event.container_id:
                    continue
                yield RuntimeEvent(id=event.container_id, kind=_OWN_EVENTS[envelope.topic])

    async def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = self._runtime = self._images = None
        await asyncio.sleep(0)  # lets the transport close before the loop may end


def _driver_of(config: str) -> str:
    containerd = json.loads(config).get("containerd", {})
    name = containerd.get("defaultRuntimeName", "runc")
    runtime = (containerd.get("runtimes") or {}).get(name) or {}
    options = runtime.get("options") or {}
    return "systemd" if options.get("SystemdCgroup") else "cgroupfs"


async def check_health(host: str, port: int, service: str, limit: float) -> str:
    """The gRPC health protocol: "" when serving, else why not. ``limit`` in seconds."""
    channel = Channel(host, port)
    check = UnaryUnaryMethod[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse](
        channel,
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest,
        health_pb2.HealthCheckResponse,
    )
    try:
        with not_cancelled():
            answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=limit)
    except GRPCError as err:
        if err.status is Status.UNIMPLEMENTED:
            return "error: this server does not implement the grpc health protocol"
        return f"error: health rpc probe failed: {err.message}"
    except TimeoutError:
        return f"timeout: health rpc did not complete within {limit:g}s"
    except (StreamTerminatedError, OSError) as err:
        return f'timeout: failed to connect service "{host}:{port}": {err}'
    finally:
        channel.close()
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if status == "SERVING" else f'service unhealthy (responded with "{status}")'
