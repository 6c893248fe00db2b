"""
What kopf sees of HelmCharts, their configurations and their Secrets becomes keys to look at.

Only what may change a release counts: what we write ourselves, the finalizer and
the status, does not come back as work, except to the charts that wait for this one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import kopf

from operators.helm import plan, status, wanted

GROUP, VERSION = "helm.cattle.io", "v1"
Add = Callable[[str], None]


class Seen:
    """What the last event of each object said, as little as is needed to tell a change."""

    def __init__(self, add: Add) -> None:
        self._add = add
        self._charts: dict[str, tuple[Any, ...]] = {}
        self._ready: dict[str, tuple[Any, ...]] = {}
        self._dependencies: dict[str, tuple[str, ...]] = {}  # of charts that have some
        self._configs: dict[str, int] = {}
        self._secrets: dict[str, frozenset[str]] = {}  # chart or config → Secrets it refers to
        self._versions: dict[str, str] = {}  # of Secrets that one refers to

    def chart(self, body: Mapping[str, Any], *, gone: bool) -> None:
        key = _key(body)
        if gone:
            self._charts.pop(key, None)
            self._ready.pop(key, None)
            self._dependencies.pop(key, None)
            self._secrets.pop(f"HelmChart/{key}", None)
            self._add(key)
            self._wake_dependants(key)
            return
        self._secrets[f"HelmChart/{key}"] = wanted.watched_secrets(body, None)
        self._depends(key, wanted.dependencies(body))
        said = _said(body)
        if self._charts.get(key) != said:
            self._charts[key] = said
            self._add(key)
        ready = (body["metadata"].get("generation"), status.is_ready(body))
        if self._ready.get(key) != ready:
            self._ready[key] = ready
            self._wake_dependants(key)

    def config(self, body: Mapping[str, Any], *, gone: bool) -> None:
        key = _key(body)
        generation = body["metadata"].get("generation", 0)
        if gone:
            self._configs.pop(key, None)
            self._secrets.pop(f"HelmChartConfig/{key}", None)
            self._add(key)
            return
        self._secrets[f"HelmChartConfig/{key}"] = wanted.watched_secrets({}, body)
        if self._configs.get(key) != generation:
            self._configs[key] = generation
            self._add(key)

    def secret(self, body: Mapping[str, Any], *, gone: bool) -> None:
        secret, version = _key(body), str(body["metadata"].get("resourceVersion") or "")
        namespace, _, name = secret.partition("/")
        users = [
            user.partition("/")[2]
            for user, names in self._secrets.items()
            if name in names and user.partition("/")[2].startswith(f"{namespace}/")
        ]
        if gone or not users:
            self._versions.pop(secret, None)
        elif self._versions.get(secret) == version:
            # Listed again after a watch was lost, and nothing was missed.
            return
        else:
            self._versions[secret] = version
        for key in users:
            self._add(key)

    def _depends(self, key: str, names: tuple[str, ...]) -> None:
        if names:
            self._dependencies[key] = names
        else:
            self._dependencies.pop(key, None)

    def _wake_dependants(self, key: str) -> None:
        for dependant, names in self._dependencies.items():
            if key in names and dependant != key:
                self._add(dependant)


def register(registry: Any, add: Add) -> None:
    """``add`` gets namespace/name of a HelmChart that needs a look."""
    # Coroutines, because kopf takes plain functions to threads.
    seen = Seen(add)

    @kopf.on.event(GROUP, VERSION, "helmcharts", registry=registry)
    async def chart(body: Mapping[str, Any], **seen_now: Any) -> None:
        seen.chart(body, gone=seen_now["type"] == "DELETED")

    @kopf.on.event(GROUP, VERSION, "helmchartconfigs", registry=registry)
    async def config(body: Mapping[str, Any], **seen_now: Any) -> None:
        seen.config(body, gone=seen_now["type"] == "DELETED")

    @kopf.on.event("", "v1", "secrets", registry=registry)
    async def secret(body: Mapping[str, Any], **seen_now: Any) -> None:
        seen.secret(body, gone=seen_now["type"] == "DELETED")


def _said(body: Mapping[str, Any]) -> tuple[Any, ...]:
    metadata = body["metadata"]
    annotations = metadata.get("annotations") or {}
    return (
        metadata["uid"],
        metadata.get("generation"),
        "deletionTimestamp" in metadata,
        plan.managed(body),
        annotations.get(wanted.CHECK),
    )


def _key(body: Mapping[str, Any]) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
