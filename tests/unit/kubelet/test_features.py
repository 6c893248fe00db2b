"""What depends on the runtime: recursive read-only mounts, user namespaces, runtime classes."""

from dataclasses import replace
from typing import Any

import pytest

from node.cri.base import Features, Sandbox
from node.kubelet import naming, resources, spec
from node.kubelet.admit import Room, refuse
from node.kubelet.base import ConfigError, is_recursive_read_only
from node.kubelet.status import Inputs, pod_status
from node.kubelet.view import Memory
from tests.unit.kubelet.pods import NOW, SETTINGS, container, pod, sandbox, seen, view

MIB = 1 << 20
ABLE = Features(recursive_read_only=True)


@pytest.mark.parametrize(
    ("wanted", "features", "expected"),
    [
        (None, ABLE, False),
        ("Disabled", ABLE, False),
        ("IfPossible", ABLE, True),
        ("IfPossible", Features(), False),
        ("Enabled", ABLE, True),
    ],
)
def test_a_mount_is_read_only_all_the_way_down_where_the_runtime_can_do_that(
    wanted: str | None, features: Features, expected: bool
) -> None:
    mount = {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": wanted}
    assert is_recursive_read_only(mount, features) is expected


def test_what_the_runtime_cannot_do_is_refused_where_it_is_a_must() -> None:
    mount = {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Enabled"}
    with pytest.raises(ValueError, match="but it is not supported by the runtime"):
        is_recursive_read_only(mount, Features())


@pytest.mark.parametrize(("handler", "shown"), [("", "Disabled"), ("new", "Enabled")])
def test_the_status_tells_what_was_done_by_the_pods_runtime(handler: str, shown: str) -> None:
    mount = {
        "name": "v",
        "mountPath": "/v",
        "readOnly": True,
        "recursiveReadOnly": "IfPossible",
    }
    made = container(volumeMounts=[mount])
    box: Sandbox = replace(sandbox(), runtime_handler=handler)
    given = Inputs(
        pod=pod(made),
        view=view(seen(made), sandboxes=(box,)),
        memory=Memory(),
        waiting={},
        settings=replace(SETTINGS, handlers={"": Features(), "new": ABLE}),
        now=NOW,
    )
    (status,) = pod_status(given)["containerStatuses"]
    assert status["volumeMounts"] == [
        {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": shown}
    ]


@pytest.mark.parametrize(
    ("features", "refused"), [({"supplementalGroupsPolicy": True}, False), ({}, True)]
)
def test_strict_groups_are_for_runtimes_that_know_them(
    features: dict[str, Any], refused: bool
) -> None:
    strict = pod(securityContext={"supplementalGroupsPolicy": "Strict"})
    node = {"metadata": {"name": "n1"}, "status": {"features": features}}
    why = refuse(strict, Room(node=node, allocatable={}, others=()))
    assert (why is not None) is refused
    if why is not None:
        assert why.reason == "SupplementalGroupsPolicyNotSupported"


def config(what: dict[str, Any]) -> Any:
    return spec.sandbox_config(what, 0, SETTINGS, machine=naming.ResolvConf(), handler="kata")


def test_a_machine_for_the_pod_is_told_what_it_needs_and_what_it_may_keep() -> None:
    limits = {"limits": {"cpu": "1", "memory": "64Mi"}}
    made = config(pod(container(resources=limits), overhead={"cpu": "250m", "memory": "120Mi"}))
    assert made.runtime_handler == "kata"
    assert (made.resources.cpu_quota, made.resources.memory_limit) == (100_000, 64 * MIB)
    assert (made.overhead.cpu_quota, made.overhead.memory_limit) == (25_000, 120 * MIB)
    assert config(pod()).overhead is None


def test_the_cgroup_of_a_pod_holds_the_overhead_too() -> None:
    limits = {"limits": {"cpu": "1", "memory": "64Mi"}}
    what = pod(container(resources=limits), overhead={"cpu": "250m", "memory": "120Mi"})
    assert resources.of_pod(what).memory_limit == 184 * MIB
    assert resources.of_pod(what).cpu_quota == 125_000


def test_user_namespaces_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="does not support user namespaces"):
        config(pod(hostUsers=False))
