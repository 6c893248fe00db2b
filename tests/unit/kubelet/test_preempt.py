"""Who goes so that a critical pod fits."""

from typing import Any

import pytest

from node.kubelet.admit import Room, missing, refuse
from node.kubelet.preempt import victims
from tests.unit.kubelet.pods import container, pod

CRITICAL = pod(
    container(resources={"requests": {"cpu": "500m"}}), meta={"uid": "vip"}, priority=2_000_000_000
)


def other(name: str, qos: str, cpu: str = "", **spec: Any) -> dict[str, Any]:
    made = container(resources={"requests": {"cpu": cpu}} if cpu else {})
    return pod(made, meta={"name": name, "uid": name}, status={"qosClass": qos}, **spec)


def going(*others: dict[str, Any], **short: int) -> list[str] | None:
    found = victims(CRITICAL, others, short)
    return None if found is None else [p["metadata"]["name"] for p in found]


@pytest.mark.parametrize(
    ("others", "short", "expected"),
    [
        ([other("a", "Burstable", "400m"), other("b", "Burstable", "200m")], 200, ["b"]),
        ([other("a", "Burstable", "400m"), other("b", "Burstable", "200m")], 500, ["a", "b"]),
        # A lesser class goes before a better one, whatever it frees.
        ([other("a", "Guaranteed", "500m"), other("b", "Burstable", "600m")], 500, ["b"]),
        ([other("a", "Guaranteed", "500m"), other("b", "Burstable", "100m")], 500, ["a"]),
        ([other("a", "Burstable", "100m")], 500, None),
        ([other("a", "Burstable", "900m", priority=2_000_000_000)], 500, None),
    ],
)
def test_as_few_as_will_do_and_the_least_first(
    others: list[dict[str, Any]], short: int, expected: list[str] | None
) -> None:
    assert going(*others, cpu=short) == expected


def test_where_there_are_too_many_pods_one_without_requests_goes() -> None:
    assert going(other("a", "Burstable", "1"), other("b", "BestEffort"), pods=1) == ["b"]


def test_what_is_missing_is_what_others_have_to_free() -> None:
    room = Room(node=None, allocatable={"cpu": "1"}, others=[other("a", "Burstable", "800m")])
    assert missing(CRITICAL, room) == {"cpu": 300}
    why = refuse(CRITICAL, room)
    assert why is not None
    assert why.reason == "OutOfcpu"
    assert refuse(CRITICAL, room, make_room=True) is None
