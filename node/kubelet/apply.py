"""
Does what a plan says, for one pod, through the runtime.

What fails is remembered with the time of the next try, so that the next plan shows
why and waits; an exception never ends a pod's worker.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from controlplane.client.base import Object, Reads, Unreachable
from controlplane.objects.errors import StatusError
from node.cri.base import (
    ContainerConfig,
    Features,
    Image,
    Mount,
    Runtime,
    RuntimeFailure,
    SandboxConfig,
)
from node.kubelet import cgroups, env, logs, naming, resources, spec
from node.kubelet.actions import Target, perform
from node.kubelet.base import (
    SERVICES,
    Clock,
    ConfigError,
    Gate,
    Recorder,
    Settings,
    all_containers,
    is_sidecar,
    uid_of,
)
from node.kubelet.counters import Counters
from node.kubelet.images import ImageProblem, Images
from node.kubelet.plan import (
    MakeSandbox,
    Remove,
    RemoveSandbox,
    Resize,
    Run,
    Step,
    Stop,
    StopAll,
    StopSandbox,
    next_backoff,
)
from node.kubelet.probes import with_field_path
from node.kubelet.sources import Sources, Waiting
from node.kubelet.view import Memory, PodView, Problem, Seen
from node.kubelet.volumes import Ready, VolumeError, Volumes

_log = logging.getLogger(__name__)
_IMAGE_FIRST, _IMAGE_LONGEST = timedelta(seconds=10), timedelta(minutes=5)
_POD_FIRST, _POD_LONGEST = timedelta(seconds=1), timedelta(minutes=2)
_CONFIG_AGAIN = timedelta(seconds=10)
_LEAST_GRACE = 2  # seconds that a container has after a preStop hook used up its time


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all pods of a node share."""

    runtime: Runtime
    settings: Settings
    reads: Reads
    sources: Sources
    volumes: Volumes
    images: Images
    recorder: Recorder
    gate: Gate
    clock: Clock
    machine: naming.ResolvConf
    handler_of: Callable[[Object], Awaitable[str]]  # the runtime handler of a RuntimeClass
    pods: Callable[[], Sequence[Object]]  # all of this node
    stirred: Callable[[], None]  # something took disk or memory
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a container starts."""

    pod: Object
    view: PodView
    sandbox: SandboxConfig
    about: Object  # the pod with the container's field path, for events


class Failed(Exception):
    """The steps that follow make no sense now; why is in the memory already."""


class Hands:
    """Performs the steps of one pod. Mutable: what was prepared (volumes, gate) for its sandbox."""

    def __init__(self, parts: Parts, memory: Memory) -> None:
        self._parts = parts
        self._memory = memory
        self._covered = ""  # the sandbox for which the gate has opened
        self.ready: Ready | None = None

    async def perform(self, step: Step, pod: Object, view: PodView) -> None:
        """Raise :class:`Failed` when the rest of the plan is void."""
        runtime = self._parts.runtime
        match step:
            case MakeSandbox():
                await self._sandbox(step, pod)
            case Run():
                await self._run(step, pod, view)
            case Stop():
                await self._stop(step.seen, pod, view, (_grace_for(step, pod), step.why))
            case StopAll():
                await self._stop_all(step, pod, view)
            case Resize():
                await self._resize(step.seen, pod)
            case StopSandbox():
                await runtime.stop_sandbox(step.id)
            case Remove():
                await runtime.remove_container(step.id)
                await asyncio.to_thread(logs.unlink, self._parts.settings, step.id)
            case RemoveSandbox():
                await runtime.remove_sandbox(step.id)

    # -- the sandbox

    async def prepare(self, pod: Object, ips: Sequence[str] = ()) -> Ready:
        """The volumes, made or brought up to date; raise :class:`Failed`."""
        try:
            self.ready = await self._parts.volumes.prepare(pod, ips)
        except VolumeError as err:
            self._parts.recorder.record(pod, "Warning", "FailedMount", str(err))
            self._pod_problem("FailedMount", str(err))
            raise Failed from err
        known = self._memory.pod_problem
        if known is not None and known.reason == "FailedMount":
            self._memory.pod_problem = None
        return self.ready

    async def _sandbox(self, step: MakeSandbox, pod: Object) -> None:
        parts = self._parts
        await self.prepare(pod)
        try:
            config = await self._config(pod, step.attempt)
            await asyncio.to_thread(cgroups.ensure_pod, pod, parts.settings)
            await asyncio.to_thread(cgroups.weigh_classes, parts.pods(), parts.settings)
            folder = Path(config.log_directory)
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await parts.runtime.run_sandbox(config)
            parts.counters.started_pods += 1
        except (RuntimeFailure, ConfigError, OSError, StatusError, Unreachable) as err:
            text = f"Failed to create pod sandbox: {err}"
            parts.recorder.record(pod, "Warning", "FailedCreatePodSandBox", text)
            self._pod_problem("FailedCreatePodSandBox", text)
            raise Failed from err
        self._memory.pod_problem = None

    async def _config(self, pod: Object, attempt: int) -> SandboxConfig:
        handler = ""
        if pod["spec"].get("runtimeClassName"):
            handler = await self._parts.handler_of(pod)
        settings, machine = self._parts.settings, self._parts.machine
        return spec.sandbox_config(pod, attempt, settings, machine=machine, handler=handler)

    def _pod_problem(self, reason: str, message: str) -> None:
        now, known = self._parts.clock(), self._memory.pod_problem
        delay = min(_POD_LONGEST, 2 * known.delay) if known else _POD_FIRST
        self._memory.pod_problem = Problem(reason, message, now + delay, delay)

    # -- one container

    async def _run(self, step: Run, pod: Object, view: PodView) -> None:
        container = next(c for c in all_containers(pod) if c["name"] == step.name)
        about = with_field_path(pod, step.name)
        if view.latest(step.name) is not None:
            now = self._parts.clock()
            self._memory.restarts[step.name] = next_backoff(
                self._memory.restarts.get(step.name), now
            )
        await self._gate(pod, step.sandbox_id, view.ips)
        sandbox = await self._config(pod, view.sandbox.attempt if view.sandbox else 0)
        place = _Place(pod, view, sandbox, about)
        try:
            image = await self._parts.images.ensure(pod, container, about, sandbox)
        except ImageProblem as err:
            self._image_problem(container, about, err)
            self._parts.stirred()  # it may have failed for want of room
            return
        try:
            config = await self._describe(step, container, image, place)
        except VolumeError as err:
            self._unmounted(step.name, pod, err)
            return
        except (ConfigError, ValueError, OSError, Waiting) as err:
            self._problem(step.name, about, "CreateContainerConfigError", err)
            return
        await self._start(step, container, config, place)

    async def _gate(self, pod: Object, sandbox_id: str, ips: Sequence[str]) -> None:
        if self._covered == sandbox_id:
            return
        answer = await self._parts.gate.covered(pod, ips)
        if answer.why:
            text = f"network policies of the pod are not loaded: {answer.why}"
            self._parts.recorder.record(pod, "Warning", "NetworkNotReady", text)
            if not answer.start:
                now = self._parts.clock()
                for container in all_containers(pod):
                    self._memory.problems[container["name"]] = Problem(
                        "ContainerCreating", text, now + _POD_FIRST, _POD_FIRST
                    )
                raise Failed
        self._covered = sandbox_id

    async def _describe(
        self, step: Run, container: Mapping[str, Any], image: Image, place: "_Place"
    ) -> ContainerConfig:
        pod, view = place.pod, place.view
        parts, ready = self._parts, self.ready or await self.prepare(pod, view.ips)
        data = {}
        for kind, name in env.references(container):
            data[kind, name] = await parts.sources.data(
                uid_of(pod), kind, pod["metadata"]["namespace"], name
            )
        services = env.service_variables(
            parts.reads.list(SERVICES),
            pod["metadata"]["namespace"],
            pod["spec"].get("enableServiceLinks", True),
        )
        values = env.build(
            pod, container, services=services, data=data, ips=view.ips, settings=parts.settings
        )
        handler = view.sandbox.runtime_handler if view.sandbox is not None else ""
        features = parts.settings.handlers.get(handler, Features())
        own = await asyncio.to_thread(
            parts.volumes.mounts, pod, container, ready, values, features=features
        )
        extra = await asyncio.to_thread(self._extra_mounts, step, pod, container, view)
        target = self._target(container, view)
        given = spec.Given(image=image, env=values, mounts=(*own, *extra), target=target)
        return spec.container_config(pod, container, step.attempt, given, settings=parts.settings)

    def _target(self, container: Mapping[str, Any], view: PodView) -> str:
        name = container.get("targetContainerName")
        seen = view.current(name) if name else None
        return seen.status.id if seen else ""

    def _extra_mounts(
        self, step: Run, pod: Object, container: Mapping[str, Any], view: PodView
    ) -> tuple[Mount, ...]:
        """/etc/hosts and the termination message; in a thread, it writes files."""
        settings = self._parts.settings
        message = spec.message_file(pod, settings, step.name, step.attempt)
        message.parent.mkdir(parents=True, exist_ok=True)
        message.touch()
        message.chmod(0o666)
        path = container.get("terminationMessagePath") or "/dev/termination-log"
        out = [Mount(container_path=path, host_path=str(message))]
        taken = {m["mountPath"] for m in container.get("volumeMounts", ())}
        if "/etc/hosts" not in taken:
            hosts = settings.pods_dir / uid_of(pod) / "etc-hosts"
            machine = Path("/etc/hosts").read_text() if pod["spec"].get("hostNetwork") else ""
            text = naming.hosts_file(pod, settings, view.ips, machine)
            # In place: containers that run already have this very file mounted.
            hosts.write_text(text)
            out.append(Mount(container_path="/etc/hosts", host_path=str(hosts)))
        return tuple(out)

    async def _start(
        self, step: Run, container: Mapping[str, Any], config: ContainerConfig, place: "_Place"
    ) -> None:
        parts, about = self._parts, place.about
        try:
            id_ = await parts.runtime.create_container(step.sandbox_id, config, place.sandbox)
        except RuntimeFailure as err:
            self._problem(step.name, about, "CreateContainerError", err)
            return
        parts.recorder.record(about, "Normal", "Created", "Container created")
        try:
            await parts.runtime.start_container(id_)
        except RuntimeFailure as err:
            self._problem(step.name, about, "RunContainerError", err, again=timedelta())
            return
        parts.stirred()
        parts.counters.started_containers[_type_of(place.pod, step.name)] += 1
        self._memory.problems.pop(step.name, None)
        await asyncio.to_thread(logs.link, place.pod, parts.settings, config, id_)
        parts.recorder.record(about, "Normal", "Started", "Container started")
        hook = (container.get("lifecycle") or {}).get("postStart")
        if hook and (problem := await self._hook(hook, id_, container, place.view)):
            parts.recorder.record(
                about, "Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}"
            )
            parts.recorder.record(about, "Normal", "Killing", "FailedPostStartHook")
            await parts.runtime.stop_container(id_, _LEAST_GRACE)

    async def _resize(self, seen: Seen, pod: Object) -> None:
        """The pod's cgroup first or last does not matter: its limit is the sum of both worlds."""
        settings = self._parts.settings
        container = next(c for c in all_containers(pod) if c["name"] == seen.status.name)
        await asyncio.to_thread(cgroups.ensure_pod, pod, settings)
        wanted = resources.of_container(pod, container, settings)
        await self._parts.runtime.update_resources(seen.status.id, wanted)
        shown = json.dumps(container.get("resources") or {}, sort_keys=True)
        self._memory.resized[seen.status.id] = shown

    async def _hook(
        self, hook: Mapping[str, Any], id_: str, container: Mapping[str, Any], view: PodView
    ) -> str:
        ip = view.ips[0] if view.ips else ""
        target = Target(
            runtime=self._parts.runtime, container_id=id_, container=container, ip=ip, limit=600
        )
        return await perform(hook, target)

    def _problem(
        self,
        name: str,
        about: Object,
        reason: str,
        err: Exception,
        *,
        again: timedelta = _CONFIG_AGAIN,
    ) -> None:
        self._parts.recorder.record(about, "Warning", "Failed", f"Error: {err}")
        due = self._parts.clock() + again
        self._memory.problems[name] = Problem(reason, str(err), due, again)

    def _unmounted(self, name: str, pod: Object, err: VolumeError) -> None:
        """A volume is gone that was there when the pod began."""
        self._parts.recorder.record(pod, "Warning", "FailedMount", str(err))
        known = self._memory.problems.get(name)
        delay = min(_POD_LONGEST, 2 * known.delay) if known else _POD_FIRST
        due = self._parts.clock() + delay
        self._memory.problems[name] = Problem("ContainerCreating", str(err), due, delay)

    def _image_problem(
        self, container: Mapping[str, Any], about: Object, err: ImageProblem
    ) -> None:
        """First ErrImagePull, then ImagePullBackOff until the next try."""
        name, now = container["name"], self._parts.clock()
        known = self._memory.problems.get(name)
        again = known is not None and known.is_image
        delay = min(_IMAGE_LONGEST, 2 * known.delay) if again and known else _IMAGE_FIRST
        reason, message = err.reason, err.message
        if reason == "ErrImagePull":
            text = f'Back-off pulling image "{container["image"]}"'
            self._parts.recorder.record(about, "Normal", "BackOff", text)
            self._parts.recorder.record(about, "Warning", "Failed", "Error: ImagePullBackOff")
            if again:
                reason, message = "ImagePullBackOff", f"{text}: ErrImagePull: {message}"
        self._memory.problems[name] = Problem(reason, message, now + delay, delay, is_image=True)

    # -- the end

    async def _stop_all(self, step: StopAll, pod: Object, view: PodView) -> None:
        began = time.monotonic()
        sidecars = [c["name"] for c in pod["spec"].get("initContainers", ()) if is_sidecar(c)]
        first = [s for s in view.alive if s.status.name not in sidecars]
        async with asyncio.TaskGroup() as group:
            for seen in first:
                group.create_task(self._stop(seen, pod, view, (step.grace, step.why)))
        for name in reversed(sidecars):
            left = max(0, step.grace - round(time.monotonic() - began))
            for seen in view.alive:
                if seen.status.name == name:
                    await self._stop(seen, pod, view, (left, step.why))

    async def _stop(self, seen: Seen, pod: Object, view: PodView, how: tuple[int, str]) -> None:
        grace, why = how
        name = seen.status.name
        found = [c for c in all_containers(pod) if c["name"] == name]
        container: Mapping[str, Any] = found[0] if found else {"name": name}
        about = with_field_path(pod, name)
        self._parts.recorder.record(about, "Normal", "Killing", why.format(name=name))
        hook = (container.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            began = time.monotonic()
            try:
                async with asyncio.timeout(grace):
                    problem = await self._hook(hook, seen.status.id, container, view)
            except TimeoutError:
                problem = f"the hook took longer than the grace period of {grace}s"
            if problem:
                text = f"PreStopHook failed: {problem}"
                self._parts.recorder.record(about, "Warning", "FailedPreStopHook", text)
            grace = max(_LEAST_GRACE, grace - round(time.monotonic() - began))
        await self._parts.runtime.stop_container(seen.status.id, grace)


def _type_of(pod: Object, name: str) -> str:
    for kind in ("init", "ephemeral"):
        if any(c["name"] == name for c in pod["spec"].get(f"{kind}Containers", ())):
            return f"{kind}_container"
    return "container"


def _grace_for(step: Stop, pod: Object) -> int:
    """A failed probe may have a grace period of its own."""
    default = int(pod["spec"].get("terminationGracePeriodSeconds", 30))
    name = step.seen.status.name
    container: Mapping[str, Any] = next((c for c in all_containers(pod) if c["name"] == name), {})
    for kind in ("livenessProbe", "startupProbe"):
        own = (container.get(kind) or {}).get("terminationGracePeriodSeconds")
        if own is not None and kind.removesuffix("Probe") in step.why:
            return int(own)
    return default
