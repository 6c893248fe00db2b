"""
Reads Plans of system-upgrade-controller, ``upgrade.cattle.io/v1``, and has UpgradePlans do them.

Whoever comes from K3s applies the Plans that there are. An UpgradePlan has no namespace, so none
can own it: an annotation says of which Plan it is, and it goes when that one has gone. What
somebody adds to it (health checks, canaries) stays. On nodes of Pinnace only: elsewhere the
controller itself does its Plans.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from operators.client import ApiError, Client
from operators.recorder import Recorder
from operators.upgrade import cattleplan
from operators.upgrade.cattleplan import FROM, TRANSLATED, UPGRADE_PLANS, Translation

KIND = {"apiVersion": "upgrade.pinnace.dev/v1", "kind": "UpgradePlan"}
Object = dict[str, Any]


class CattlePlans:
    """
    ``reconcile`` is for a queue of keys, ``<namespace>/<name>`` of a Plan.

    Its mutable state: which Plans wait for which, so that those are looked at as well.
    """

    def __init__(self, client: Client, *, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._recorder = Recorder(client, now)
        self._waiting: dict[str, set[str]] = {}  # UpgradePlan → keys of Plans

    def keys_of(self, upgrade_plan: Mapping[str, Any]) -> list[str]:
        """The Plans that a change of this UpgradePlan concerns; none, of most."""
        own = cattleplan.key_of(upgrade_plan)
        others = self._waiting.get(upgrade_plan["metadata"]["name"], set())
        return sorted({own, *others} - {""})

    async def reconcile(self, key: str) -> float | None:
        """Raises :class:`~operators.client.ApiError`."""
        namespace, _, name = key.partition("/")
        path = f"{cattleplan.GROUP}/namespaces/{namespace}/plans/{name}"
        plan, target = await self._find(path), cattleplan.name_of(key)
        live = await self._find(f"{UPGRADE_PLANS}/{target}")
        if live is not None and cattleplan.key_of(live) != key:
            if plan is not None:
                why = f"metadata.name: there is an UpgradePlan {target} already, of somebody else"
                found = Translation(spec={}, refused=(why,))
                await self._tell(path, plan, None, found, waits="")
            return None
        if plan is None or plan["metadata"].get("deletionTimestamp"):
            self._forget(key)
            if live is not None:
                await self._delete(f"{UPGRADE_PLANS}/{target}")
            return None
        await self._follow(key, path, plan, live)
        return None

    async def _follow(self, key: str, path: str, plan: Object, live: Object | None) -> None:
        found = cattleplan.translate(plan)
        self._forget(key)
        before = None
        if found.after:
            other = cattleplan.name_of(f"{key.partition('/')[0]}/{found.after}")
            self._waiting.setdefault(other, set()).add(key)
            before = await self._find(f"{UPGRADE_PLANS}/{other}")
        waits = cattleplan.suspended(found, before)
        if found.refused:
            # What was translated before is not what is wanted now.
            if live is not None:
                live = await self._put(live, {**_kept(live, ours=True), "suspend": True})
        elif live is None:
            live = await self._create(key, {**found.spec, "suspend": bool(waits)})
        else:
            live = await self._put(live, {**found.spec, "suspend": bool(waits)})
        await self._tell(path, plan, live, found, waits=waits)

    def _forget(self, key: str) -> None:
        for name in [name for name, keys in self._waiting.items() if key in keys]:
            self._waiting[name].discard(key)
            if not self._waiting[name]:
                del self._waiting[name]

    async def _find(self, path: str) -> Object | None:
        try:
            return await self._client.get(path)
        except ApiError as err:
            if err.code == 404:
                return None
            raise

    async def _create(self, key: str, spec: Mapping[str, Any]) -> Object:
        metadata = {"name": cattleplan.name_of(key), "annotations": {FROM: key}}
        return await self._client.create(
            UPGRADE_PLANS, {**KIND, "metadata": metadata, "spec": spec}
        )

    async def _put(self, live: Object, spec: Mapping[str, Any]) -> Object:
        """Nothing is written where nothing has changed but what the API adds by itself."""
        if _covers(live["spec"], spec):
            return live
        body = {**live, "spec": {**_kept(live, ours=False), **spec}}
        return await self._client.replace(f"{UPGRADE_PLANS}/{live['metadata']['name']}", body)

    async def _delete(self, path: str) -> None:
        try:
            await self._client.delete(path)
        except ApiError as err:
            if err.code != 404:
                raise

    async def _tell(
        self, path: str, plan: Object, upgrade: Object | None, found: Translation, *, waits: str
    ) -> None:
        now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        status = cattleplan.status(plan, upgrade, found, waits=waits, now=now)
        before = plan.get("status") or {}
        if all(before.get(name) == value for name, value in status.items()):
            return
        await self._client.merge(f"{path}/status", {"status": status})
        validated = status["conditions"][0]
        if found.refused and validated not in (before.get("conditions") or ()):
            await self._recorder.say(plan, "ValidateFailed", validated["message"], warning=True)


def _kept(live: Object, *, ours: bool) -> dict[str, Any]:
    """Of its spec what was translated, or what somebody has added."""
    return {name: value for name, value in live["spec"].items() if (name in TRANSLATED) == ours}


def _covers(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """What the API adds as a default is either wanted as well or not translated."""
    gone = (live.keys() & TRANSLATED) - wanted.keys()
    return not gone and all(live.get(name) == value for name, value in wanted.items())
