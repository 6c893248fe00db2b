"""
A StatefulSet and its pods by their ordinals, as one pass sees them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from controlplane.client.base import Object, Reads
from controlplane.controllers.statefulset import identity
from controlplane.objects.meta import is_deleting, name
from controlplane.reconcile import pods


@dataclass(frozen=True, kw_only=True)
class View:
    """``pods``: all that are the set's. ``current``: the revision that an update leaves."""

    owner: Object
    pods: Sequence[Object]
    current: Object
    update: Object
    reads: Reads
    now: datetime

    @cached_property
    def by_ordinal(self) -> dict[int, Object]:
        return {identity.ordinal(pod): pod for pod in self.pods}

    @property
    def ordinals(self) -> range:
        return identity.ordinals(self.owner)

    @cached_property
    def condemned(self) -> list[Object]:
        """Pods outside the ordinals, the highest first."""
        numbers = sorted((n for n in self.by_ordinal if n not in self.ordinals), reverse=True)
        return [self.by_ordinal[number] for number in numbers]

    @property
    def is_ordered(self) -> bool:
        return bool(self.owner["spec"].get("podManagementPolicy") != "Parallel")

    @property
    def rolls(self) -> bool:
        strategy = self.owner["spec"].get("updateStrategy") or {}
        return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate")

    @property
    def rolling(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = (self.owner["spec"].get("updateStrategy") or {}).get(
            "rollingUpdate"
        )
        return found

    def is_current(self, pod: Object) -> bool:
        return identity.revision_of(pod) == name(self.current)

    def is_updated(self, pod: Object) -> bool:
        return identity.revision_of(pod) == name(self.update)

    def wait(self, pod: Object) -> timedelta | None:
        """Until the pod is available; None: it is not ready."""
        seconds = self.owner["spec"].get("minReadySeconds", 0)
        return pods.available_in(pod, seconds, self.now)

    def works(self, pod: Object | None) -> bool:
        """Available, and not about to go."""
        return pod is not None and not is_deleting(pod) and self.wait(pod) == timedelta(0)

    @cached_property
    def first_broken(self) -> int | None:
        """The ordinal of the pod that must work, or go, before anything else is done."""
        numbers = [*self.ordinals, *(identity.ordinal(p) for p in reversed(self.condemned))]
        return next((n for n in numbers if not self.works(self.by_ordinal.get(n))), None)
