"""
NodeMetrics and PodMetrics: from a request to an answer.

Who asks was authenticated and authorised before, as for any resource. Source: the resource
metrics API, metrics.k8s.io/v1beta1.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from controlplane.api import discovery, forms
from controlplane.api.base import User
from controlplane.api.call import Parts
from controlplane.api.encoding import encode
from controlplane.api.metrics_api.kubelets import Kubelets
from controlplane.api.metrics_api.sample import Measured, duration
from controlplane.api.negotiate import Output, output_for, render
from controlplane.api.route import Route, parse
from controlplane.api.subresources import not_allowed
from controlplane.client.base import Object
from controlplane.objects import field_selectors, selectors
from controlplane.objects.errors import StatusError, bad_request, no_such_path, not_found
from controlplane.objects.kinds import Column, Kind, Kinds
from controlplane.objects.meta import is_true, labels, rfc3339
from controlplane.objects.resources import NODES, PODS

GROUP, VERSION = "metrics.k8s.io", "v1beta1"


def _column(name: str, path: str) -> Column:
    return Column(name=name, type="string", json_path=path)


NODE_METRICS = Kind(
    group=GROUP,
    version=VERSION,
    kind="NodeMetrics",
    plural="nodes",
    singular="",
    namespaced=False,
    verbs=frozenset({"get", "list"}),
    custom=True,
    columns=(
        _column("CPU", ".usage.cpu"),
        _column("Memory", ".usage.memory"),
        _column("Window", ".window"),
    ),
)
POD_METRICS = Kind(
    group=GROUP,
    version=VERSION,
    kind="PodMetrics",
    plural="pods",
    singular="",
    namespaced=True,
    verbs=frozenset({"get", "list"}),
    custom=True,
    columns=(_column("Window", ".window"),),
)
KINDS = Kinds((NODE_METRICS, POD_METRICS))


class MetricsApi:
    """An :class:`~controlplane.api.call.Aggregator`; its state is what the kubelets said."""

    def __init__(self, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._kubelets = Kubelets(parts)

    def serves(self, group: str, version: str) -> bool:
        return (group, version) == (GROUP, VERSION)

    def discovery(self) -> Sequence[Mapping[str, Any]]:
        entries: list[Mapping[str, Any]] = discovery.aggregated(KINDS, "v2", core=False)["items"]
        return entries

    async def relay(self, request: web.BaseRequest, _user: User) -> web.StreamResponse:
        route = parse(request.method, request.rel_url.raw_path, request.query)
        if not route.plural:
            return _answer(orjson.dumps(discovery.resource_list(KINDS, GROUP, VERSION)), Output())
        kind = _kind_of(route)
        output = output_for(
            request.headers.get("Accept", ""), pretty=request.query.get("pretty") in ("true", "1")
        )
        include, now = request.query.get("includeObject", ""), self._parts().clock()
        if route.verb == "get":
            found = encode(await self.get(kind, route.namespace, route.name))
            return _answer(forms.one(kind, found, output, now=now, include=include), output)
        items = [encode(item) for item in await self.list(kind, route.namespace, request.query)]
        body = forms.many(kind, items, output, metadata={}, now=now, include=include)
        return _answer(body, output)

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """404 where nothing is known of it, as of a pod that does not run."""
        found = self._parts().cache.get(_measured_kind(kind), namespace, name)
        items = await self._metrics(kind, [found] if found is not None else [])
        if not items:
            full = f"{namespace}/{name}" if kind.namespaced else name
            raise not_found(f"{kind.kind.lower()}.{GROUP}", full)
        return items[0]

    async def list(
        self, kind: Kind, namespace: str = "", query: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """``query`` may hold labelSelector and fieldSelector."""
        objects = self._parts().cache.list(_measured_kind(kind), namespace)
        return await self._metrics(kind, list(_selected(kind, objects, query or {})))

    async def _metrics(self, kind: Kind, objects: Sequence[Object]) -> Sequence[Object]:
        nodes = self._parts().cache.list(NODES)
        self._kubelets.forget(node["metadata"]["name"] for node in nodes)
        answering = {node["metadata"]["name"] for node in nodes if is_true(node, "Ready")}
        where = {_node_of(kind, item) for item in objects}
        measured = await self._kubelets.measure(where & answering)
        found = []
        for item in objects:
            if (known := measured.get(_node_of(kind, item))) is not None:
                usage = _usage(kind, item, known[1])
                if usage is not None:
                    found.append(_object(kind, item, known, usage))
        return found


def _kind_of(route: Route) -> Kind:
    kind = KINDS.by_resource(route.group, route.version, route.plural)
    if kind is None or route.subresource or (route.namespace and not kind.namespaced):
        raise no_such_path()
    if route.verb not in kind.verbs:
        raise not_allowed()
    if route.name and kind.namespaced and not route.namespace:
        raise no_such_path()
    return kind


def _measured_kind(kind: Kind) -> Any:
    return PODS if kind is POD_METRICS else NODES


def _selected(kind: Kind, objects: Sequence[Object], query: Mapping[str, str]) -> Iterator[Object]:
    try:
        wanted = selectors.parse(query.get("labelSelector", ""))
    except StatusError as error:
        raise bad_request(f'unable to parse "labelSelector": {error.message}') from None
    fields = field_selectors.parse(query.get("fieldSelector", ""), kind)
    for item in objects:
        if not wanted.matches(labels(item)):
            continue
        if fields.empty or fields.matches(field_selectors.fields_of(kind, item)):
            yield item


def _node_of(kind: Kind, item: Object) -> str:
    if kind is NODE_METRICS:
        return str(item["metadata"]["name"])
    return str(item["spec"].get("nodeName") or "")


def _usage(kind: Kind, item: Object, measured: Measured) -> dict[str, Any] | None:
    if kind is NODE_METRICS:
        return {"usage": measured.node.as_usage()}
    containers = measured.pods.get(item["metadata"]["uid"])
    if not containers or (item.get("status") or {}).get("phase") != "Running":
        return None
    uses = sorted(containers.items())
    return {"containers": [{"name": name, "usage": use.as_usage()} for name, use in uses]}


def _object(
    kind: Kind, item: Object, known: tuple[datetime, Measured], usage: Mapping[str, Any]
) -> dict[str, Any]:
    time, meta = rfc3339(known[0]), item["metadata"]
    metadata: dict[str, Any] = {"name": meta["name"]}
    if kind.namespaced:
        metadata["namespace"] = meta["namespace"]
    metadata["creationTimestamp"] = time
    if meta.get("labels"):
        metadata["labels"] = meta["labels"]
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": metadata,
        "timestamp": time,
        "window": duration(known[1].window),
        **usage,
    }


def _answer(body: bytes, output: Output) -> web.Response:
    headers = {"Content-Type": output.media, "Cache-Control": "no-cache, private"}
    return web.Response(body=render(body, output), headers=headers)
