"""
Say on a HelmChart, and in events, how far it is; nothing where nothing changed.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from operators.client import ApiError, Client
from operators.helm import failures, status
from operators.helm.status import Outcome, Said
from operators.recorder import Recorder

GROUP = "/apis/helm.cattle.io/v1"

Object = dict[str, Any]
_NOTHING: Mapping[str, Any] = {}


class Teller:
    """``now`` is the time of day."""

    def __init__(self, client: Client, *, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._recorder = Recorder(client, now)

    async def tell(
        self,
        chart: Object,
        outcome: Outcome | None,
        *,
        conditions: Mapping[str, Said | None] = _NOTHING,
        fields: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """
        ``conditions`` beside those of the outcome, and ``fields`` of the status; None takes
        one away. ``chart`` is changed as the API changed it.
        """
        old = chart.get("status") or {}
        wanted = {**(status.said(outcome) if outcome else {}), **conditions}
        said = status.conditions(
            old.get("conditions") or (),
            wanted,
            generation=chart["metadata"].get("generation", 0),
            now=self.time(),
        )
        changes = status.changes({"conditions": [], **old}, {"conditions": said, **fields})
        if not changes:
            return
        try:
            made = await self._client.merge(f"{path_of(chart)}/status", {"status": changes})
            written(chart, made)
        except ApiError as err:
            if err.code != 404:  # deleted meanwhile
                raise
        chart["status"] = {**old, **changes}

    async def event(
        self, chart: Object, reason: str, message: str, *, warning: bool = False
    ) -> None:
        about = {"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", **chart}
        await self._recorder.say(about, reason, message, warning=warning)

    def time(self) -> str:
        return self._now().strftime(failures.TIME)


def written(chart: Object, made: Mapping[str, Any]) -> None:
    """``chart`` is what the API made of a write, but for its generation: that was not read yet."""
    generation = chart["metadata"].get("generation", 0)
    chart["metadata"] = {**made["metadata"], "generation": generation}


def path(plural: str, key: str) -> str:
    """``key``: namespace/name."""
    namespace, _, name = key.partition("/")
    return f"{GROUP}/namespaces/{namespace}/{plural}/{name}"


def path_of(chart: Mapping[str, Any]) -> str:
    metadata = chart["metadata"]
    return path("helmcharts", f"{metadata['namespace']}/{metadata['name']}")
