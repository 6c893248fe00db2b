"""
MutatingAdmissionWebhook and ValidatingAdmissionWebhook: admission by other programs.

Mutating webhooks see the object one after the other, in the order of their
configurations' names; a change lets the built-in plugins look again, and those
webhooks that asked for it (``reinvocationPolicy: IfNeeded``). Validating webhooks
see the final object, all at once.
"""

import asyncio
import importlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from controlplane.api.admission.plugin import Plugin, refused
from controlplane.api.admission.versions import seen, take, versions_of
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.api.call import Parts
from controlplane.api.webhooks import rules
from controlplane.api.webhooks.asking import asker
from controlplane.api.webhooks.caller import Caller, CallError
from controlplane.api.webhooks.review import (
    Unusable,
    denial,
    described,
    review,
    verdict,
    version_of,
)
from controlplane.api.webhooks.rules import Hook
from controlplane.objects import patch
from controlplane.objects.errors import StatusError, bad_request, internal
from controlplane.objects.kinds import Kind, Resource
from controlplane.objects.meta import uid as random_uid
from controlplane.objects.resources import (
    MUTATING_WEBHOOK_CONFIGURATIONS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
)

LOG = logging.getLogger(__name__)
_WITHOUT_EFFECT = ("None", "NoneOnDryRun")


class _Failed(Exception):
    """No verdict; whether that refuses the request is the webhook's failure policy."""


class _Webhooks(Plugin):
    """What both kinds share."""

    configurations: Resource
    mutating: bool

    def __init__(self, parts: Callable[[], Parts], caller: Caller) -> None:
        self._parts = parts
        self._caller = caller

    def _concerned(self, request: AdmissionRequest) -> Sequence[Hook]:
        found = request.reads.list(self.configurations)
        return rules.hooks_of(found) if found and not rules.is_exempt(request) else ()

    async def _meets(self, hook: Hook, request: AdmissionRequest, kind: Kind) -> bool:
        """Its conditions; 403 where they have no value and failing means refusing."""
        conditions = hook.settings.get("matchConditions")
        if not conditions:
            return True
        cel = importlib.import_module("controlplane.objects.cel.conditions")
        obj, old = await seen(self._parts(), request, kind)
        variables = {
            "object": obj,
            "oldObject": old,
            "request": described(request, kind, obj),
            "authorizer": asker(self._parts().authorizer, request),
        }
        try:
            return bool(cel.all_true(conditions, variables))
        except cel.ConditionError as err:
            if hook.ignores_failure:
                return False
            raise refused(request, str(err)) from err

    async def _ask(self, hook: Hook, request: AdmissionRequest, kind: Kind) -> list[Any]:
        """The operations of the patch; raises the refusal, or :class:`_Failed`."""
        if request.dry_run and hook.settings.get("sideEffects") not in _WITHOUT_EFFECT:
            raise bad_request(f'admission webhook "{hook.name}" does not support dry run')
        uid = random_uid(os.urandom(16))
        try:
            version = version_of(hook.settings)
            obj, old = await seen(self._parts(), request, kind)
            body = review(request, kind, uid=uid, version=version, obj=obj, old=old)
            client = hook.settings.get("clientConfig") or {}
            answer = await self._caller.post(client, body, seconds=hook.seconds)
            said = verdict(answer, uid=uid, version=version, mutating=self.mutating)
        except Unusable as err:
            raise _Failed(f"received invalid webhook response: {err}") from err
        except CallError as err:
            raise _Failed(str(err)) from err
        request.warnings += said.warnings
        if not said.allowed:
            raise denial(hook.name, said.status)
        return said.patch


def _fail(hook: Hook, err: _Failed) -> None:
    """Raises the refusal, unless the webhook wants to be passed over."""
    if not hook.ignores_failure:
        raise internal(f'failed calling webhook "{hook.name}": {err}') from err
    LOG.warning("failed calling webhook %s, passing it over: %s", hook.name, err)


class MutatingWebhooks(_Webhooks):
    name = "MutatingAdmissionWebhook"
    configurations = MUTATING_WEBHOOK_CONFIGURATIONS
    mutating = True

    async def mutate(self, request: AdmissionRequest) -> None:
        again = request.again
        hooks = self._concerned(request)
        versions = versions_of(self._parts(), request.kind) if hooks else ()
        for hook in hooks:
            # Again only those that asked for it, and that had their turn before a change.
            if again is not None and hook.key not in again:
                continue
            kind = rules.kind_for(hook, request, versions)
            if kind is None or not await self._meets(hook, request, kind):
                continue
            try:
                operations = await self._ask(hook, request, kind)
            except _Failed as err:
                _fail(hook, err)
                operations = []
            if operations and await self._change(hook, request, kind, operations):
                request.asked_again |= request.called
            if hook.reinvocable:
                request.called.add(hook.key)

    async def _change(
        self, hook: Hook, request: AdmissionRequest, kind: Kind, operations: list[Any]
    ) -> bool:
        if request.object is None or request.operation is Operation.CONNECT:
            text = "attempted to modify the object, which is not supported for this operation"
            raise internal(f'admission webhook "{hook.name}" {text}')
        if request.subresource == "scale":
            raise internal(f'admission webhook "{hook.name}" attempted to modify a Scale')
        parts = self._parts()
        obj, _ = await seen(parts, request, kind)
        try:
            changed = patch.json_patch(obj or {}, operations)
            if not isinstance(changed, dict) or not isinstance(changed.get("metadata"), dict):
                raise internal("the patch of a webhook leaves no object")
            return await take(parts, request, kind, changed)
        except StatusError as err:
            raise internal(err.message.removeprefix("Internal error occurred: ")) from err


class ValidatingWebhooks(_Webhooks):
    name = "ValidatingAdmissionWebhook"
    configurations = VALIDATING_WEBHOOK_CONFIGURATIONS
    mutating = False

    async def validate(self, request: AdmissionRequest) -> None:
        hooks = self._concerned(request)
        if not hooks:
            return
        versions = versions_of(self._parts(), request.kind)
        concerned = [(h, kind) for h in hooks if (kind := rules.kind_for(h, request, versions))]
        asked = [
            self._verdict(hook, request, kind)
            for hook, kind in concerned
            if await self._meets(hook, request, kind)
        ]
        for refusal in await asyncio.gather(*asked, return_exceptions=True):
            if refusal is not None:
                raise refusal

    async def _verdict(self, hook: Hook, request: AdmissionRequest, kind: Kind) -> None:
        try:
            await self._ask(hook, request, kind)
        except _Failed as err:
            _fail(hook, err)
