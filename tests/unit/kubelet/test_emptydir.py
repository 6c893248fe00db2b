"""How large an emptyDir in memory is, and of which pages one of huge pages."""

from dataclasses import replace
from typing import Any

import pytest

from node.kubelet.emptydir import memory_size, page_size
from tests.unit.kubelet.pods import SETTINGS, container, pod

MIB, GIB = 1 << 20, 1 << 30


def limited(*memory: str) -> dict[str, Any]:
    made = [
        container(f"c{n}", resources={"limits": {"memory": text}} if text else {})
        for n, text in enumerate(memory)
    ]
    return pod(*made)


@pytest.mark.parametrize(
    ("what", "source", "expected"),
    [
        (pod(), {}, GIB),
        (pod(), {"sizeLimit": "10Mi"}, 10 * MIB),
        (pod(), {"sizeLimit": "2Gi"}, GIB),
        (limited("64Mi", "32Mi"), {}, 96 * MIB),
        (limited("64Mi", "32Mi"), {"sizeLimit": "10Mi"}, 10 * MIB),
        (limited("64Mi", "32Mi"), {"sizeLimit": "1Gi"}, 96 * MIB),
        (limited("64Mi", ""), {}, GIB),
    ],
)
def test_memory_is_no_larger_than_what_the_pod_may_use(
    what: dict[str, Any], source: dict[str, Any], expected: int
) -> None:
    assert memory_size(what, source, SETTINGS) == expected


def test_where_nobody_knows_the_kernel_decides() -> None:
    assert memory_size(pod(), {}, replace(SETTINGS, allocatable={})) == 0


def paged(*sizes: str) -> dict[str, Any]:
    return pod(container(resources={"limits": {f"hugepages-{size}": "64Mi" for size in sizes}}))


@pytest.mark.parametrize(
    ("what", "medium", "expected"),
    [
        (paged("2Mi"), "HugePages", 2 * MIB),
        (paged("2Mi", "1Gi"), "HugePages-1Gi", GIB),
    ],
)
def test_pages_are_those_that_the_pod_asks_for(
    what: dict[str, Any], medium: str, expected: int
) -> None:
    assert page_size(what, medium) == expected


@pytest.mark.parametrize(
    ("what", "medium", "message"),
    [
        (pod(), "HugePages", "there is no resource request for huge pages"),
        (paged("2Mi"), "HugePages-1Gi", "there is no resource request for huge pages"),
        (paged("2Mi", "1Gi"), "HugePages", "multiple huge page sizes"),
    ],
)
def test_pages_that_nobody_asked_for_are_refused(
    what: dict[str, Any], medium: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        page_size(what, medium)
