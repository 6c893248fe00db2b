"""
A container runtime that runs nothing: a real gRPC server that speaks CRI v1 on a unix socket.

It passes ``tests/conformance/test_cri.py`` as containerd does. What a container "does" is
read from its command: ``sleep N``, ``true``, ``false``, ``sh -c "exit N"``; exec knows
``echo``, ``true``, ``false`` and ``sh -c "exit N"``.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from node.cri.generated import api_pb2 as pb
from node.cri.generated.api_grpc import ImageServiceBase, RuntimeServiceBase


def _now() -> int:
    return time.time_ns()


def _exit_code(command: Sequence[str]) -> tuple[float | None, int]:
    """(seconds until it ends by itself or None, exit code)."""
    match list(command):
        case ["true"]:
            return 0, 0
        case ["false"]:
            return 0, 1
        case ["sleep", seconds]:
            return float(seconds), 0
        case ["sh", "-c", script] if found := re.fullmatch(r"exit (\d+)", script):
            return 0, int(found[1])
        case _:
            return None, 0


def _matches(labels: Any, wanted: Any) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def _missing(kind: str, id_: str) -> GRPCError:
    return GRPCError(
        Status.NOT_FOUND, f'an error occurred when try to find {kind} "{id_}": not found'
    )


class _State:
    """Everything that the fake holds, shared by its two services."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.sandboxes: dict[str, pb.PodSandboxStatus] = {}
        self.containers: dict[str, tuple[str, pb.ContainerConfig, pb.ContainerStatus]] = {}
        self.images: dict[str, pb.Image] = {}
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.listeners: list[asyncio.Queue[pb.ContainerEventResponse]] = []
        self.pulls: list[str] = []

    def tell(self, id_: str, kind: int) -> None:
        event = pb.ContainerEventResponse(container_id=id_, container_event_type=kind)  # type: ignore[arg-type]
        for queue in self.listeners:
            queue.put_nowait(event)

    def end(self, id_: str, code: int) -> None:
        if timer := self.timers.pop(id_, None):
            timer.cancel()
        entry = self.containers.get(id_)
        if entry is None or entry[2].state != pb.CONTAINER_RUNNING:
            return
        status = entry[2]
        status.state = pb.CONTAINER_EXITED
        status.exit_code, status.finished_at = code, _now()
        status.reason = "Completed" if code == 0 else "Error"
        self.tell(id_, pb.CONTAINER_STOPPED_EVENT)

    def container(self, id_: str) -> tuple[str, pb.ContainerConfig, pb.ContainerStatus]:
        if id_ not in self.containers:
            raise _missing("container", id_)
        return self.containers[id_]

    def image(self, name: str) -> pb.Image | None:
        return next((i for i in self.images.values() if name == i.id or name in i.repo_tags), None)


