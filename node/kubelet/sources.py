"""
Config maps, secrets and tokens that pods refer to: fetched once, followed while in use.

Each object that a running pod refers to has one watch by name, as the Node authorizer
permits; it ends when the last pod that refers to it goes. Nothing is asked twice while
its watch lives, and a change wakes exactly the pods concerned.
"""

import asyncio
import base64
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from controlplane.client.base import Client, Object, Selection, Unreachable
from controlplane.objects import meta
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from node.kubelet.base import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, TRUST_BUNDLES, Clock

_log = logging.getLogger(__name__)
RESOURCES = {"configmap": CONFIG_MAPS, "secret": SECRETS}
Reference = tuple[str, str, str]  # kind, namespace, name
_ALL_BUNDLES: Reference = ("clustertrustbundle", "", "")
_LOOK_AGAIN = 5.0  # seconds after a watch that failed
_MOST_WATCHED, _LOOK_SELDOM = 128, 60.0  # objects, seconds
_REFRESH = 0.8  # of a token's life
_LONG_TOKEN = timedelta(hours=24)


class Waiting(Exception):
    """The API server does not answer; the caller tries again."""


@dataclass(slots=True)
class _Followed:
    """One object in use: ``users`` are pod uids; ``value`` None: it does not exist."""

    task: asyncio.Task[None]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    value: Object | None = None
    users: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Token:
    text: str
    refresh_at: float  # epoch seconds
    expires_at: float


