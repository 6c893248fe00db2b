"""Pod Security Standards: each check's words, versions, and the namespace's labels."""

from typing import Any

import pytest

from controlplane.api.admission.pod_security import PodSecurity, policy_of
from controlplane.api.admission.pod_security_checks import evaluate
from controlplane.api.base import Operation
from controlplane.objects.resources import DEPLOYMENTS, NAMESPACES, PODS
from tests.unit.auth.fake_objects import Objects
from tests.unit.auth.test_admission import admit, pod, refusal, request

SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def judge(level: str, spec: dict[str, Any], minor: int | None = None, **annotations: str) -> str:
    holder = {"metadata": {"annotations": annotations}}
    return ", ".join(str(v) for v in evaluate(level, minor, holder, spec))


def one(**container: Any) -> dict[str, Any]:
    return {"containers": [{"name": "a"} | container]}


def secured(**security: Any) -> dict[str, Any]:
    return one(securityContext=security)


BASELINE = [
    ({"hostNetwork": True, "hostPID": True}, "host namespaces (hostNetwork=true, hostPID=true)"),
    (
        {"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}]},
        'hostPath volumes (volumes "v", "w")',
    ),
    (one(ports=[{"hostPort": 80}]), 'hostPort (container "a" uses hostPort 80)'),
    (
        {
            "containers": [
                {"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]},
                {"name": "b", "ports": [{"hostPort": 80}]},
            ]
        },
        'hostPort (containers "a", "b" use hostPorts 443, 80)',
    ),
    (
        secured(privileged=True),
        'privileged (container "a" must not set securityContext.privileged=true)',
    ),
    (
        secured(capabilities={"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}),
        'non-default capabilities (container "a" must not include "NET_RAW", "SYS_ADMIN" in '
        "securityContext.capabilities.add)",
    ),
    (
        secured(procMount="Unmasked"),
        'procMount (container "a" must not set securityContext.procMount to "Unmasked")',
    ),
    (
        {"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u", "role": "r"}}},
        'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may '
        "not be set; role may not be set)",
    ),
    (
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}
        | secured(seccompProfile={"type": "Unconfined"}),
        'seccompProfile (pod and container "a" must not set securityContext.seccompProfile.type '
        'to "Unconfined")',
    ),
    (
        secured(appArmorProfile={"type": "Unconfined"}),
        'forbidden AppArmor profile (container "a" must not set AppArmor profile type to '
        '"Unconfined")',
    ),
    (
        {"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "x"}]}},
        "forbidden sysctls (kernel.msgmax, x)",
    ),
    (
        {"securityContext": {"windowsOptions": {"hostProcess": True}}},
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
    ),
    (
        one(livenessProbe={"httpGet": {"host": "10.0.0.1"}}),
        'probe or lifecycle host (container "a" uses probe or lifecycle host "10.0.0.1")',
    ),
]


@pytest.mark.parametrize(("spec", "text"), BASELINE)
def test_baseline_forbids_ways_to_the_node(spec: dict[str, Any], text: str) -> None:
    assert judge("baseline", spec) == text
    assert judge("privileged", spec) == ""


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, ""),
        (
            {"allowPrivilegeEscalation": None},
            'allowPrivilegeEscalation != false (container "a" must set '
            "securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            {"capabilities": {"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}},
            'unrestricted capabilities (container "a" must not include "CHOWN" in '
            "securityContext.capabilities.add)",
        ),
        (
            {"runAsNonRoot": None},
            'runAsNonRoot != true (pod or container "a" must set '
            "securityContext.runAsNonRoot=true)",
        ),
        (
            {"runAsNonRoot": False},
            'runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)',
        ),
        ({"runAsUser": 0}, 'runAsUser=0 (container "a" must not set runAsUser=0)'),
        (
            {"seccompProfile": None},
            'seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to '
            '"RuntimeDefault" or "Localhost")',
        ),
    ],
)
def test_restricted_asks_for_hardening(change: dict[str, Any], text: str) -> None:
    assert judge("restricted", secured(**SAFE | change)) == text


def test_restricted_allows_few_kinds_of_volumes() -> None:
    volumes = [{"name": "v", "nfs": {}}, {"name": "w", "hostPath": {}}, {"name": "x", "secret": {}}]
    assert judge("restricted", secured(**SAFE) | {"volumes": volumes}) == (
        'restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")'
    )


def test_a_bare_pod_fails_restricted_in_the_words_that_users_know() -> None:
    assert judge("restricted", one()) == (
        'allowPrivilegeEscalation != false (container "a" must set '
        "securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "
        '"a" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or '
        'container "a" must set securityContext.runAsNonRoot=true), seccompProfile (pod or '
        'container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")'
    )


