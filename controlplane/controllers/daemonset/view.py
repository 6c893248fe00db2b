"""
A DaemonSet, the nodes and its pods on them, as one pass sees them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from controlplane.client.base import Object
from controlplane.controllers.daemonset.nodes import Fit, target
from controlplane.objects.meta import is_deleting, labels
from controlplane.reconcile import pods
from controlplane.reconcile.amounts import scaled
from controlplane.reconcile.revisions import HASH_LABEL


@dataclass(frozen=True, kw_only=True)
class View:
    """``pods`` by node, which need not exist; those that ended and are leaving are left out."""

    daemon_set: Object
    fits: Mapping[str, Fit]  # by the name of the node
    pods: Mapping[str, Sequence[Object]]
    hashed: str  # of the present template
    now: datetime

    @cached_property
    def desired(self) -> int:
        return sum(found.start for found in self.fits.values())

    @property
    def rolls(self) -> bool:
        return bool(self._strategy.get("type", "RollingUpdate") == "RollingUpdate")

    @property
    def surge(self) -> int:
        return scaled(self._rolling.get("maxSurge", 0), self.desired, up=True)

    @property
    def allows_surge(self) -> bool:
        """Of a single pod: on a cluster without nodes too."""
        return scaled(self._rolling.get("maxSurge", 0), 1, up=True) > 0

    @property
    def unavailable(self) -> int:
        most = scaled(self._rolling.get("maxUnavailable", 1), self.desired, up=True)
        return most or (0 if self.surge else 1)

    @property
    def _strategy(self) -> Mapping[str, Any]:
        return self.daemon_set["spec"].get("updateStrategy") or {}

    @property
    def _rolling(self) -> Mapping[str, Any]:
        return (self._strategy.get("rollingUpdate") or {}) if self.rolls else {}

    def is_updated(self, pod: Object) -> bool:
        return labels(pod).get(HASH_LABEL) == self.hashed

    def wait(self, pod: Object) -> timedelta | None:
        """Until the pod is available; None: it is not ready."""
        seconds = self.daemon_set["spec"].get("minReadySeconds", 0)
        return pods.available_in(pod, seconds, self.now)

    def is_available(self, pod: Object) -> bool:
        return self.wait(pod) == timedelta(0)


def by_node(owned: Iterable[Object]) -> dict[str, list[Object]]:
    """The bound and then the oldest first; pods for no node are nobody's business."""
    grouped: dict[str, list[Object]] = {}
    for pod in owned:
        node = target(pod)
        if node and not (pods.is_finished(pod) and is_deleting(pod)):
            grouped.setdefault(node, []).append(pod)
    for found in grouped.values():
        found.sort(key=_age)
    return grouped


def _age(pod: Object) -> tuple[bool, str, str]:
    meta = pod["metadata"]
    unbound = not pod["spec"].get("nodeName")
    return unbound, meta.get("creationTimestamp") or "", meta["name"]
