"""A node writes about itself only."""

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from controlplane.api.admission.node_restriction import NodeRestriction
from controlplane.api.authorize import Masters
from controlplane.api.base import Operation, User
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import (
    CERTIFICATE_SIGNING_REQUESTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICE_ACCOUNTS,
)
from controlplane.pki.certificates import new_key
from tests.unit.auth.fake_objects import Objects
from tests.unit.auth.test_admission import admit, refusal, request

NODE = User(name="system:node:n1", groups=("system:nodes",))
LEASES = Resource("coordination.k8s.io", "v1", "leases", True)
PLUGIN = NodeRestriction(Masters())


def ask(resource: Resource, obj: dict[str, Any] | None, **more: Any) -> Any:
    return request(resource, obj, **{"user": NODE} | more)


def node(name: str = "n1", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def test_a_node_registers_itself_with_its_own_labels() -> None:
    labels = {"kubernetes.io/hostname": "n1", "node.kubernetes.io/x": "y", "team": "a"}
    assert admit(PLUGIN, ask(NODES, node(**labels)))
    assert 'is not allowed to modify node "n2"' in refusal(PLUGIN, ask(NODES, node("n2")))


@pytest.mark.parametrize(
    "label",
    ["node-role.kubernetes.io/control-plane", "x.node-restriction.kubernetes.io/a", "k8s.io/a"],
)
def test_a_node_does_not_give_itself_roles(label: str) -> None:
    assert refusal(PLUGIN, ask(NODES, node(**{label: ""}))) == (
        f'nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: {label}'
    )
    old = node(**{label: "x"})
    update = ask(NODES, node(), old=old, operation=Operation.UPDATE)
    assert f"is not allowed to modify labels: {label}" in refusal(PLUGIN, update)


def test_a_node_keeps_its_taints() -> None:
    old = node() | {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
    update = ask(NODES, node(), old=old, operation=Operation.UPDATE)
    assert "is not allowed to modify taints" in refusal(PLUGIN, update)


def cluster() -> Objects:
    objects = Objects()
    objects.put(NODES, node())
    for name, where in (("mine", "n1"), ("other", "n2")):
        projected = {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}
        volumes = [
            {"name": "a", "projected": projected},
            {"name": "b", "projected": {"sources": [{"serviceAccountToken": {}}]}},
        ]
        spec = {"nodeName": where, "volumes": volumes}
        objects.put(PODS, {"metadata": {"namespace": "ns", "name": name}, "spec": spec})
    return objects


def test_a_node_deletes_and_evicts_its_own_pods() -> None:
    for more in (
        {"operation": Operation.DELETE},
        {"operation": Operation.CREATE, "subresource": "eviction"},
    ):
        admit(PLUGIN, ask(PODS, None, name="mine", objects=cluster(), **more))
        assert "with spec.nodeName set to itself" in refusal(
            PLUGIN, ask(PODS, None, name="other", objects=cluster(), **more)
        )


def test_a_node_reports_on_its_own_pods_and_leaves_their_labels() -> None:
    def status(where: str, **labels: str) -> Any:
        old = {"metadata": {"name": "p"}, "spec": {"nodeName": where}}
        new = {**old, "metadata": {"name": "p", "labels": labels}, "status": {"phase": "Running"}}
        return ask(PODS, new, old=old, operation=Operation.UPDATE, subresource="status")

    assert admit(PLUGIN, status("n1"))
    assert "can only update pod status" in refusal(PLUGIN, status("n2"))
    assert "cannot update labels" in refusal(PLUGIN, status("n1", app="x"))


def mirror(**changes: Any) -> dict[str, Any]:
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "n1",
        "uid": "uid-n1",
        "controller": True,
    }
    metadata = {
        "name": "static-n1",
        "annotations": {"kubernetes.io/config.mirror": "x"},
        "ownerReferences": [owner | changes.pop("owner", {})],
    }
    return {
        "metadata": metadata | changes.pop("metadata", {}),
        "spec": {"nodeName": "n1"} | changes,
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"metadata": {"annotations": {}}}, "can only create mirror pods"),
        ({"nodeName": "n2"}, "with spec.nodeName set to itself"),
        ({"owner": {"name": "n2"}}, "with an owner reference set to itself"),
        ({"owner": {"uid": "old"}}, "UID mismatch"),
        ({"owner": {"controller": False}}, "a controller owner reference"),
        ({"serviceAccountName": "x"}, "can not create pods that reference serviceaccounts"),
    ],
)
def test_a_node_creates_mirror_pods_only(changes: dict[str, Any], text: str) -> None:
    asked = ask(PODS, mirror(**changes), objects=cluster())
    if text:
        assert text in refusal(PLUGIN, asked)
    else:
        assert admit(PLUGIN, asked)


@pytest.mark.parametrize(
    ("bound", "audiences", "text"),
    [
        ({}, [], ""),
        ({}, ["vault"], ""),
        ({}, ["other"], 'audience "other" not found in pod spec volume'),
        ({}, ["vault", "other"], "0 or 1 audiences"),
        ({"name": "other", "uid": "uid-other"}, [], "scheduled on a different node"),
        ({"uid": "old"}, [], "does not match the UID in record"),
        ({"uid": ""}, [], "without a uid"),
        ({"kind": "Secret"}, [], "not bound to a pod"),
    ],
)
def test_a_node_asks_for_the_tokens_of_its_pods(
    bound: dict[str, str], audiences: list[str], text: str
) -> None:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": "uid-mine"} | bound
    body = {"spec": {"boundObjectRef": reference, "audiences": audiences}}
    asked = ask(SERVICE_ACCOUNTS, body, name="bot", objects=cluster(), subresource="token")
    if text:
        assert text in refusal(PLUGIN, asked)
    else:
        assert admit(PLUGIN, asked)


def test_a_node_keeps_its_lease_in_its_place() -> None:
    asked = ask(LEASES, {"metadata": {"name": "n1"}})
    assert 'in the "kube-node-lease" system namespace' in refusal(PLUGIN, asked)
    asked.namespace = "kube-node-lease"
    assert admit(PLUGIN, asked)


def test_a_node_sets_the_size_of_claims_only() -> None:
    old = {"metadata": {"name": "c"}, "spec": {}, "status": {"phase": "Bound"}}
    grown = {**old, "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}}
    lost = {**old, "status": {"phase": "Lost"}}

    def update(new: dict[str, Any]) -> Any:
        more: dict[str, Any] = {"operation": Operation.UPDATE, "subresource": "status"}
        return ask(PERSISTENT_VOLUME_CLAIMS, new, old=old, **more)

    assert admit(PLUGIN, update(grown))
    assert "not allowed to update fields other than" in refusal(PLUGIN, update(lost))


def test_a_node_asks_for_its_own_certificate() -> None:
    def body(name: str) -> dict[str, Any]:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
        pem = csr.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.PEM)
        spec = {
            "signerName": "kubernetes.io/kubelet-serving",
            "request": base64.b64encode(pem).decode(),
        }
        return {"metadata": {"name": "csr"}, "spec": spec}

    assert admit(PLUGIN, ask(CERTIFICATE_SIGNING_REQUESTS, body("system:node:n1")))
    message = refusal(PLUGIN, ask(CERTIFICATE_SIGNING_REQUESTS, body("system:node:n2")))
    assert message.endswith("can only create a node CSR with CN=system:node:n1")


def test_others_are_not_its_business() -> None:
    assert admit(PLUGIN, request(NODES, node("n2", **{"node-role.kubernetes.io/x": ""})))
