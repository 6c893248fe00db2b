"""When a node is short, who goes first, and which pods take more than they may."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from node.kubelet import evict
from node.kubelet.evict import Reading, Taken
from node.kubelet.plan import StopAll, plan
from node.kubelet.status import Inputs, pod_status
from node.kubelet.usage import FileSystem, Tree
from node.kubelet.view import Memory, PodView, Waiting
from tests.unit.kubelet.pods import NOW, SETTINGS, container, pod, seen, view

MIB, GIB = 1 << 20, 1 << 30


def disk(available: int, capacity: int = 100 * GIB, free: int = 1000) -> FileSystem:
    used = capacity - available
    return FileSystem(
        capacity=capacity, available=available, used=used, inodes=1000, inodes_free=free
    )


def reading(
    memory: int = 4 * GIB,
    available: int = 2 * GIB,
    nodefs: FileSystem | None = None,
    imagefs: FileSystem | None = None,
) -> Reading:
    return Reading(
        memory=memory,
        memory_available=available,
        nodefs=nodefs or disk(50 * GIB),
        imagefs=imagefs,
    )


def short(of: Reading, *before: str) -> list[str]:
    return [signal.name for signal in evict.met(evict.signals(of), frozenset(before))]


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (reading(), []),
        (reading(available=101 * MIB), []),
        (reading(available=99 * MIB), ["memory.available"]),
        # A board of 512 MB does not have 100 MiB to leave idle.
        (reading(memory=512 * MIB, available=26 * MIB), []),
        (reading(memory=512 * MIB, available=25 * MIB), ["memory.available"]),
        (reading(nodefs=disk(4 * GIB)), ["nodefs.available"]),
        (reading(nodefs=disk(50 * GIB, free=49)), ["nodefs.inodesFree"]),
        (reading(imagefs=disk(4 * GIB)), ["imagefs.available"]),
    ],
)
def test_what_a_node_is_short_of(of: Reading, expected: list[str]) -> None:
    assert short(of) == expected


def test_a_disk_that_was_full_needs_a_tenth_more_to_be_well_again() -> None:
    assert short(reading(nodefs=disk(14 * GIB))) == []
    assert short(reading(nodefs=disk(14 * GIB)), "nodefs.available") == ["nodefs.available"]
    assert short(reading(nodefs=disk(16 * GIB)), "nodefs.available") == []


def test_a_condition_stays_for_five_minutes_whatever_the_clock_does() -> None:
    at: Mapping[str, datetime] = {evict.DISK: NOW}
    assert evict.conditions(at, NOW + timedelta(minutes=4)) == {evict.DISK}
    assert evict.conditions(at, NOW + timedelta(minutes=6)) == set()
    assert evict.conditions(at, NOW - timedelta(days=365)) == set()


def asking(memory: str = "10Mi", **spec: Any) -> dict[str, Any]:
    return pod(container(resources={"requests": {"memory": memory}}), **spec)


TOLERATION = {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}
CRITICAL = {"priority": 2_000_000_000}


@pytest.mark.parametrize(
    ("what", "held", "message"),
    [
        (pod(), [], None),
        (pod(), [evict.MEMORY], "The node had condition: [MemoryPressure]. "),
        (asking(), [evict.MEMORY], None),
        (pod(tolerations=[TOLERATION]), [evict.MEMORY], None),
        (asking(), [evict.DISK], "The node had condition: [DiskPressure]. "),
        (
            asking(),
            [evict.DISK, evict.MEMORY],
            "The node had condition: [DiskPressure MemoryPressure]. ",
        ),
        (pod(**CRITICAL), [evict.DISK], None),
    ],
)
def test_whom_a_node_under_pressure_takes(
    what: dict[str, Any], held: list[str], message: str | None
) -> None:
    expected = Waiting("Evicted", message) if message else None
    assert evict.refuse(what, frozenset(held)) == expected


def named(name: str, request: str, **spec: Any) -> dict[str, Any]:
    return asking(request, meta={"name": name, "uid": name}, **spec)


def test_the_greediest_of_the_least_important_goes_first() -> None:
    pods = [
        named("modest", "100Mi"),
        named("greedy", "10Mi"),
        named("greedier", "10Mi"),
        named("important", "10Mi", priority=1000),
        named("critical", "10Mi", priority=2_000_000_000),
    ]
    usage = {
        "modest": 50 * MIB,
        "greedy": 60 * MIB,
        "greedier": 90 * MIB,
        "important": 500 * MIB,
        "critical": 900 * MIB,
    }
    order = [p["metadata"]["name"] for p in evict.rank(pods, usage, "memory")]
    assert order == ["greedier", "greedy", "important", "modest"]


def test_the_message_names_the_containers_that_took_more_than_they_asked_for() -> None:
    (signal,) = evict.met(evict.signals(reading(available=50 * MIB)), frozenset())
    what = pod(
        container("big", resources={"requests": {"memory": "10Mi"}}),
        container("small", resources={"requests": {"memory": "10Mi"}}),
    )
    assert evict.message(what, signal, {"big": 20 * MIB, "small": MIB}) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container big was using 20Mi, request is 10Mi, has larger consumption of memory. "
    )


# -- a pod's own limits


def taken(volumes: Mapping[str, int] | None = None, **containers: int) -> Taken:
    trees = {name: Tree(used, 1) for name, used in containers.items()}
    whole = sum(containers.values()) + sum((volumes or {}).values())
    return Taken(volumes=volumes or {}, containers=trees, whole=whole)


def limited(*limits: str, **spec: Any) -> dict[str, Any]:
    made = [
        container(f"c{n}", resources={"limits": {"ephemeral-storage": limit}} if limit else {})
        for n, limit in enumerate(limits)
    ]
    return pod(*made, **spec)


def empty_dir(**source: Any) -> dict[str, Any]:
    return pod(volumes=[{"name": "scratch", "emptyDir": source}])


@pytest.mark.parametrize(
    ("what", "has", "expected"),
    [
        (empty_dir(sizeLimit="1Mi"), taken({"scratch": MIB}), None),
        (
            empty_dir(sizeLimit="1Mi"),
            taken({"scratch": MIB + 1}),
            ("emptydirfs.limit", 'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". '),
        ),
        (
            limited("10Mi", "10Mi"),
            taken({"scratch": 5 * MIB}, c0=8 * MIB, c1=8 * MIB),
            (
                "ephemeralpodfs.limit",
                "Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. ",
            ),
        ),
        (
            limited("10Mi", "1Gi"),
            taken(c0=11 * MIB, c1=0),
            (
                "ephemeralcontainerfs.limit",
                'Container c0 exceeded its local ephemeral storage limit "10Mi". ',
            ),
        ),
        (limited("10Mi", **CRITICAL), taken(c0=11 * MIB), None),
    ],
)
def test_a_pod_that_takes_more_than_it_may_is_told_which_limit(
    what: dict[str, Any], has: Taken, expected: tuple[str, str] | None
) -> None:
    assert evict.over_limit(what, has) == expected


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (pod(), False),
        (empty_dir(), False),
        (empty_dir(sizeLimit="1Mi"), True),
        (empty_dir(sizeLimit="1Mi", medium="Memory"), False),
        (empty_dir(sizeLimit="0"), False),
        (limited("", "1Mi"), True),
    ],
)
def test_pods_without_limits_are_never_looked_at(what: dict[str, Any], expected: bool) -> None:
    assert evict.is_limited(what) is expected


def test_headroom_is_what_the_tightest_limit_leaves() -> None:
    what = limited("10Mi", "3Mi")
    assert evict.headroom(what, taken(c0=4 * MIB, c1=MIB)) == 2 * MIB
    assert evict.headroom(what, taken(c0=20 * MIB)) == 0


# -- what becomes of it


def test_an_evicted_pod_has_a_second_and_fails_when_nothing_of_it_runs_any_more() -> None:
    what, memory = pod(container(), terminationGracePeriodSeconds=30), Memory()
    memory.evicted, memory.disrupted = Waiting("Evicted", "too much"), "too much"
    memory.evicted_grace = 1
    running = view(seen(container()))
    (step,) = plan(what, running, memory, NOW).steps
    assert isinstance(step, StopAll)
    assert step.grace == 1
    assert status_of(what, running, memory)["phase"] == "Running"
    after = status_of(what, PodView(), memory)
    assert (after["phase"], after["reason"], after["message"]) == ("Failed", "Evicted", "too much")
    (target,) = [c for c in after["conditions"] if c["type"] == "DisruptionTarget"]
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    assert target["message"] == "too much"


def status_of(what: dict[str, Any], has: PodView, memory: Memory) -> dict[str, Any]:
    return pod_status(
        Inputs(pod=what, view=has, memory=memory, waiting={}, settings=SETTINGS, now=NOW)
    )
