"""Pods' resources as systemd is told them, and D-Bus as it is written on the wire."""

from dataclasses import replace
from typing import Any

import pytest

from node.host import systemd
from node.host.dbus import Reader, Variant, Writer, parts
from node.host.systemd import INFINITY, Slice
from node.kubelet import cgroups
from tests.unit.kubelet.pods import SETTINGS, container, pod

ASKED = {"limits": {"cpu": "505m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "1Mi"}}
BURSTABLE = pod(container(resources=ASKED), meta={"uid": "a-b"}, status={"qosClass": "Burstable"})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Slice]:
    found: list[Slice] = []
    monkeypatch.setattr(systemd, "ensure", found.append)
    return found


@pytest.mark.parametrize(
    ("v2", "numbers"),
    [
        (True, {"CPUWeight": 4, "MemoryMax": 64 << 20, "CPUQuotaPerSecUSec": 510_000}),
        (False, {"CPUShares": 102, "MemoryLimit": 64 << 20, "CPUQuotaPerSecUSec": 510_000}),
    ],
)
def test_a_pod_gets_a_slice_of_its_class_with_its_limits(
    told: list[Slice], v2: bool, numbers: dict[str, int]
) -> None:
    cgroups.ensure_pod(BURSTABLE, replace(SETTINGS, cgroup_driver="systemd", cgroup_v2=v2))
    assert told == [Slice(name="kubepods-burstable-poda_b.slice", numbers=numbers)]


def test_a_limit_that_is_gone_is_taken_back(told: list[Slice]) -> None:
    settings = replace(SETTINGS, cgroup_driver="systemd", cgroup_v2=True)
    cgroups.ensure_pod(pod(), settings)
    (made,) = told
    assert made.numbers == {
        "CPUWeight": 1,
        "MemoryMax": INFINITY,
        "CPUQuotaPerSecUSec": INFINITY,
    }


def test_classes_are_weighed_by_what_their_pods_ask_for(told: list[Slice]) -> None:
    settings = replace(SETTINGS, cgroup_driver="systemd", cgroup_v2=True)
    cgroups.weigh_classes([BURSTABLE], settings)
    assert [(made.name, made.numbers["CPUWeight"]) for made in told] == [
        ("kubepods-besteffort.slice", 1),
        ("kubepods-burstable.slice", 4),
    ]


def test_containers_are_found_in_the_slice_of_their_pod() -> None:
    settings = replace(SETTINGS, cgroup_driver="systemd")
    top = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice"
    assert cgroups.of_container(BURSTABLE, "c1", settings) == f"{top}/cri-containerd-c1.scope"


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("", []),
        ("ssa(sv)a(sa(sv))", ["s", "s", "a(sv)", "a(sa(sv))"]),
        ("aaya{sv}u", ["aay", "a{sv}", "u"]),
    ],
)
def test_signatures_are_taken_apart(signature: str, expected: list[str]) -> None:
    assert list(parts(signature)) == expected


def test_values_are_aligned_as_the_specification_says() -> None:
    writer = Writer()
    writer.put("s", "ab")
    writer.put("a(sv)", [("c", Variant("t", 1))])
    assert bytes(writer.data) == (
        b"\x02\0\0\0ab\0\0"  # a string, and one byte to the next number
        b"\x18\0\0\0\0\0\0\0"  # the length of the array, and up to eight
        b"\x01\0\0\0c\0"
        b"\x01t\0\0\0\0\0\0\0\0"
        b"\x01\0\0\0\0\0\0\0"
    )


@pytest.mark.parametrize(
    ("signature", "value", "read"),
    [
        (
            "a(sv)",
            [("a", Variant("t", 1 << 40)), ("b", Variant("b", 1))],
            [("a", 1 << 40), ("b", 1)],
        ),
        ("as", ["x", "yz", ""], ["x", "yz", ""]),
        ("(yxd)", (1, -2, 0.5), (1, -2, 0.5)),
        ("a{su}", [("k", 7)], [("k", 7)]),
        ("ao", [], []),
    ],
)
def test_what_was_written_is_read_again(signature: str, value: Any, read: Any) -> None:
    writer = Writer()
    writer.put("y", 9)  # so that nothing is aligned by accident
    writer.put(signature, value)
    reader = Reader(bytes(writer.data), "<")
    assert reader.get("y") == 9
    assert reader.get(signature) == read
    assert reader.at == len(writer.data)