def test_older_policies_know_less() -> None:
    probe = one(livenessProbe={"tcpSocket": {"host": "x"}})
    assert judge("baseline", probe, minor=33) == ""
    assert judge("baseline", probe, minor=99) == judge("baseline", probe)
    sysctl = {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}
    assert judge("baseline", sysctl, minor=31) == "forbidden sysctls (net.ipv4.tcp_rmem)"
    assert judge("baseline", sysctl, minor=32) == ""
    bad = judge("baseline", one(), 18, **{"seccomp.security.alpha.kubernetes.io/pod": "unconfined"})
    assert bad.startswith("seccompProfile (forbidden annotation seccomp.security")


def test_a_user_namespace_relaxes_root() -> None:
    spec = secured(**SAFE | {"runAsUser": 0, "runAsNonRoot": False}) | {"hostUsers": False}
    assert judge("restricted", spec) == ""
    assert "runAsUser=0" in judge("restricted", spec, minor=34)


def test_windows_pods_have_no_linux_hardening() -> None:
    assert judge("restricted", secured(runAsNonRoot=True) | {"os": {"name": "windows"}}) == ""


def namespace(**labels: str) -> Objects:
    objects = Objects()
    marks = {f"pod-security.kubernetes.io/{k.replace('_', '-')}": v for k, v in labels.items()}
    objects.put(NAMESPACES, {"metadata": {"name": "ns", "labels": marks}})
    return objects


def test_a_pod_that_violates_the_level_is_refused() -> None:
    asked = request(PODS, pod(hostNetwork=True), objects=namespace(enforce="baseline"))
    assert refusal(PodSecurity(), asked) == (
        'pods "web" is forbidden: violates PodSecurity "baseline:latest": host namespaces '
        "(hostNetwork=true)"
    )
    asked = request(
        PODS,
        pod(hostNetwork=True),
        objects=namespace(enforce="baseline", enforce_version="v1.30"),
    )
    assert 'PodSecurity "baseline:v1.30"' in refusal(PodSecurity(), asked)


def test_a_namespace_without_labels_lets_everything_in() -> None:
    asked = request(PODS, pod(hostNetwork=True), objects=namespace())
    assert admit(PodSecurity(), asked)
    assert asked.warnings == []


def test_what_makes_pods_is_warned_about_and_let_in() -> None:
    template = {"metadata": {}, "spec": pod(hostNetwork=True)["spec"]}
    deployment = {"metadata": {"name": "web"}, "spec": {"template": template}}
    for labels in ({"enforce": "baseline"}, {"warn": "baseline"}):
        asked = request(DEPLOYMENTS, deployment, objects=namespace(**labels))
        assert admit(PodSecurity(), asked)
        assert asked.warnings == [
            'would violate PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
        ]


def test_an_update_is_judged_only_when_it_changes_images() -> None:
    def update(image: str) -> Any:
        containers = [{"name": "c", "image": image}]
        new = pod(hostNetwork=True, containers=containers)
        old = pod(hostNetwork=True, containers=[{"name": "c", "image": "v1"}])
        objects = namespace(enforce="baseline")
        return request(PODS, new, old=old, objects=objects, operation=Operation.UPDATE)

    assert admit(PodSecurity(), update("v1"))
    assert "violates PodSecurity" in refusal(PodSecurity(), update("v2"))


def test_a_new_debug_container_is_judged() -> None:
    new = pod(ephemeralContainers=[{"name": "d", "securityContext": {"privileged": True}}])
    asked = request(
        PODS,
        new,
        old=pod(),
        objects=namespace(enforce="baseline"),
        operation=Operation.UPDATE,
        subresource="ephemeralcontainers",
    )
    assert "privileged" in refusal(PodSecurity(), asked)


def marked(**labels: str) -> dict[str, Any]:
    return dict(namespace(**labels).list(NAMESPACES)[0])


def test_labels_that_make_no_sense_are_refused() -> None:
    message = refusal(PodSecurity(), request(NAMESPACES, marked(enforce="strict")), 422)
    assert message.endswith(
        'metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be '
        "one of privileged, baseline, restricted"
    )
    message = refusal(PodSecurity(), request(NAMESPACES, marked(warn_version="1.2")), 422)
    assert 'must be "latest" or "v1.x"' in message


def test_wrong_labels_of_old_do_not_block_an_update_and_enforce_the_most() -> None:
    old = marked(enforce="strict")
    assert policy_of(old["metadata"]["labels"]).enforce.name == "restricted"
    asked = request(NAMESPACES, old, old=old, operation=Operation.UPDATE)
    assert admit(PodSecurity(), asked)


def test_a_stricter_level_warns_of_pods_that_run_already() -> None:
    objects = Objects()
    for name in ("web-1", "web-2", "web-3"):
        spec = {"hostNetwork": True}
        objects.put(PODS, {"metadata": {"namespace": "ns", "name": name}, "spec": spec})
    asked = request(
        NAMESPACES,
        marked(enforce="baseline"),
        old=marked(),
        objects=objects,
        operation=Operation.UPDATE,
    )
    assert admit(PodSecurity(), asked)
    assert asked.warnings == [
        'existing pods in namespace "ns" violate the new PodSecurity enforce level '
        '"baseline:latest"',
        "web-1 (and 2 other pods): host namespaces",
    ]
