"""From a pod's words to what the runtime is told: environment, names, cgroups, users."""

import pytest

from node.cri.base import Image, NamespaceMode
from node.kubelet import env, naming, resources, spec
from node.kubelet.base import ConfigError
from tests.unit.kubelet.pods import SETTINGS, container, pod

IMAGE = Image(id="sha256:1", tags=("busybox:1",), digests=(), size=1)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("cost: $5", "cost: $5"),
    ],
)
def test_references_are_expanded(text: str, expanded: str) -> None:
    assert env.expand(text, {"A": "1"}) == expanded


def test_labels_become_lines() -> None:
    assert env.format_map({"b": 'q"\n', "a": "1"}) == 'a="1"\nb="q\\"\\n"'


def test_fields_of_the_pod_can_be_asked_for() -> None:
    wanted = pod(meta={"labels": {"app": "x"}}, serviceAccountName="sa", nodeName="n1")
    assert env.field(wanted, "metadata.labels['app']", SETTINGS) == "x"
    assert env.field(wanted, "spec.serviceAccountName", SETTINGS) == "sa"
    assert env.field(wanted, "status.podIPs", SETTINGS, ("a", "b")) == "a,b"
    with pytest.raises(ConfigError):
        env.field(wanted, "spec.nope", SETTINGS)


@pytest.mark.parametrize(
    ("resource", "divisor", "shown"),
    [
        ("limits.cpu", None, "1"),
        ("limits.cpu", "1m", "250"),
        ("requests.memory", "1Mi", "32"),
        ("limits.memory", "1Mi", "1024"),
    ],
)
def test_resources_are_divided_and_rounded_up(
    resource: str, divisor: str | None, shown: str
) -> None:
    limits = {"limits": {"cpu": "250m"}, "requests": {"memory": "32Mi"}}
    ref = {"resource": resource} | ({"divisor": divisor} if divisor else {})
    spec_ = container(resources=limits)
    assert env.resource_field(pod(spec_), spec_, ref, SETTINGS) == shown


def test_services_become_variables() -> None:
    service = {
        "metadata": {"name": "my-db", "namespace": "ns"},
        "spec": {"clusterIP": "10.43.0.7", "ports": [{"name": "sql", "port": 5432}]},
    }
    headless = {
        "metadata": {"name": "h", "namespace": "ns"},
        "spec": {"clusterIP": "None", "ports": [{"port": 1}]},
    }
    got = env.service_variables([service, headless], "ns", True)
    assert got["MY_DB_SERVICE_HOST"] == "10.43.0.7"
    assert got["MY_DB_SERVICE_PORT_SQL"] == "5432"
    assert got["MY_DB_PORT_5432_TCP"] == "tcp://10.43.0.7:5432"
    assert not [name for name in got if name.startswith("H_")]
    assert env.service_variables([service], "ns", False) == {}


def test_a_missing_key_is_named() -> None:
    wanted = container(
        env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    )
    with pytest.raises(ConfigError, match="couldn't find key k in Secret ns/s"):
        env.build(
            pod(wanted),
            wanted,
            services={},
            data={("secret", "s"): {}},
            ips=(),
            settings=SETTINGS,
        )


def test_whole_maps_become_variables_whatever_their_keys_are() -> None:
    wanted = container(envFrom=[{"prefix": "1-", "configMapRef": {"name": "m"}}])
    got = env.build(
        pod(wanted),
        wanted,
        services={},
        data={("configmap", "m"): {"data-1": b"x", "2.y": b"z"}},
        ips=(),
        settings=SETTINGS,
    )
    assert got == {"1-data-1": "x", "1-2.y": "z"}


MACHINE = naming.ResolvConf(("1.1.1.1",), ("home.lan",), ("timeout:2",))


@pytest.mark.parametrize(
    ("fields", "servers", "searches"),
    [
        ({}, "10.43.0.10", "ns.svc.cluster.local"),
        ({"dnsPolicy": "Default"}, "1.1.1.1", "home.lan"),
        ({"hostNetwork": True}, "1.1.1.1", "home.lan"),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            "10.43.0.10",
            "ns.svc.cluster.local",
        ),
        (
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["x"]}},
            "9.9.9.9",
            "x",
        ),
    ],
)
def test_the_dns_policy_chooses(fields: dict[str, object], servers: str, searches: str) -> None:
    got = naming.dns(pod(**fields), SETTINGS, MACHINE)
    assert (got[0][0], got[1][0]) == (servers, searches)


