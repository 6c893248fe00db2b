"""
Writes what differs: addresses and conditions of Services, and the DaemonSets that forward.

One write that fails does not keep the others from being done; the look that had it comes again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from operators.client import ApiError, Client
from operators.recorder import Recorder
from operators.servicelb import daemonset, plan
from operators.servicelb.claims import PortKey, Shadow
from operators.servicelb.daemonset import Wanted
from operators.servicelb.decide import Deciding
from operators.servicelb.facts import PORTS_CONDITION, SPEC_CONDITION, Service
from operators.servicelb.known import Known
from operators.servicelb.plan import Change

EVERYTHING = "all"  # the one key: a port that one Service frees may be another's
AGAIN_SECONDS = 60.0  # until the next look at a program that has a wanted port
STALE_SECONDS = 0.5  # until the watch has told what somebody else wrote in between
NO_NODES = "There are no available nodes for LoadBalancer"
_REFUSED = frozenset({400, 403, 422})
_AWAY = frozenset({0, 429, 503})


class Balancer:
    """
    Its mutable state: what it has said already, so that a look that fails again says nothing new.
    """

    def __init__(
        self,
        client: Client,
        known: Known,
        deciding: Deciding,
        *,
        namespace: str,
        now: Callable[[], datetime],
    ) -> None:
        """``namespace``: of the DaemonSets."""
        self._client = client
        self._known = known
        self._deciding = deciding
        self._namespace = namespace
        self._now = now
        self._recorder = Recorder(client, now)
        self._warned: set[tuple[str, str, PortKey]] = set()  # pods in another's shadow
        self._stale = 0.0  # seconds that the last look waited for the watch
        self._told: dict[str, str] = {}  # Service → why the API refused
        self._founded = False  # namespace and service account are there

    async def reconcile(self, _key: str) -> float | None:
        """
        Raises the last error of those that writes ended with, once all were tried.

        An API that is away or busy is left in peace at once.
        """
        decided = await self._deciding.decide()
        await self._warn(decided.shadows)
        for key in self._told.keys() - self._known.services.keys():
            del self._told[key]
        failed: ApiError | None = None
        stale = False
        steps = [
            *(partial(self._remove, name) for name in decided.obsolete),
            *(partial(self._forward, *wanted) for wanted in decided.daemonsets.items()),
            *(partial(self._write, change) for change in decided.changes),
        ]
        for step in steps:
            try:
                await step()
            except ApiError as err:
                if err.code in _AWAY:
                    raise
                if err.code == 409:
                    stale = True
                else:
                    failed = err
        if failed:
            raise failed
        if stale:
            self._stale = min(2 * self._stale or STALE_SECONDS, AGAIN_SECONDS)
            return self._stale
        self._stale = 0.0
        return AGAIN_SECONDS if decided.passing else None

    async def _write(self, change: Change) -> None:
        service = change.service
        path = f"{_path(service)}/status?fieldManager={self._deciding.manager}"
        try:
            await self._client.merge(path, plan.status_patch(change, self._stamp()))
        except ApiError as err:
            if err.code != 404:  # deleted meanwhile: the watch tells soon
                raise
            return
        for warning, reason, message in _news(change):
            await self._tell(change.service, reason, message, warning=warning)

    async def _forward(self, name: str, wanted: Wanted) -> None:
        live = self._known.daemonsets.get(name)
        body = daemonset.body_of(wanted)
        if live is not None and live.essence == daemonset.essence(body):
            return
        try:
            if live is None:
                await self._found()
                await self._client.create(self._collection, body)
            else:
                body["metadata"]["resourceVersion"] = live.resource_version
                await self._client.replace(f"{self._collection}/{name}", body)
        except ApiError as err:
            if live is not None and err.code == 404:
                return  # the watch tells soon
            if live is None and err.code == 409:
                err = await self._occupied(name, err)
            self._founded = False
            if err.code in _REFUSED:
                await self._tell_refusal(wanted.service, str(err))
            raise err
        self._told.pop(wanted.service.key, None)
        message = f"Applied LoadBalancer DaemonSet {self._namespace}/{name}"
        await self._tell(wanted.service, "AppliedDaemonSet", message)

    async def _occupied(self, name: str, conflict: ApiError) -> ApiError:
        """Ours, which the watch has not told yet, is a conflict that passes."""
        body = await self._client.get(f"{self._collection}/{name}")
        if daemonset.found_of(body) is not None:
            return conflict
        return ApiError(422, conflict.reason, f"DaemonSet {name} is there and not ours")

    async def _found(self) -> None:
        """The namespace and the service account of the pods, once."""
        if self._founded:
            return
        account = f"/api/v1/namespaces/{self._namespace}/serviceaccounts"
        try:
            await self._client.get(f"{account}/{daemonset.ACCOUNT}")
        except ApiError as err:
            if err.code != 404:
                raise
            await self._create("/api/v1/namespaces", "Namespace", self._namespace)
            await self._create(account, "ServiceAccount", daemonset.ACCOUNT)
        self._founded = True

    async def _create(self, path: str, kind: str, name: str) -> None:
        try:
            body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
            await self._client.create(path, body)
        except ApiError as err:
            if err.code != 409:
                raise

    async def _remove(self, name: str) -> None:
        live = self._known.daemonsets.get(name)
        try:
            await self._client.delete(f"{self._collection}/{name}")
        except ApiError as err:
            if err.code != 404:
                raise
            return
        service = self._known.services.get(live.service) if live else None
        if service and daemonset.name_of(service) == name:
            message = f"Deleted LoadBalancer DaemonSet {self._namespace}/{name}"
            await self._tell(service, "DeletedDaemonSet", message)

    @property
    def _collection(self) -> str:
        return f"/apis/apps/v1/namespaces/{self._namespace}/daemonsets"

    async def _tell_refusal(self, service: Service, why: str) -> None:
        if self._told.get(service.key) != why:
            self._told[service.key] = why
            message = f"Error syncing load balancer: {why}"
            await self._tell(service, "SyncLoadBalancerFailed", message, warning=True)

    async def _warn(self, shadows: Iterable[Shadow]) -> None:
        """Pods whose host port reaches another instead: each is told once."""
        fresh = {(shadow.pod.uid, shadow.owner, shadow.port): shadow for shadow in shadows}
        for key in fresh.keys() - self._warned:
            shadow = fresh[key]
            protocol, number = shadow.port
            message = f"{shadow.owner} has {protocol} {number} on {shadow.node}"
            about = _about("Pod", shadow.pod.key, shadow.pod.uid)
            await self._event(about, "HostPortConflict", message, warning=True)
        self._warned = set(fresh)

    async def _tell(
        self, service: Service, reason: str, message: str, *, warning: bool = False
    ) -> None:
        about = _about("Service", service.key, service.uid, service.resource_version)
        await self._event(about, reason, message, warning=warning)

    async def _event(
        self, about: Mapping[str, Any], reason: str, message: str, *, warning: bool
    ) -> None:
        await self._recorder.say(about, reason, message, warning=warning)

    def _stamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _path(service: Service) -> str:
    namespace, _, name = service.key.partition("/")
    return f"/api/v1/namespaces/{namespace}/services/{name}"


def _about(kind: str, key: str, uid: str, version: str = "") -> dict[str, Any]:
    namespace, _, name = key.partition("/")
    metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": version}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


def _news(change: Change) -> Iterator[tuple[bool, str, str]]:
    """What a person should hear of it: (whether a warning, reason, message)."""
    before, after, trouble = change.service.published, change.addresses, change.trouble
    fresh = trouble.message if trouble != change.service.trouble else ""
    if not change.service.ours:
        yield False, "DeletedLoadBalancer", "Deleted load balancer"
        return
    if fresh and trouble.condition == SPEC_CONDITION:
        yield True, "SyncLoadBalancerFailed", f"Error syncing load balancer: {fresh}"
    elif fresh and after:
        yield True, PORTS_CONDITION, fresh
    if after and after != before:
        text = f"[{' '.join(before)}] -> [{' '.join(after)}]"
        yield False, "UpdatedLoadBalancer", f"Updated LoadBalancer with new IPs: {text}"
    elif not after and (before or (fresh and trouble.condition != SPEC_CONDITION)):
        yield True, "UnAvailableLoadBalancer", NO_NODES + (f": {fresh}" if fresh else "")