class _Runtime(RuntimeServiceBase):
    def __init__(self, state: _State) -> None:
        self._state = state

    async def Version(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(
            pb.VersionResponse(runtime_name="fake", runtime_version="1", runtime_api_version="v1")
        )

    async def Status(self, stream: Any) -> None:
        await stream.recv_message()
        conditions = [
            pb.RuntimeCondition(type=kind, status=True) for kind in ("RuntimeReady", "NetworkReady")
        ]
        await stream.send_message(pb.StatusResponse(status=pb.RuntimeStatus(conditions=conditions)))

    async def RuntimeConfig(self, stream: Any) -> None:
        await stream.recv_message()
        linux = pb.LinuxRuntimeConfiguration(cgroup_driver=pb.CGROUPFS)
        await stream.send_message(pb.RuntimeConfigResponse(linux=linux))

    async def UpdateRuntimeConfig(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.UpdateRuntimeConfigResponse())

    async def RunPodSandbox(self, stream: Any) -> None:
        config = (await stream.recv_message()).config
        number = next(self._state.numbers)
        id_ = f"{number:064x}"
        status = pb.PodSandboxStatus(
            id=id_,
            metadata=config.metadata,
            state=pb.SANDBOX_READY,
            created_at=_now(),
            labels=config.labels,
            annotations=config.annotations,
        )
        network = config.linux.security_context.namespace_options.network
        status.linux.namespaces.options.network = network
        if network != pb.NODE:
            status.network.ip = f"10.42.9.{number % 250 + 2}"
        self._state.sandboxes[id_] = status
        self._state.tell(id_, pb.CONTAINER_STARTED_EVENT)
        await stream.send_message(pb.RunPodSandboxResponse(pod_sandbox_id=id_))

    async def StopPodSandbox(self, stream: Any) -> None:
        id_ = (await stream.recv_message()).pod_sandbox_id
        if id_ in self._state.sandboxes:
            for container, (sandbox, _, _) in list(self._state.containers.items()):
                if sandbox == id_:
                    self._state.end(container, 137)
            self._state.sandboxes[id_].state = pb.SANDBOX_NOTREADY
            self._state.sandboxes[id_].ClearField("network")
            self._state.tell(id_, pb.CONTAINER_STOPPED_EVENT)
        await stream.send_message(pb.StopPodSandboxResponse())

    async def RemovePodSandbox(self, stream: Any) -> None:
        id_ = (await stream.recv_message()).pod_sandbox_id
        self._state.sandboxes.pop(id_, None)
        for container, (sandbox, _, _) in list(self._state.containers.items()):
            if sandbox == id_:
                self._state.end(container, 137)
                del self._state.containers[container]
        await stream.send_message(pb.RemovePodSandboxResponse())

    async def PodSandboxStatus(self, stream: Any) -> None:
        id_ = (await stream.recv_message()).pod_sandbox_id
        if id_ not in self._state.sandboxes:
            raise _missing("sandbox", id_)
        await stream.send_message(pb.PodSandboxStatusResponse(status=self._state.sandboxes[id_]))

    async def ListPodSandbox(self, stream: Any) -> None:
        wanted = (await stream.recv_message()).filter
        items = [
            pb.PodSandbox(
                id=s.id,
                metadata=s.metadata,
                state=s.state,
                created_at=s.created_at,
                labels=s.labels,
                annotations=s.annotations,
            )
            for s in self._state.sandboxes.values()
            if _matches(s.labels, wanted.label_selector)
        ]
        await stream.send_message(pb.ListPodSandboxResponse(items=items))

    async def CreateContainer(self, stream: Any) -> None:
        request = await stream.recv_message()
        config, sandbox = request.config, request.pod_sandbox_id
        if sandbox not in self._state.sandboxes:
            raise _missing("sandbox", sandbox)
        image = self._state.image(config.image.image)
        if image is None:
            raise _missing("image", config.image.image)
        id_ = f"{next(self._state.numbers):064x}"
        directory = "/nowhere"
        status = pb.ContainerStatus(
            id=id_,
            metadata=config.metadata,
            state=pb.CONTAINER_CREATED,
            created_at=_now(),
            image=pb.ImageSpec(image=image.repo_tags[0]),
            image_ref=image.id,
            labels=config.labels,
            annotations=config.annotations,
            log_path=f"{directory}/{config.log_path}",
        )
        self._state.containers[id_] = (sandbox, config, status)
        self._state.tell(id_, pb.CONTAINER_CREATED_EVENT)
        await stream.send_message(pb.CreateContainerResponse(container_id=id_))

    async def StartContainer(self, stream: Any) -> None:
        id_ = (await stream.recv_message()).container_id
        _, config, status = self._state.container(id_)
        if status.state != pb.CONTAINER_CREATED:
            raise GRPCError(Status.UNKNOWN, f"container is in {status.state} state")
        status.state, status.started_at = pb.CONTAINER_RUNNING, _now()
        self._state.tell(id_, pb.CONTAINER_STARTED_EVENT)
        seconds, code = _exit_code([*config.command, *config.args])
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._state.timers[id_] = loop.call_later(seconds, self._state.end, id_, code)
        await stream.send_message(pb.StartContainerResponse())

    async def StopContainer(self, stream: Any) -> None:
        id_ = (await stream.recv_message()).container_id
        if id_ in self._state.containers:
            self._state.end(id_, 137)
        await stream.send_message(pb.StopContainerResponse())

    async def RemoveContainer(self, stream: Any) -> None:
        id_ = (await stream.recv_message()).container_id
        self._state.end(id_, 137)
        if self._state.containers.pop(id_, None):
            self._state.tell(id_, pb.CONTAINER_DELETED_EVENT)
        await stream.send_message(pb.RemoveContainerResponse())

    async def ListContainers(self, stream: Any) -> None:
        wanted = (await stream.recv_message()).filter
        found = [
            pb.Container(
                id=id_,
                pod_sandbox_id=sandbox,
                metadata=status.metadata,
                image=status.image,
                image_ref=status.image_ref,
                state=status.state,
                created_at=status.created_at,
                labels=status.labels,
                annotations=status.annotations,
            )
            for id_, (sandbox, _, status) in self._state.containers.items()
            if _matches(status.labels, wanted.label_selector) and wanted.id in ("", id_)
        ]
        await stream.send_message(pb.ListContainersResponse(containers=found))

    async def ContainerStatus(self, stream: Any) -> None:
        id_ = (await stream.recv_message()).container_id
        status = self._state.container(id_)[2]
        await stream.send_message(pb.ContainerStatusResponse(status=status))

    async def UpdateContainerResources(self, stream: Any) -> None:
        request = await stream.recv_message()
        self._state.container(request.container_id)
        await stream.send_message(pb.UpdateContainerResourcesResponse())

    async def ReopenContainerLog(self, stream: Any) -> None:
        request = await stream.recv_message()
        self._state.container(request.container_id)
        await stream.send_message(pb.ReopenContainerLogResponse())

    async def ExecSync(self, stream: Any) -> None:
        request = await stream.recv_message()
        status = self._state.container(request.container_id)[2]
        if status.state != pb.CONTAINER_RUNNING:
            raise GRPCError(Status.UNKNOWN, "container is not running")
        command = list(request.cmd)
        seconds, code = _exit_code(command)
        if seconds:
            await asyncio.sleep(min(seconds, request.timeout or seconds))
            if request.timeout and seconds > request.timeout:
                text = f"failed to exec in container: timeout {request.timeout}s exceeded"
                raise GRPCError(Status.DEADLINE_EXCEEDED, text)
        output = " ".join(command[1:]).encode() + b"\n" if command[:1] == ["echo"] else b""
        await stream.send_message(pb.ExecSyncResponse(stdout=output, exit_code=code))

    async def Exec(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.ExecResponse(url="http://127.0.0.1:1/exec/x"))

    async def Attach(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.AttachResponse(url="http://127.0.0.1:1/attach/x"))

    async def PortForward(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.PortForwardResponse(url="http://127.0.0.1:1/portforward/x"))

    def _stats(self, labels: Any) -> list[pb.ContainerStats]:
        return [
            pb.ContainerStats(
                attributes=pb.ContainerAttributes(
                    id=id_, metadata=status.metadata, labels=status.labels
                ),
                cpu=pb.CpuUsage(
                    timestamp=_now(), usage_core_nano_seconds=pb.UInt64Value(value=10**6)
                ),
                memory=pb.MemoryUsage(
                    timestamp=_now(), working_set_bytes=pb.UInt64Value(value=4096)
                ),
            )
            for id_, (_, _, status) in self._state.containers.items()
            if status.state == pb.CONTAINER_RUNNING and _matches(status.labels, labels)
        ]

    async def ContainerStats(self, stream: Any) -> None:
        id_ = (await stream.recv_message()).container_id
        found = next((s for s in self._stats({}) if s.attributes.id == id_), None)
        if found is None:
            raise _missing("container", id_)
        await stream.send_message(pb.ContainerStatsResponse(stats=found))

    async def ListContainerStats(self, stream: Any) -> None:
        wanted = (await stream.recv_message()).filter
        found = self._stats(wanted.label_selector)
        await stream.send_message(pb.ListContainerStatsResponse(stats=found))

    async def ListPodSandboxStats(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.ListPodSandboxStatsResponse())

    async def GetContainerEvents(self, stream: Any) -> None:
        await stream.recv_message()
        queue: asyncio.Queue[pb.ContainerEventResponse] = asyncio.Queue()
        self._state.listeners.append(queue)
        try:
            while True:
                await stream.send_message(await queue.get())
        finally:
            self._state.listeners.remove(queue)


class _Images(ImageServiceBase):
    def __init__(self, state: _State) -> None:
        self._state = state

    async def ListImages(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(pb.ListImagesResponse(images=self._state.images.values()))

    async def ImageStatus(self, stream: Any) -> None:
        name = (await stream.recv_message()).image.image
        await stream.send_message(pb.ImageStatusResponse(image=self._state.image(name)))

    async def PullImage(self, stream: Any) -> None:
        name = (await stream.recv_message()).image.image
        self._state.pulls.append(name)
        image = self._state.image(name)
        if image is None:
            raise GRPCError(
                Status.NOT_FOUND, f'failed to pull and unpack image "{name}": not found'
            )
        await stream.send_message(pb.PullImageResponse(image_ref=image.id))

    async def RemoveImage(self, stream: Any) -> None:
        name = (await stream.recv_message()).image.image
        if image := self._state.image(name):
            del self._state.images[image.id]
        await stream.send_message(pb.RemoveImageResponse())

    async def ImageFsInfo(self, stream: Any) -> None:
        await stream.recv_message()
        usage = pb.FilesystemUsage(
            timestamp=_now(),
            fs_id=pb.FilesystemIdentifier(mountpoint="/"),
            used_bytes=pb.UInt64Value(value=1),
            inodes_used=pb.UInt64Value(value=1),
        )
        await stream.send_message(pb.ImageFsInfoResponse(image_filesystems=[usage]))


class FakeCri:
    """The server; ``images`` are the tags that it has."""

    def __init__(self, socket: Path, images: Sequence[str] = ()) -> None:
        self.socket = socket
        self.state = _State()
        for name in images:
            id_ = f"sha256:{next(self.state.numbers):064x}"
            self.state.images[id_] = pb.Image(id=id_, repo_tags=[name], size=1000)
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = Server([_Runtime(self.state), _Images(self.state)])
        await self._server.start(path=str(self.socket))

    async def stop(self) -> None:
        for timer in self.state.timers.values():
            timer.cancel()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
