"""
The Node object of this machine and its Lease: registered at the start, kept true, seldom written.

The Lease says every 10 s that the node lives (it is volatile on the server). The status is looked
at with it, and whole every 5 minutes, and written when something changed; the heartbeats in it
alone are worth a write, which reaches the disk, twice a day. Source: KEP-589.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Client, Object, PatchType, Unreachable
from controlplane.objects import meta
from controlplane.objects.errors import StatusError
from controlplane.objects.version import VERSION
from node.config import Config
from node.cri.base import Runtime, RuntimeFailure, RuntimeStatus
from node.kubelet import facts
from node.kubelet.base import LEASES, NODES, Clock, Recorder
from node.update.watch import board

_log = logging.getLogger(__name__)
LEASE_NAMESPACE = "kube-node-lease"
_BEAT = 10.0  # seconds
_UNREADY_BEAT = 0.25  # while the runtime or its network is not ready: containerd tells nobody
_UNREADY_CALM = 2.0
_LEASE_SECONDS = 40
_LOOK_EVERY = timedelta(minutes=5)  # at what seldom changes
_WRITE_EVERY = timedelta(hours=12)
_IMAGES = 50
DISK_PROBLEM = "DataDiskProblem"  # a condition that is there only once it was True
_ROLES = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


class NodeAgent:
    """Its mutable state: the node and lease as last written, and when."""

    def __init__(
        self,
        config: Config,
        client: Client,
        runtime: Runtime,
        recorder: Recorder,
        *,
        clock: Clock,
        held: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """``held``: the conditions of pressure; :meth:`wake` when they change."""
        self._config = config
        self._client = client
        self._runtime = runtime
        self._recorder = recorder
        self._clock = clock
        self._held = held
        self._node: Object = {}
        self._lease: Object | None = None
        self._written_at: datetime | None = None
        self._described: dict[str, Any] | None = None
        self._described_at: datetime | None = None
        self._disk = ("", "")  # what is wrong with it: reason and message
        self._wake = asyncio.Event()
        self.ready = asyncio.Event()  # the node was reported Ready once

    def runtime_changed(self) -> None:
        """The runtime came or went: look now, at everything."""
        self._described = None
        self._wake.set()

    def wake(self) -> None:
        """Report now."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Register, then report until ``stop``; whoever is unreachable is tried again."""
        stopped = asyncio.ensure_future(stop.wait())
        try:
            pause, said = _UNREADY_BEAT, ""
            while not stop.is_set():
                self._wake.clear()
                is_ready = False
                try:
                    is_ready = await self._beat()
                    said = ""
                except (StatusError, Unreachable, OSError) as err:
                    if said != str(err):
                        _log.warning("node %s: %s", self._config.node_name, err)
                    said = str(err)
                except Exception:
                    _log.exception("node %s", self._config.node_name)
                pause = _BEAT if is_ready else min(_UNREADY_CALM, pause * 1.2)
                woken = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait(
                    {stopped, woken}, timeout=pause, return_when=asyncio.FIRST_COMPLETED
                )
                woken.cancel()
        finally:
            stopped.cancel()

    async def _beat(self) -> bool:
        if not self._node:
            await self._register()
        status = await self._status()
        try:
            await self._report(status)
        finally:
            await self._renew()  # it lives, whatever the datastore takes
        return any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])

    # -- the object

    async def _register(self) -> None:
        name = self._config.node_name
        try:
            self._node = await self._client.get(NODES, "", name)
        except StatusError as err:
            if err.code != 404:
                raise
            self._node = await self._create()
            return
        wanted = self._labels()
        known = self._node["metadata"].get("labels", {})
        if any(known.get(key) != value for key, value in wanted.items()):
            body = {"metadata": {"labels": wanted}}
            self._node = await self._client.patch(NODES, "", name, body=body)

    async def _create(self) -> Object:
        config = self._config
        own = {key: value for key, value in self._labels().items() if value is not None}
        labels = {**own, **config.node_labels}
        roles = dict.fromkeys(_ROLES, "true") if config.is_server else {}
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": config.node_name, "labels": {**labels, **roles}},
            "spec": {"providerID": f"pinnace://{config.node_name}"},
        }
        taints = [_taint(text) for text in config.node_taints]
        if taints:
            body["spec"]["taints"] = taints
        try:
            return await self._client.create(NODES, body)
        except StatusError as err:
            if err.code != 403 or not roles:
                raise
            # Where a node may not give itself a role, the control plane does.
            body["metadata"]["labels"] = labels
            return await self._client.create(NODES, body)

    def _labels(self) -> dict[str, str | None]:
        """None: a label that must not be there (any more)."""
        arch, name = facts.arch(), self._config.node_name
        return {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": arch,
            "node.kubernetes.io/instance-type": "pinnace",
            **_release_labels(),
        }

    # -- its status

    async def _status(self) -> dict[str, Any]:
        config = self._config
        whole = await asyncio.to_thread(facts.capacity, config.data_dir, config.max_pods)
        self._look_at_disk()
        try:
            runtime, error = await self._runtime.status(), ""
            now = self._clock()
            if self._described is None or _is_past(self._described_at, _LOOK_EVERY, now):
                self._described, self._described_at = await self._describe(), now
        except RuntimeFailure as err:
            runtime, error = None, str(err)
        return {
            "addresses": _addresses(config),
            "capacity": whole,
            "allocatable": facts.allocatable(whole),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
            **(_features(runtime) if runtime is not None else {}),
            "conditions": self._conditions(runtime, error),
            **(self._described or {}),
        }

    def _look_at_disk(self) -> None:
        """An event can be told even where the datastore takes nothing: it is kept in memory."""
        before, self._disk = self._disk, facts.disk_problem(self._config.data_dir)
        if before[0] == self._disk[0]:
            return
        reason, text = self._disk if self._disk[0] else ("DataDiskIsFine", "it can be written")
        kind = "Warning" if self._disk[0] else "Normal"
        _log.log(logging.ERROR if self._disk[0] else logging.INFO, "%s: %s", reason, text)
        self._recorder.record(self._about(), kind, reason, text)

    async def _describe(self) -> dict[str, Any]:
        """What seldom changes, and is seldom asked: identity and images."""
        version = await self._runtime.version()
        images = sorted(await self._runtime.images(), key=lambda i: -i.size)[:_IMAGES]
        info = await asyncio.to_thread(facts.identity)
        return {
            "nodeInfo": info
            | {
                "containerRuntimeVersion": f"{version.name}://{version.version}",
                "kubeletVersion": VERSION,
                "kubeProxyVersion": "",
            },
            "images": [
                {"names": [*image.digests, *image.tags][:5], "sizeBytes": image.size}
                for image in images
                if image.digests or image.tags
            ],
        }

    def _conditions(self, runtime: RuntimeStatus | None, error: str) -> list[dict[str, Any]]:
        if runtime is None:
            ready = ("False", "KubeletNotReady", f"container runtime is down: {error}")
        elif runtime.message:
            text = "container runtime network not ready: " if runtime.runtime_ready else ""
            ready = ("False", "KubeletNotReady", text + runtime.message)
        else:
            ready = ("True", "KubeletReady", "kubelet is posting ready status")
        held = self._held()
        wanted = {
            "MemoryPressure": _pressure("MemoryPressure" in held, "Memory", "memory"),
            "DiskPressure": (
                ("True", "KubeletHasDiskPressure", "kubelet has disk pressure")
                if "DiskPressure" in held
                else ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
            ),
            "PIDPressure": _pressure(False, "PID", "PID"),
            "Ready": ready,
        }
        old = {c["type"]: c for c in self._node.get("status", {}).get("conditions", ())}
        if self._disk != ("", ""):
            wanted[DISK_PROBLEM] = ("True", *self._disk)
        elif DISK_PROBLEM in old:
            wanted[DISK_PROBLEM] = ("False", "DataDiskIsFine", "the data folder can be written")
        now = meta.rfc3339(self._clock())
        return [_condition(kind, value, old.get(kind), now) for kind, value in wanted.items()]

    async def _report(self, status: Mapping[str, Any]) -> None:
        now, old = self._clock(), self._node.get("status", {})
        is_due = _is_past(self._written_at, _WRITE_EVERY, now)
        if not is_due and _same(old, status):
            return
        was_ready = _ready_of(old)
        changed = {k: v for k, v in status.items() if is_due or _differs(old, k, v)}
        body = {"status": changed}
        name = self._config.node_name
        try:
            self._node = await self._client.patch(
                NODES, "", name, body=body, type=PatchType.STRATEGIC, subresource="status"
            )
        except StatusError as err:
            if err.code == 404:
                self._node = {}  # somebody deleted it: register again
            raise
        self._written_at = now
        self._tell(was_ready, _ready_of(status))

    def _tell(self, before: str, after: str) -> None:
        if after == "True":
            self.ready.set()
        if before == after or not (before or after == "True"):
            return  # a node that is new has not become unready
        name = self._config.node_name
        reason = "NodeReady" if after == "True" else "NodeNotReady"
        text = f"Node {name} status is now: {reason}"
        self._recorder.record(self._about(), "Normal", reason, text)

    def _about(self) -> dict[str, Any]:
        name = self._config.node_name
        return {"metadata": {"name": name, "uid": name}, "kind": "Node", "apiVersion": "v1"}

    # -- the lease

    async def _renew(self) -> None:
        now = meta.micro_time(self._clock())
        if self._lease is None:
            self._lease = await self._own_lease(now)
            return
        body = {**self._lease, "spec": {**self._lease["spec"], "renewTime": now}}
        try:
            self._lease = await self._client.update(LEASES, body)
        except StatusError as err:
            self._lease = None
            if err.code not in (404, 409):
                raise

    async def _own_lease(self, now: str) -> Object:
        name = self._config.node_name
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": _LEASE_SECONDS,
            "renewTime": now,
        }
        with contextlib.suppress(StatusError):
            found = await self._client.get(LEASES, LEASE_NAMESPACE, name)
            return await self._client.update(LEASES, {**found, "spec": {**found["spec"], **spec}})
        owner = {
            "apiVersion": "v1",
            "kind": "Node",
            "name": name,
            "uid": self._node["metadata"]["uid"],
        }
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": name,
                "namespace": LEASE_NAMESPACE,
                "ownerReferences": [owner],
            },
            "spec": spec,
        }
        return await self._client.create(LEASES, body)