class Sources:
    """Its mutable state: what is followed, by reference, and the tokens, by pod and request."""

    def __init__(
        self, client: Client, group: asyncio.TaskGroup, changed: Callable[[str], None], clock: Clock
    ) -> None:
        self._client = client
        self._group = group
        self._changed = changed  # (pod uid)
        self._clock = clock
        self._followed: dict[Reference, _Followed] = {}
        self._tokens: dict[tuple[Any, ...], _Token] = {}

    async def data(
        self, uid: str, kind: str, namespace: str, name: str
    ) -> Mapping[str, bytes] | None:
        """
        The values of a config map or secret, None where it does not exist (yet).

        The pod ``uid`` is a user of it from now on. Raise :class:`Waiting` where nobody answers.
        """
        followed = self._follow((kind, namespace, name))
        followed.users.add(uid)
        await self._answered(followed, f'{kind} "{namespace}/{name}"')
        return values_of(followed.value) if followed.value is not None else None

    async def object(self, uid: str, kind: str, namespace: str, name: str) -> Object | None:
        """As :meth:`data`, but the whole object."""
        await self.data(uid, kind, namespace, name)
        return self._followed[kind, namespace, name].value

    async def trust_bundles(self, uid: str) -> Sequence[Object]:
        """All cluster trust bundles: selectors choose among them, so they are followed as one."""
        followed = self._follow(_ALL_BUNDLES)
        followed.users.add(uid)
        await self._answered(followed, "cluster trust bundles")
        return list((followed.value or {}).get("items", {}).values())

    async def _answered(self, followed: _Followed, what: str) -> None:
        try:
            await asyncio.wait_for(followed.ready.wait(), _LOOK_AGAIN)
        except TimeoutError:
            raise Waiting(f"{what}: no answer from the API server") from None

    def release(self, uid: str) -> None:
        """The pod is gone: what nobody uses any more is no longer followed."""
        for reference, followed in list(self._followed.items()):
            followed.users.discard(uid)
            if not followed.users:
                followed.task.cancel()
                del self._followed[reference]
        self._tokens = {key: token for key, token in self._tokens.items() if key[0] != uid}

    def _follow(self, reference: Reference) -> _Followed:
        if reference not in self._followed:
            task = self._group.create_task(self._watch(reference))
            self._followed[reference] = _Followed(task)
        return self._followed[reference]

    async def _watch(self, reference: Reference) -> None:
        kind, namespace, name = reference
        while True:
            try:
                if reference == _ALL_BUNDLES:
                    await self._look_at_bundles()
                    continue
                await self._look(
                    RESOURCES[kind],
                    reference,
                    Selection(namespace=namespace, fields=f"metadata.name={name}"),
                )
            except (StatusError, Unreachable):
                await asyncio.sleep(_LOOK_AGAIN)
            except Exception:
                _log.exception("%s %s/%s", *reference)
                await asyncio.sleep(_LOOK_AGAIN)

    async def _look_at_bundles(self) -> None:
        found = await self._client.list(TRUST_BUNDLES)
        items = {item["metadata"]["name"]: item for item in found.items}
        version = found.resource_version
        self._set_bundles(items, version)
        async for event in self._client.watch(TRUST_BUNDLES, after=version):
            about = event.object["metadata"]
            if event.type in ("ADDED", "MODIFIED"):
                items = {**items, about["name"]: event.object}
            elif event.type == "DELETED":
                items = {name: item for name, item in items.items() if name != about["name"]}
            else:
                continue
            self._set_bundles(items, f"{about['resourceVersion']}{event.type}")

    def _set_bundles(self, items: Mapping[str, Object], version: str) -> None:
        self._set(_ALL_BUNDLES, {"metadata": {"resourceVersion": version}, "items": items})

    async def _look(self, resource: Resource, reference: Reference, selection: Selection) -> None:
        found = await self._client.list(resource, selection)
        self._set(reference, found.items[0] if found.items else None)
        version = found.resource_version
        if len(self._followed) > _MOST_WATCHED:
            # Each watch is a connection: beyond so many, the rest is looked at now and then.
            await asyncio.sleep(_LOOK_SELDOM)
            return
        async for event in self._client.watch(resource, selection, after=version):
            match event.type:
                case "ADDED" | "MODIFIED":
                    self._set(reference, event.object)
                case "DELETED":
                    self._set(reference, None)
                case _:
                    pass

    def _set(self, reference: Reference, value: Object | None) -> None:
        followed = self._followed.get(reference)
        if followed is None:
            return
        before, followed.value = followed.value, value
        first = not followed.ready.is_set()
        followed.ready.set()
        if first or _version(before) == _version(value):
            return
        for uid in followed.users:
            self._changed(uid)

    async def token(self, pod: Object, audience: str, seconds: int) -> tuple[str, float]:
        """A service account token bound to the pod, and when (epoch) to ask for the next."""
        meta_ = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        key = (meta_["uid"], meta_["namespace"], account, audience, seconds)
        now = self._clock().timestamp()
        known = self._tokens.get(key)
        if known is not None and now < known.refresh_at:
            return known.text, known.refresh_at
        try:
            token = await self._request(pod, account, audience, seconds)
        except (StatusError, Unreachable):
            if known is None or now >= known.expires_at:
                raise
            return known.text, now + 30  # the old one still works
        self._tokens[key] = token
        return token.text, token.refresh_at

    def clock_was_set(self) -> None:
        """Tokens are asked for anew: what their times said is of another clock."""
        for token in self._tokens.values():
            token.refresh_at, token.expires_at = 0.0, math.inf

    async def _request(self, pod: Object, account: str, audience: str, seconds: int) -> _Token:
        meta_ = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta_["name"], "uid": meta_["uid"]}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": meta_["namespace"]},
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": bound,
            },
        }
        now = self._clock().timestamp()
        answer = await self._client.create(
            SERVICE_ACCOUNTS, body, subresource="token", name=account
        )
        status = answer["status"]
        expires = meta.parse_time(status["expirationTimestamp"]).timestamp()
        life = expires - now
        refresh = now + min(life * _REFRESH, _LONG_TOKEN.total_seconds())
        return _Token(status["token"], refresh, expires)


def _version(value: Object | None) -> str:
    return "" if value is None else str(value["metadata"].get("resourceVersion", ""))


def values_of(obj: Object) -> dict[str, bytes]:
    """A config map's data and binaryData, or a secret's data, as bytes."""
    if obj.get("kind") == "Secret" or "type" in obj:
        return {k: base64.b64decode(v) for k, v in (obj.get("data") or {}).items()}
    plain = {k: v.encode() for k, v in (obj.get("data") or {}).items()}
    binary = {k: base64.b64decode(v) for k, v in (obj.get("binaryData") or {}).items()}
    return plain | binary
