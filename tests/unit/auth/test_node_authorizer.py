"""What a node may see and do, by the pods that run on it."""

from typing import Any

import pytest

from controlplane.api.base import Attributes, Decision, User
from controlplane.api.bootstrap_policy import node_rules
from controlplane.api.node_authorizer import NodeAuthorizer
from controlplane.objects.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
)
from tests.unit.auth.fake_objects import Objects

NODE = User(name="system:node:n1", groups=("system:nodes", "system:authenticated"))
SPEC = {
    "nodeName": "n1",
    "serviceAccountName": "bot",
    "imagePullSecrets": [{"name": "pull"}],
    "volumes": [
        {"name": "a", "secret": {"secretName": "mounted"}},
        {"name": "b", "configMap": {"name": "settings"}},
        {
            "name": "c",
            "projected": {"sources": [{"secret": {"name": "p1"}}, {"configMap": {"name": "p2"}}]},
        },
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "e", "ephemeral": {"volumeClaimTemplate": {}}},
    ],
    "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "init"}}]}],
    "containers": [
        {
            "name": "c",
            "envFrom": [{"configMapRef": {"name": "env"}}],
            "env": [
                {"name": "A", "value": "x"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}},
            ],
        }
    ],
}


def cluster(**metadata: Any) -> Objects:
    objects = Objects()
    objects.put(PODS, {"metadata": {"namespace": "ns", "name": "web", **metadata}, "spec": SPEC})
    other = {"nodeName": "n2", "volumes": [{"name": "a", "secret": {"secretName": "theirs"}}]}
    objects.put(PODS, {"metadata": {"namespace": "ns", "name": "far"}, "spec": other})
    objects.put(
        PERSISTENT_VOLUME_CLAIMS,
        {"metadata": {"namespace": "ns", "name": "data"}, "spec": {"volumeName": "pv1"}},
    )
    objects.put(
        PERSISTENT_VOLUMES,
        {
            "metadata": {"name": "pv1"},
            "spec": {"csi": {"nodeStageSecretRef": {"namespace": "csi", "name": "stage"}}},
        },
    )
    return objects


def may(objects: Objects, verb: str, what: str, *, user: User = NODE, **more: str) -> Any:
    resource, _, name = what.partition(" ")
    resource, _, subresource = resource.partition("/")
    asked = Attributes(
        user=user,
        verb=verb,
        resource=resource,
        subresource=subresource,
        name=name,
        **{"namespace": "ns"} | more,
    )
    return NodeAuthorizer(objects, node_rules()).authorize(asked)[0] is Decision.ALLOW


@pytest.mark.parametrize(
    "what",
    [
        "pods web",
        "secrets pull",
        "secrets mounted",
        "secrets p1",
        "secrets init",
        "secrets key",
        "configmaps settings",
        "configmaps p2",
        "configmaps env",
        "persistentvolumeclaims data",
        "persistentvolumeclaims web-e",
        "serviceaccounts bot",
    ],
)
def test_a_node_reads_what_its_pods_refer_to(what: str) -> None:
    assert may(cluster(), "get", what)
    assert not may(cluster(), "get", what, namespace="other")


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("get", "secrets theirs"),
        ("get", "pods far"),
        ("list", "secrets"),
        ("update", "secrets mounted"),
        ("list", "persistentvolumeclaims"),
        ("create", "serviceaccounts/token theirs"),
        ("get", "nodes n2"),
        ("list", "nodes"),
        ("delete", "nodes n1"),
        ("list", "pods"),
    ],
)
def test_a_node_sees_nothing_of_others(verb: str, what: str) -> None:
    assert not may(cluster(), verb, what)


def test_a_node_follows_a_claim_to_its_volume_and_secrets() -> None:
    assert may(cluster(), "get", "persistentvolumes pv1", namespace="")
    assert may(cluster(), "get", "secrets stage", namespace="csi")
    assert not may(cluster(), "get", "persistentvolumes pv2", namespace="")


def test_a_mirror_pod_opens_nothing() -> None:
    objects = cluster(annotations={"kubernetes.io/config.mirror": "x"})
    assert may(objects, "get", "pods web")
    assert not may(objects, "get", "secrets mounted")


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("create", "nodes"),
        ("get", "nodes n1"),
        ("patch", "nodes/status n1"),
        ("create", "pods"),
        ("patch", "pods/status web"),
        ("create", "pods/eviction web"),
        ("create", "serviceaccounts/token bot"),
        ("watch", "secrets mounted"),
        ("create", "events"),
        ("watch", "services"),
    ],
)
def test_a_node_does_its_work(verb: str, what: str) -> None:
    assert may(cluster(), verb, what)


def test_a_node_lists_pods_by_its_own_name() -> None:
    assert may(cluster(), "list", "pods", namespace="", field_selector="spec.nodeName=n1")
    assert may(cluster(), "watch", "pods", field_selector="a=b,spec.nodeName==n1")
    assert not may(cluster(), "list", "pods", field_selector="spec.nodeName=n2")
    assert not may(cluster(), "list", "pods", field_selector="spec.nodeName!=n1")


@pytest.mark.parametrize(
    ("what", "namespace", "allowed"),
    [
        ("leases n1", "kube-node-lease", True),
        ("leases n2", "kube-node-lease", False),
        ("leases n1", "default", False),
    ],
)
def test_a_node_keeps_its_own_lease(what: str, namespace: str, allowed: bool) -> None:
    group = "coordination.k8s.io"
    assert may(cluster(), "update", what, namespace=namespace, group=group) is allowed


def test_the_reason_says_why_not() -> None:
    asked = Attributes(user=NODE, verb="get", resource="secrets", namespace="ns", name="theirs")
    _, reason = NodeAuthorizer(cluster(), ()).authorize(asked)
    assert reason == "no relationship found between node 'n1' and this object"


def test_others_are_not_its_business() -> None:
    for user in (
        User(name="jane"),
        User(name="system:node:n1"),
        User(name="x", groups=("system:nodes",)),
    ):
        assert not may(cluster(), "get", "secrets mounted", user=user)
