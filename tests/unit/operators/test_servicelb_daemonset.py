"""Where pods forward: the DaemonSets, and what is told of their pods."""

from ipaddress import ip_address
from typing import Any

import pytest

from operators.servicelb.daemonset import body_of, essence, found_of, name_of
from operators.servicelb.facts import NAME_LABEL, NAMESPACE_LABEL, Node, Pod, Service, pod_of
from operators.servicelb.plan import NO_NODE_PORTS, Plan, World, forwarded
from tests.fakes.operators_services import node, pod_body, service

NODE = node("n", "10.0.0.1")
TOLERATIONS = {"svccontroller.k3s.cattle.io/tolerations": "[{key: a, operator: Exists}]"}


def plan(*services: Service, nodes: tuple[Node, ...] = (NODE,), **more: Any) -> Plan:
    live = more.pop("live", ())
    world = World(services=services, nodes=nodes, local=more.pop("local", {}), **more)
    return forwarded(world, live, namespace="kube-system", image="img")


def body(thing: Service, nodes: tuple[Node, ...] = (NODE,), **more: Any) -> dict[str, Any]:
    [wanted] = plan(thing, nodes=nodes, **more).daemonsets.values()
    return body_of(wanted)


def forwarding(
    thing: Service, host: str, *, ready: bool = True, stuck: str = "", app: str = ""
) -> Pod:
    """A pod of the Service's DaemonSet."""
    namespace, _, name = thing.key.partition("/")
    ports = [f"{port.protocol}/{port.number}" for port in thing.ports]
    labels = {
        "app": app or name_of(thing),
        NAME_LABEL: name,
        NAMESPACE_LABEL: namespace,
    }
    made = pod_body(f"svclb-{name}-{host}", host, *ports, namespace="kube-system", labels=labels)
    made["status"]["conditions"] = [{"type": "Ready", "status": str(ready)}]
    if stuck:
        del made["spec"]["nodeName"]
        here = {"key": "metadata.name", "operator": "In", "values": [host]}
        terms = {"nodeSelectorTerms": [{"matchFields": [here]}]}
        affinity = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        made["spec"]["affinity"] = {"nodeAffinity": affinity}
        made["status"]["conditions"] += [
            {"type": "PodScheduled", "status": "False", "message": stuck}
        ]
    found = pod_of(made, "kube-system")
    assert found is not None
    return found


def test_the_name_is_cut_and_never_ends_in_a_hyphen_before_the_uid() -> None:
    assert name_of(service("web")) == "svclb-web-web-0123"
    long = "a" * 47 + "-" + "b" * 10
    assert name_of(service(long)) == f"svclb-{'a' * 47}-aaaaaaaa"


def test_labels_selector_and_pod_are_as_with_k3s() -> None:
    made = body(service("web", 80))
    assert made["metadata"] == {
        "name": "svclb-web-web-0123",
        "namespace": "kube-system",
        "labels": {
            "svccontroller.k3s.cattle.io/nodeselector": "false",
            "svccontroller.k3s.cattle.io/svcname": "web",
            "svccontroller.k3s.cattle.io/svcnamespace": "default",
        },
    }
    assert made["spec"]["selector"] == {"matchLabels": {"app": "svclb-web-web-0123"}}
    template = made["spec"]["template"]
    assert template["metadata"]["labels"]["app"] == "svclb-web-web-0123"
    assert template["spec"]["priorityClassName"] == "system-node-critical"
    assert template["spec"]["serviceAccountName"] == "svclb"
    assert template["spec"]["automountServiceAccountToken"] is False
    assert {t["key"] for t in template["spec"]["tolerations"]} == {
        "node-role.kubernetes.io/master",
        "node-role.kubernetes.io/control-plane",
        "CriticalAddonsOnly",
    }
    assert "nodeSelector" not in template["spec"]


def test_each_port_has_a_container() -> None:
    made = body(service("dns", 53, "UDP/53", loadBalancerSourceRanges=["10.0.0.0/8", "1.2.3.4/32"]))
    containers = made["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["lb-tcp-53", "lb-udp-53"]
    assert containers[1] == {
        "name": "lb-udp-53",
        "image": "img",
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {"name": "lb-udp-53", "containerPort": 53, "hostPort": 53, "protocol": "UDP"},
        ],
        "env": [
            {"name": "SRC_PORT", "value": "53"},
            {"name": "SRC_RANGES", "value": "10.0.0.0/8,1.2.3.4/32"},
            {"name": "DEST_PROTO", "value": "UDP"},
            {"name": "DEST_PORT", "value": "53"},
            {"name": "DEST_IPS", "value": "10.43.0.80"},
        ],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
    }


