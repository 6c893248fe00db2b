"""Custom resources that a webhook converts between their versions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.webhooks.caller import Caller
from controlplane.api.webhooks.conversion import WebhookConversion
from controlplane.objects.definitions import definition_errors
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind
from controlplane.objects.resources import CUSTOM_RESOURCE_DEFINITIONS
from tests.fakes.api_server import serving
from tests.fakes.webhook import Webhook, webhook

V2 = Kind(
    group="example.com",
    version="v2",
    kind="Door",
    plural="doors",
    singular="door",
    namespaced=True,
    custom=True,
)
OLD: dict[str, Any] = {
    "apiVersion": "example.com/v1",
    "kind": "Door",
    "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"x": "y"}, "generation": 3},
    "spec": {"wide": 1},
}


def definition(hook: Webhook) -> dict[str, Any]:
    def version(name: str, *, storage: bool) -> dict[str, Any]:
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        schema = {"openAPIV3Schema": anything}
        return {"name": name, "served": True, "storage": storage, "schema": schema}

    conversion = {
        "strategy": "Webhook",
        "webhook": {"clientConfig": hook.client("/c"), "conversionReviewVersions": ["v1"]},
    }
    return {
        "metadata": {"name": "doors.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "doors", "kind": "Door", "singular": "door"},
            "versions": [version("v1", storage=True), version("v2", storage=False)],
            "conversion": conversion,
        },
    }


def converted(request: Mapping[str, Any]) -> dict[str, Any]:
    def one(obj: Mapping[str, Any]) -> dict[str, Any]:
        metadata = {**obj["metadata"], "annotations": {"was": obj["apiVersion"]}, "generation": 9}
        spec = {"width": obj["spec"]["wide"]}
        return {
            **obj,
            "apiVersion": request["desiredAPIVersion"],
            "metadata": metadata,
            "spec": spec,
        }

    objects = [one(obj) for obj in request["objects"]]
    return {"result": {"status": "Success"}, "convertedObjects": objects}


async def convert(folder: Path, answer: Any) -> Any:
    async with webhook(folder) as hook, serving() as served:
        hook.answers["/c"] = answer
        caller = Caller(lambda: served.parts)
        assert not definition_errors(definition(hook))
        await served.client.create(CUSTOM_RESOURCE_DEFINITIONS, definition(hook))
        there = {**OLD, "apiVersion": "example.com/v2"}
        try:
            conversion = WebhookConversion(lambda: served.parts, caller)
            return await conversion.convert([there, OLD], V2)
        finally:
            await caller.close()


async def test_the_webhook_converts_what_is_in_another_version(tmp_path: Path) -> None:
    there, one = await convert(tmp_path, converted)
    assert there["spec"] == {"wide": 1}
    assert one["apiVersion"] == "example.com/v2"
    assert one["spec"] == {"width": 1}
    assert one["metadata"]["annotations"] == {"was": "example.com/v1"}
    assert one["metadata"]["generation"] == 3  # not the webhook's to say


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"result": {"status": "Failure", "message": "too old"}}, "too old"),
        ({"result": {"status": "Success"}}, "returned 0 objects, expected 1"),
        ({"result": {"status": "Success"}, "convertedObjects": [OLD]}, "expected example.com/v2"),
        (
            {
                "result": {"status": "Success"},
                "convertedObjects": [
                    {**OLD, "apiVersion": "example.com/v2", "metadata": {"name": "b"}}
                ],
            },
            "name must not change",
        ),
        ({"uid": "other"}, "expected response.uid"),
    ],
)
async def test_what_is_no_conversion_is_told(
    tmp_path: Path, answer: dict[str, Any], words: str
) -> None:
    with pytest.raises(StatusError) as caught:
        await convert(tmp_path, lambda _request: answer)
    assert caught.value.code == 500
    head = "conversion webhook for example.com/v1, Kind=Door failed: "
    assert caught.value.message.startswith(head)
    assert words in caught.value.message
