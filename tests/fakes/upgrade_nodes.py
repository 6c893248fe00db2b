"""
Nodes behind the real API that answer requests as :class:`~tests.fakes.upgrade_agent.Agent` does.

The API server is ours, in this process, the operator's parts are those that its composition root
joins, and the loop's time jumps to the next timer: an hour of soaking takes as long as its writes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import PatchType
from controlplane.deploy.definitions import ensure_crds
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import EVENTS, NAMESPACES, NODES
from operators.client import ApiError
from operators.queue import Queue
from operators.upgrade.apply import Upgrades
from operators.upgrade.base import Drained, Offer, Verdict
from operators.upgrade.known import Known
from operators.upgrade.observe import Observer, Tools
from tests.fakes.api_server import Served, defining, serving
from tests.fakes.clock import START
from tests.fakes.upgrade import SERVER
from tests.fakes.upgrade_agent import V2, Agent, request_of

Object = dict[str, Any]
PLANS = Resource("upgrade.pinnace.dev", "v1", "upgradeplans", False)
KINDS = {"nodes": NODES, "upgradeplans": PLANS, "events": EVENTS}


class Died(BaseException):
    """The operator was killed."""


class Api:
    """
    What operators may ask of the API, without HTTP; ``calls`` counts (verb, kind).

    ``kill_at``: that many writes from now the operator dies, before or (``after``) behind it.
    """

    def __init__(self, served: Served) -> None:
        self._client = served.client
        self.calls: Counter[tuple[str, str]] = Counter()
        self.fault: Callable[[], int] = lambda: 0  # the code of a refusal; 0: none
        self.kill_at: int | None = None
        self.after = False

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        resource, namespace, name, _ = _place(path)
        self.calls["get", resource.plural] += 1
        with _translated():
            return dict(await self._client.get(resource, namespace, name))

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        resource = _place(path)[0]
        return await self._count("create", resource, self._client.create(resource, dict(body)))

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Object:
        resource, namespace, name, subresource = _place(path)
        work = self._client.patch(
            resource,
            namespace,
            name,
            body=dict(patch),
            type=PatchType.MERGE,
            subresource=subresource,
        )
        return await self._count("patch", resource, work)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        raise NotImplementedError

    async def delete(self, path: str) -> None:
        raise NotImplementedError

    async def metadata(self, path: str, query: Mapping[str, str]) -> list[Object]:
        raise NotImplementedError

    async def _count(self, verb: str, resource: Resource, work: Any) -> Object:
        if resource is not EVENTS and self.kill_at is not None:
            self.kill_at -= 1
            if self.kill_at < 0 and not self.after:
                work.close()
                raise Died
        if resource is not EVENTS and (code := self.fault()):
            work.close()
            raise ApiError(code, "", "not now")
        self.calls[verb, resource.plural] += 1
        with _translated():
            made = dict(await work)
        if resource is not EVENTS and self.kill_at is not None and self.kill_at < 0:
            raise Died
        return made


def _seconds() -> float:
    return asyncio.get_running_loop().time()


class _translated:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, err: BaseException | None, trace: Any) -> None:
        if isinstance(err, StatusError):
            raise ApiError(err.code, err.reason, str(err)) from err


def _place(path: str) -> tuple[Resource, str, str, str]:
    parts = path.split("?")[0].strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    name, subresource = [*rest[1:], "", ""][:2]
    return KINDS[rest[0]], namespace, name, subresource


class Others:
    """Channels, checks, drains and Jobs: all is well but what a test says, by node."""

    def __init__(self) -> None:
        self.version = V2
        self.passing: dict[str, bool] = {}
        self.drained: dict[str, Drained] = {}
        self.looks: Counter[str] = Counter()

    async def offers(
        self, spec: Mapping[str, Any], boards: Any, *, serial: int = 0
    ) -> Mapping[str, Offer]:
        self.looks["channel"] += 1
        version = spec.get("version") or self.version
        return {b: Offer(version=version, url=f"/usb/{b}.raucb", sha256="", size=0) for b in boards}

    async def verdict(self, checks: Any, *, node: str) -> Verdict:
        self.looks["check"] += 1
        good = self.passing.get(node, True)
        return Verdict(passed=good, message="" if good else "web: 503")

    async def drain(self, node: str, options: Any, *, since: datetime) -> Drained:
        self.looks["drain"] += 1
        return self.drained.get(node) or Drained(done=True, message="", retry_at=None)

    async def ensure(self, plan: Any, node: str, version: str) -> Drained:
        self.looks["job"] += 1
        return Drained(done=True, message="", retry_at=None)

    async def remove(self, plan: str, node: str) -> None:
        self.looks["remove"] += 1


class World:
    """A fleet behind an API, and the operator that may be killed and begin again."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.api = Api(served)
        self.others = Others()
        self.agents: dict[str, Agent] = {}
        self.now: Callable[[], datetime] = lambda: START + timedelta(seconds=_seconds())
        self.most = 0  # nodes that were disturbed at the same time
        self.started: list[str] = []
        self.step_seconds = 10.0
        self._statuses: dict[str, Object] = {}
        self._operator: asyncio.Task[None] | None = None

    async def add(self, name: str, *, server: bool = False, **more: Any) -> Agent:
        agent = self.agents[name] = Agent(name, **more)
        labels = {SERVER: "true"} if server else {}
        metadata = {"name": name, "labels": labels}
        await self.served.client.create(NODES, {"metadata": metadata})
        await self._report(agent)
        return agent

    async def plan(self, name: str = "fleet", **spec: Any) -> None:
        source: Object = {} if "channel" in spec else {"version": V2, "source": "/usb"}
        body: Object = {"metadata": {"name": name}, "spec": source | spec}
        body |= {"apiVersion": "upgrade.pinnace.dev/v1", "kind": "UpgradePlan"}
        await self.served.client.create(PLANS, body)

    async def change(self, name: str = "fleet", **spec: Any) -> None:
        await self._patch(PLANS, name, {"spec": spec})

    async def delete(self, name: str = "fleet") -> None:
        await self.served.client.delete(PLANS, "", name)

    async def get(self, name: str = "fleet") -> Object:
        return dict(await self.served.client.get(PLANS, "", name))

    async def status(self, name: str = "fleet") -> Object:
        found: Object = (await self.get(name)).get("status") or {}
        return found

    async def phases(self, name: str = "fleet") -> dict[str, str]:
        return {e["name"]: e["phase"] for e in (await self.status(name)).get("nodes") or ()}

    async def cordoned(self) -> set[str]:
        listed = await self.served.client.list(NODES)
        return {n["metadata"]["name"] for n in listed.items if n["spec"].get("unschedulable")}

    def start(self) -> None:
        """An operator that knows nothing but what the API says."""
        self._operator = asyncio.ensure_future(self._operate())

    async def stop(self) -> None:
        if self._operator is not None:
            self._operator.cancel()
            with suppress(asyncio.CancelledError, Died, BaseExceptionGroup):
                await self._operator

    async def live(self, seconds: float, *, until: Any = None) -> None:
        """The nodes work, the operator is begun again where it died; ``until`` may end it."""
        end = asyncio.get_running_loop().time() + seconds
        nodes = asyncio.ensure_future(self._nodes())
        try:
            while asyncio.get_running_loop().time() < end:
                if self._operator is None or self._operator.done():
                    await self.stop()
                    self.start()
                if until is not None and await until():
                    return
                await asyncio.sleep(2 * self.step_seconds)
        finally:
            nodes.cancel()
            with suppress(asyncio.CancelledError):
                await nodes

    async def complete(self) -> bool:
        return (await self.status()).get("phase") == "Complete"

    async def _operate(self) -> None:
        plans = Queue("UpgradePlan", lambda key: upgrades.reconcile(key), workers=1)
        looks = Queue("upgrade", lambda key: observer.look(key), workers=8)
        known = Known(plans.add)
        tools = Tools(
            **dict.fromkeys(("channels", "checks", "drains", "jobs"), lambda: self.others)
        )
        observer = Observer(tools, now=self.now, add=looks.add, changed=plans.add)
        upgrades = Upgrades(self.api, known, observer, now=self.now)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(known))
            tasks.create_task(plans.run())
            tasks.create_task(looks.run())

    async def _watch(self, known: Known) -> None:
        """As kopf would tell it."""
        async with asyncio.TaskGroup() as tasks:
            for resource in (PLANS, NODES):
                synced = asyncio.Event()
                tasks.create_task(self._follow(resource, known, synced))
                await synced.wait()
            known.sync()

    async def _follow(self, resource: Resource, known: Known, synced: asyncio.Event) -> None:
        put = known.put_plan if resource is PLANS else known.put_node
        kind: Any = known.plans if resource is PLANS else known.nodes
        client = self.served.client
        listed = await client.list(resource)
        version = listed.resource_version
        for body in listed.items:
            put(body)
        synced.set()
        while True:  # the server ends each watch after a while
            async for event in client.watch(resource, after=version):
                version = event.object["metadata"]["resourceVersion"]
                if event.type == "DELETED":
                    known.drop(kind, event.object["metadata"]["name"])
                elif event.type in {"ADDED", "MODIFIED"}:
                    put(event.object)

    async def _nodes(self) -> None:
        """Every node looks at its request and takes a step, and is watched meanwhile."""
        while True:
            listed = await self.served.client.list(NODES)
            disturbed = 0
            for body in listed.items:
                agent = self.agents[body["metadata"]["name"]]
                request = request_of(dict(body))
                if request and agent.name not in self.started:
                    self.started.append(agent.name)
                disturbed += bool(body["spec"].get("unschedulable")) or not agent.ready
                if agent.board and agent.step(request, self.now()):
                    await self._report(agent)
            self.most = max(self.most, disturbed)
            await asyncio.sleep(self.step_seconds)

    async def _report(self, agent: Agent) -> None:
        if agent.board:
            await self._patch(NODES, agent.name, {"metadata": agent.metadata()})
        status = agent.status()
        if self._statuses.get(agent.name) != status:
            self._statuses[agent.name] = status
            await self._patch(NODES, agent.name, {"status": status}, "status")

    async def _patch(
        self, resource: Resource, name: str, body: Object, subresource: str = ""
    ) -> None:
        await self.served.client.patch(
            resource, "", name, body=body, type=PatchType.MERGE, subresource=subresource
        )


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with serving() as served, defining(served):
        parts = served.parts
        await served.client.create(NAMESPACES, {"metadata": {"name": "default"}})
        await ensure_crds(served.client)
        while not parts.kinds.by_kind("upgrade.pinnace.dev/v1", "UpgradePlan"):
            await parts.cache.wait_for(parts.cache.revision + 1)
        made = World(served)
        try:
            yield made
        finally:
            await made.stop()
