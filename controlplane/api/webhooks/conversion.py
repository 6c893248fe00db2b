"""
Conversion of custom resources by the webhook of their definition.

Only where ``spec.conversion.strategy`` is Webhook; else a version differs from another
in its ``apiVersion`` alone. What a webhook may not change it cannot: of the metadata,
its answer counts for labels and annotations.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.api.call import Parts
from controlplane.api.webhooks.caller import Caller, CallError
from controlplane.client.base import Object
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind
from controlplane.objects.meta import uid as random_uid
from controlplane.objects.resources import CUSTOM_RESOURCE_DEFINITIONS

_SECONDS = 30.0
_THEIRS = ("labels", "annotations")


class WebhookConversion:
    """A :class:`~controlplane.api.call.Conversion`."""

    def __init__(self, parts: Callable[[], Parts], caller: Caller) -> None:
        self._parts = parts
        self._caller = caller

    async def convert(self, objects: Sequence[Object], to: Kind) -> Sequence[Object]:
        webhook = self._webhook(to)
        if webhook is None:
            return [{**obj, "apiVersion": to.api_version} for obj in objects]
        given = [obj for obj in objects if obj["apiVersion"] != to.api_version]
        if not given:
            return list(objects)
        converted = iter(await self._ask(webhook, given, to))
        return [o if o["apiVersion"] == to.api_version else next(converted) for o in objects]

    def _webhook(self, kind: Kind) -> Mapping[str, Any] | None:
        name = f"{kind.plural}.{kind.group}"
        definition = self._parts().cache.get(CUSTOM_RESOURCE_DEFINITIONS, "", name)
        conversion = ((definition or {}).get("spec") or {}).get("conversion") or {}
        webhook: Mapping[str, Any] = conversion.get("webhook") or {}
        return webhook if conversion.get("strategy") == "Webhook" else None

    async def _ask(
        self, webhook: Mapping[str, Any], given: Sequence[Object], to: Kind
    ) -> list[Object]:
        uid = random_uid(os.urandom(16))
        known = [v for v in webhook.get("conversionReviewVersions") or () if v in ("v1", "v1beta1")]
        api_version = f"apiextensions.k8s.io/{known[0] if known else 'v1'}"
        asked = {"uid": uid, "desiredAPIVersion": to.api_version, "objects": list(given)}
        body = {"kind": "ConversionReview", "apiVersion": api_version, "request": asked}
        try:
            client = webhook.get("clientConfig") or {}
            answer = await self._caller.post(client, body, seconds=_SECONDS)
        except CallError as err:
            text = str(err).removeprefix("failed to call webhook: ")
            raise _failed(given[0], text) from err
        return _converted(given, answer, uid=uid, to=to)


def _failed(obj: Object, why: str) -> StatusError:
    group = f"{obj['apiVersion']}, Kind={obj.get('kind', '')}"
    return StatusError(500, "", f"conversion webhook for {group} failed: {why}")


def _converted(
    given: Sequence[Object], answer: Mapping[str, Any], *, uid: str, to: Kind
) -> list[Object]:
    response = answer.get("response")
    if not isinstance(response, Mapping):
        raise _failed(given[0], "no response provided")
    if response.get("uid") != uid:
        raise _failed(given[0], f'expected response.uid="{uid}", got "{response.get("uid")}"')
    result = response.get("result") or {}
    if result.get("status") != "Success":
        raise _failed(given[0], result.get("message") or "the webhook gave no reason")
    objects = response.get("convertedObjects") or []
    if len(objects) != len(given):
        text = f"returned {len(objects)} objects, expected {len(given)}"
        raise _failed(given[0], text)
    return [_checked(old, new, to) for old, new in zip(given, objects, strict=True)]


def _checked(old: Object, new: Any, to: Kind) -> Object:
    """Raises where the answer is another object, or in another version."""
    if not isinstance(new, Mapping) or new.get("apiVersion") != to.api_version:
        got = new.get("apiVersion") if isinstance(new, Mapping) else new
        text = f"returned invalid converted object: expected {to.api_version}, got {got}"
        raise _failed(old, text)
    if new.get("kind") != old.get("kind"):
        raise _failed(old, f"returned invalid converted object: of kind {new.get('kind')}")
    before, after = old["metadata"], new.get("metadata") or {}
    for field in ("name", "namespace", "uid"):
        if after.get(field) != before.get(field):
            raise _failed(old, f"returned invalid metadata: {field} must not change")
    metadata = {k: v for k, v in before.items() if k not in _THEIRS}
    metadata |= {field: after[field] for field in _THEIRS if field in after}
    return {**new, "metadata": metadata}