def test_dns_options_of_the_pod_win() -> None:
    config = {"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}
    assert naming.dns(pod(dnsConfig=config), SETTINGS, MACHINE)[2] == ("ndots:2", "edns0")


def test_the_hosts_file_names_the_pod_and_its_aliases() -> None:
    aliases = [{"ip": "1.2.3.4", "hostnames": ["foo", "bar"]}]
    wanted = pod(hostname="h", subdomain="s", hostAliases=aliases)
    text = naming.hosts_file(wanted, SETTINGS, ("10.42.0.9",), "")
    assert text.startswith("# Kubernetes-managed hosts file.\n")
    assert "10.42.0.9\th.s.ns.svc.cluster.local\th\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n1.2.3.4\tfoo\tbar\n")


def test_a_long_name_is_cut_for_the_kernel() -> None:
    wanted = pod(meta={"name": "x" * 62 + "-" + "y" * 10})
    assert naming.hostname(wanted, "n1") == "x" * 62


@pytest.mark.parametrize(
    ("limits", "qos", "score"),
    [
        ({}, "BestEffort", 1000),
        ({"limits": {"cpu": "1", "memory": "256Mi"}}, "Guaranteed", -997),
        ({"requests": {"memory": "256Mi"}}, "Burstable", 750),
        ({"requests": {"memory": "1Mi"}}, "Burstable", 999),
        ({"requests": {"memory": "1Gi"}}, "Burstable", 3),
    ],
)
def test_the_class_of_a_pod_sets_who_is_killed_first(
    limits: dict[str, object], qos: str, score: int
) -> None:
    spec_ = container(resources=limits)
    assert resources.qos_class(pod(spec_)) == qos
    assert resources.oom_score_adj(pod(spec_), spec_, SETTINGS.memory) == score


def test_cgroup_values_follow_requests_and_limits() -> None:
    limits = {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
    spec_ = container(resources=limits)
    got = resources.of_container(pod(spec_), spec_, SETTINGS)
    assert (got.cpu_shares, got.cpu_quota, got.memory_limit) == (256, 50_000, 64 << 20)
    whole = resources.of_pod(pod(spec_, container("d")))
    assert (whole.cpu_shares, whole.cpu_quota, whole.memory_limit) == (256, 0, 0)


def test_init_containers_raise_the_pods_request_only_by_their_peak() -> None:
    big = container("i", resources={"requests": {"cpu": "2"}})
    side = container("s", restartPolicy="Always", resources={"requests": {"cpu": "100m"}})
    main = container(resources={"requests": {"cpu": "500m"}})
    assert resources.pod_requests([pod(main, initContainers=[big, side])], "cpu") == 2000
    assert resources.pod_requests([pod(main, initContainers=[side])], "cpu") == 600


def test_systemd_gets_slices_and_cgroupfs_paths() -> None:
    from dataclasses import replace

    wanted = pod(meta={"uid": "a-b"})
    systemd = replace(SETTINGS, cgroup_driver="systemd")
    assert resources.cgroup_parent(wanted, systemd) == "kubepods-besteffort-poda_b.slice"
    assert resources.cgroup_parent(wanted, SETTINGS) == "/kubepods/besteffort/poda-b"


def config(wanted: dict[str, object], image: Image = IMAGE) -> object:
    given = spec.Given(image=image, env={"X": "1"}, mounts=())
    spec_ = wanted["spec"]["containers"][0]  # type: ignore[index]
    return spec.container_config(wanted, spec_, 0, given, settings=SETTINGS)


def test_a_container_may_not_be_root_when_that_is_forbidden() -> None:
    wanted = pod(securityContext={"runAsNonRoot": True})
    with pytest.raises(ConfigError, match="image will run as root"):
        config(wanted)
    named = Image(id="1", tags=(), digests=(), size=1, username="app")
    with pytest.raises(ConfigError, match="non-numeric user"):
        config(wanted, named)
    config(pod(securityContext={"runAsNonRoot": True, "runAsUser": 5}))


def test_commands_are_expanded_and_privileged_containers_unmasked() -> None:
    spec_ = container(command=["$(X)"], securityContext={"privileged": True})
    made = spec.container_config(
        pod(spec_), spec_, 2, spec.Given(image=IMAGE, env={"X": "1"}, mounts=()), settings=SETTINGS
    )
    assert made.command == ("1",)
    assert made.security.masked_paths == ()
    assert made.log_path == "c/2.log"


def test_a_sandbox_takes_ports_and_namespaces_from_the_pod() -> None:
    ports = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]
    wanted = pod(container(ports=ports), shareProcessNamespace=True)
    made = spec.sandbox_config(wanted, 1, SETTINGS, machine=MACHINE)
    assert [(p.container_port, p.host_port) for p in made.ports] == [(80, 8080)]
    assert made.namespaces.pid is NamespaceMode.POD
    assert made.log_directory == "/var/log/pods/ns_p_u1"
    on_host = spec.sandbox_config(pod(hostNetwork=True), 0, SETTINGS, machine=MACHINE)
    assert (on_host.hostname, on_host.namespaces.network) == ("", NamespaceMode.NODE)