def test_with_the_local_policy_it_goes_to_the_node_port_of_the_same_node() -> None:
    made = body(service("web", 80, externalTrafficPolicy="Local"))
    env = {e["name"]: e for e in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["SRC_RANGES"]["value"] == "0.0.0.0/0"
    assert env["DEST_PORT"]["value"] == "30080"
    assert env["DEST_IPS"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.hostIPs"


def test_the_local_policy_without_node_ports_is_refused_by_name() -> None:
    ports = [{"port": 80, "protocol": "TCP"}]
    decided = plan(service("web", externalTrafficPolicy="Local", ports=ports))
    assert not decided.daemonsets
    assert [change.trouble.message for change in decided.changes] == [NO_NODE_PORTS]
    assert plan(service("web", ports=ports)).daemonsets


def test_what_cannot_be_understood_has_no_pods() -> None:
    wrong = {"service.beta.kubernetes.io/load-balancer-source-ranges": "everybody"}
    decided = plan(service("web", annotations=wrong), live=["svclb-web-web-0123"])
    assert (dict(decided.daemonsets), list(decided.obsolete)) == ({}, ["svclb-web-web-0123"])
    assert "everybody" in decided.changes[0].trouble.message


def test_labels_of_nodes_and_annotations_of_the_service_reach_the_pods() -> None:
    nodes = (node("a", enable="true", pool="left"), node("b"))
    annotations = {"svccontroller.k3s.cattle.io/priorityclassname": "mine", **TOLERATIONS}
    made = body(service("web", pool="left", annotations=annotations), nodes)
    spec = made["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {
        "svccontroller.k3s.cattle.io/enablelb": "true",
        "svccontroller.k3s.cattle.io/lbpool": "left",
    }
    assert made["metadata"]["labels"]["svccontroller.k3s.cattle.io/nodeselector"] == "true"
    assert spec["priorityClassName"] == "mine"
    assert spec["tolerations"][-1] == {"key": "a", "operator": "Exists"}


def test_nodes_whose_own_port_it_is_get_no_pod() -> None:
    nodes = (node("a", "10.0.0.1"), node("b", "10.0.0.2"))
    servers = frozenset({(ip_address("10.0.0.1"), 6443)})
    made = body(service("api", 6443), nodes, api_servers=servers)
    affinity = made["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]}
    decided = plan(service("api", 6443), nodes=nodes, api_servers=servers)
    [change] = decided.changes
    assert change.trouble.message == "the API server has TCP 6443 on a"


def test_what_the_server_fills_in_is_no_difference() -> None:
    made = body(service("web", 80, annotations=TOLERATIONS))
    live = body(service("web", 80, annotations=TOLERATIONS))
    live["metadata"] |= {"uid": "x", "resourceVersion": "7", "annotations": {"deprecated": "1"}}
    live["spec"] |= {"revisionHistoryLimit": 10}
    live["spec"]["template"]["metadata"]["creationTimestamp"] = None
    live["spec"]["template"]["spec"] |= {"dnsPolicy": "ClusterFirst", "securityContext": {}}
    live["spec"]["template"]["spec"]["containers"][0]["terminationMessagePath"] = "/dev/x"
    found = found_of(live)
    assert found is not None
    assert (found.essence, found.service) == (essence(made), "default/web")


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod.update(hostNetwork=True),
        lambda pod: pod["containers"][0]["env"].pop(),
        lambda pod: pod["containers"][0].update(image="other"),
        lambda pod: pod["tolerations"].pop(),
        lambda pod: pod.update(nodeSelector={"a": "b"}),
    ],
)
def test_what_somebody_else_changed_is_a_difference(change: Any) -> None:
    made, live = body(service()), body(service())
    change(live["spec"]["template"]["spec"])
    assert essence(live) != essence(made)


def test_another_ones_daemonset_is_none_of_ours() -> None:
    made = body(service())
    del made["metadata"]["labels"]["svccontroller.k3s.cattle.io/nodeselector"]
    assert found_of(made) is None


def test_addresses_are_those_of_nodes_with_a_ready_pod() -> None:
    nodes = tuple(node(name, f"10.0.0.{number}") for number, name in enumerate("abcd"))
    web = service()
    pods = [
        forwarding(web, "a"),
        forwarding(web, "b", ready=False),
        forwarding(web, "c", app="svclb-web-before"),
        forwarding(web, "away"),
    ]
    assert [c.addresses for c in plan(web, nodes=nodes, pods=pods).changes] == [("10.0.0.0",)]


def test_with_the_local_policy_the_node_has_an_endpoint_too() -> None:
    nodes = (node("a", "10.0.0.1"), node("b", "10.0.0.2"))
    web = service(externalTrafficPolicy="Local")
    pods = [forwarding(web, "a"), forwarding(web, "b")]
    decided = plan(web, nodes=nodes, pods=pods, local={"default/web": frozenset({"b"})})
    assert [change.addresses for change in decided.changes] == [("10.0.0.2",)]


def test_a_pod_without_a_place_names_who_has_its_port() -> None:
    web, other = service(), service("other", 80, created="0")
    words = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    pods = [forwarding(web, "n", stuck=words), forwarding(other, "n")]
    found = {c.service.key: c.trouble.message for c in plan(web, other, pods=pods).changes}
    assert found["default/web"] == "Service default/other has TCP 80 on n"
    rival = pod_of(pod_body("rival", "n", 80), "kube-system")
    assert rival is not None
    decided = plan(web, pods=[forwarding(web, "n", stuck=words), rival])
    [change] = decided.changes
    assert change.trouble.message == "Pod default/rival has TCP 80 on n"


def test_daemonsets_that_nobody_wants_are_obsolete() -> None:
    web = service()
    gone = service("gone", type="ClusterIP", published=("10.0.0.1",))
    live = ["svclb-web-web-0123", "svclb-gone-gone-012", "svclb-web-earlier0"]
    decided = plan(web, gone, live=live)
    assert list(decided.obsolete) == ["svclb-gone-gone-012", "svclb-web-earlier0"]
