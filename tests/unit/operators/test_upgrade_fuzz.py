"""Whatever somebody writes into a plan or a channel is read or refused; nothing raises."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.upgrade import cattleplan, drainplan, jobplan
from operators.upgrade.base import OfferError
from operators.upgrade.channels import listing
from operators.upgrade.checks import objects, stream

EXAMPLES = 50
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=4,
)


def shaped(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with fields of these names, of whatever kind."""
    inner = st.dictionaries(st.sampled_from(names), JSON, max_size=6)
    return st.dictionaries(st.sampled_from(names), JSON | inner | st.lists(inner, max_size=2))


CHECK = shaped(
    *("name", "http", "tcp", "exec", "cel", "pods", "timeoutSeconds", "url", "host", "port"),
    *("namespace", "selector", "podSelector", "command", "expression", "kind", "apiVersion"),
    *("headers", "expectedStatus", "caBundle", "matchLabels", "matchExpressions", "container"),
)
DRAIN = shaped("enabled", "force", "podSelector", "timeoutSeconds", "matchLabels", "values", "key")
TEMPLATE = shaped("image", "args", "env", "volumes", "secrets", "prepare", "name", "tolerations")
PLAN = shaped(
    *("channel", "version", "nodeSelector", "drain", "timeout", "upgrade", "image", "prepare"),
    *("window", "days", "startTime", "endTime", "timeZone", "concurrency", "postCompleteLabels"),
    *("postCompleteDelay", "secrets", "args", "podSelector", "matchExpressions", "gracePeriod"),
)
CHANNEL = shaped("schema", "name", "serial", "latest", "expires", "releases", "version", "bundles")


def are_lines(found: list[str]) -> None:
    assert all(": " in line for line in found)


@settings(max_examples=EXAMPLES)
@given(st.lists(CHECK | JSON, max_size=3))
def test_checks_are_read_or_refused(items: list[Any]) -> None:
    found = objects.validate(items)
    are_lines(found)
    if not found:
        for item in items:
            objects.parse(objects.substituted(item, name="pi", ip="::1"))


@settings(max_examples=EXAMPLES)
@given(DRAIN)
def test_options_of_a_drain_are_read_or_refused(options: dict[str, Any]) -> None:
    found = drainplan.validate(options)
    are_lines(found)
    if not found:
        drainplan.parse(options)


@settings(max_examples=EXAMPLES)
@given(TEMPLATE)
def test_templates_of_jobs_are_read_or_refused(template: dict[str, Any]) -> None:
    found = jobplan.validate(template)
    are_lines(found)
    if not found:
        plan = {"metadata": {"name": "a", "uid": "b"}, "spec": {"jobTemplate": template}}
        json.dumps(jobplan.job(plan, "node", "v1", "ops"))


@settings(max_examples=EXAMPLES)
@given(PLAN | st.none(), st.dictionaries(st.just(cattleplan.CHANNEL), st.text(max_size=20)))
def test_plans_of_the_controller_are_read_or_refused(
    spec: dict[str, Any] | None, annotations: dict[str, str]
) -> None:
    plan = {"metadata": {"name": "a", "annotations": annotations}, "spec": spec}
    found = cattleplan.translate(plan)
    assert bool(found.refused) != bool(found.spec)
    are_lines(list(found.refused))
    status = cattleplan.status(plan, None, found, waits="", now="2026-11-24T00:00:00Z")
    json.dumps({"spec": found.spec, "status": status})


@settings(max_examples=EXAMPLES)
@given(CHANNEL | JSON)
def test_channels_are_read_or_refused(document: Any) -> None:
    with suppress(OfferError):
        listing.parse(json.dumps(document).encode())


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=40))
def test_channels_of_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(OfferError):
        listing.parse(data)


@settings(max_examples=EXAMPLES)
@given(JSON | shaped("status", "details", "causes", "reason", "message", "metadata"))
def test_the_end_of_a_command_is_always_one(status: Any) -> None:
    found = stream.end_of(json.dumps(status).encode(), "said")
    assert found.error or isinstance(found.code, int)