def _release_labels() -> dict[str, str | None]:
    """Which version runs, and for which board another one would have to be."""
    return {
        # The value of a label takes no plus.
        "pinnace.dev/version": VERSION.replace("+", "-"),
        "pinnace.dev/board": board() or None,
    }


def _features(runtime: RuntimeStatus) -> dict[str, Any]:
    handlers = [
        {
            "name": name,
            "features": {
                "recursiveReadOnlyMounts": features.recursive_read_only,
                "userNamespaces": features.user_namespaces,
            },
        }
        for name, features in sorted(runtime.handlers.items())
    ]
    return {
        "runtimeHandlers": handlers,
        "features": {"supplementalGroupsPolicy": runtime.strict_groups},
    }


def _taint(text: str) -> dict[str, str]:
    """``key=value:Effect`` or ``key:Effect``."""
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "effect": effect} | ({"value": value} if value else {})


def _addresses(config: Config) -> list[dict[str, str]]:
    internal = [{"type": "InternalIP", "address": ip} for ip in config.node_ips]
    external = [{"type": "ExternalIP", "address": ip} for ip in config.node_external_ips]
    return [*internal, *external, {"type": "Hostname", "address": config.node_name}]


def _pressure(has: bool, reason: str, word: str) -> tuple[str, str, str]:
    if has:
        return (
            "True",
            f"KubeletHasInsufficient{reason}",
            f"kubelet has insufficient {word} available",
        )
    return "False", f"KubeletHasSufficient{reason}", f"kubelet has sufficient {word} available"


def _condition(
    kind: str, value: tuple[str, str, str], old: Mapping[str, Any] | None, now: str
) -> dict[str, Any]:
    status, reason, message = value
    same = old is not None and old.get("status") == status
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": old["lastTransitionTime"] if same and old else now,
    }


def _is_past(since: datetime | None, span: timedelta, now: datetime) -> bool:
    """A clock that was set back must not silence the node."""
    return since is None or abs(now - since) >= span


def _ready_of(status: Mapping[str, Any]) -> str:
    found = (c["status"] for c in status.get("conditions", ()) if c["type"] == "Ready")
    return next(found, "")


def _differs(old: Mapping[str, Any], key: str, value: Any) -> bool:
    """The server keeps nothing of what is empty."""
    return (old.get(key) or None) != (value or None)


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Equal, but for the heartbeat itself and the conditions of others."""
    if any(key != "conditions" and _differs(old, key, value) for key, value in new.items()):
        return False
    known = {c["type"]: c for c in old.get("conditions", ())}
    return all(
        all(known.get(c["type"], {}).get(k) == c[k] for k in ("status", "reason", "message"))
        for c in new["conditions"]
    )
