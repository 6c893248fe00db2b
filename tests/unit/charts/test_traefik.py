"""The chart traefik takes the values that people set on K3s, older names included."""

from typing import Any

import pytest
import yaml

from tests.unit.charts.conftest import ROOT, Draw, NotDrawn

Objects = list[dict[str, Any]]


def of(objects: Objects, kind: str, name: str = "traefik") -> dict[str, Any]:
    [found] = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def container(objects: Objects, kind: str = "Deployment") -> dict[str, Any]:
    return dict(of(objects, kind)["spec"]["template"]["spec"]["containers"][0])


def arguments(objects: Objects, kind: str = "Deployment") -> list[str]:
    found: list[str] = container(objects, kind)["args"]
    assert all(argument.startswith("--") for argument in found)
    return found


@pytest.fixture(scope="module")
def plain(draw: Draw) -> Objects:
    return draw("traefik")


def test_names_are_those_that_scripts_look_for(plain: Objects) -> None:
    selector = of(plain, "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector == {
        "app.kubernetes.io/name": "traefik",
        "app.kubernetes.io/instance": "traefik-kube-system",
    }
    assert of(plain, "Service")["spec"]["selector"] == selector
    assert of(plain, "IngressClass")["spec"]["controller"] == "traefik.io/ingress-controller"
    assert of(plain, "ClusterRole", "traefik-kube-system")


def test_nothing_is_asked_of_the_outside(plain: Objects) -> None:
    given = arguments(plain)
    assert "--global.checkNewVersion=false" in given
    assert "--global.sendAnonymousUsage=false" in given
    made = container(plain)
    assert made["image"].startswith("pinnace.dev/traefik:")
    # A pod whose image is missing says so, and asks no registry.
    assert made["imagePullPolicy"] == "Never"


def test_ports_addresses_and_providers_are_as_on_k3s(plain: Objects) -> None:
    service = of(plain, "Service")["spec"]
    assert service["type"] == "LoadBalancer"
    assert service["ipFamilyPolicy"] == "PreferDualStack"
    shown = {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]}
    assert shown == {"web": (80, "web"), "websecure": (443, "websecure")}
    given = arguments(plain)
    assert "--entryPoints.web.address=:8000/tcp" in given
    assert "--entryPoints.websecure.http.tls=true" in given
    published = "--providers.kubernetesIngress.ingressEndpoint.publishedService"
    assert f"{published}=kube-system/traefik" in given
    assert "--metrics.prometheus.entryPoint=metrics" in given


def test_it_runs_as_nobody_on_a_file_system_it_cannot_write(plain: Objects) -> None:
    pod = of(plain, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container(plain)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["priorityClassName"] == "system-cluster-critical"


# The example of K3s's documentation, "Customizing Packaged Components with HelmChartConfig".
K3S_EXAMPLE = """
image:
  repository: docker.io/library/traefik
  tag: 3.3.5
ports:
  web:
    forwardedHeaders:
      trustedIPs:
        - 10.0.0.0/8
"""


def test_the_example_of_k3s_means_the_same(draw: Draw) -> None:
    objects = draw("traefik", K3S_EXAMPLE)
    assert container(objects)["image"] == "docker.io/library/traefik:3.3.5"
    assert container(objects)["imagePullPolicy"] == "IfNotPresent"
    assert "--entryPoints.web.forwardedHeaders.trustedIPs=10.0.0.0/8" in arguments(objects)


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ("image: {tag: v3.5}", "docker.io/library/traefik:v3.5"),
        ("image: {repository: a/b}", "docker.io/a/b:"),
        ("image: {registry: ghcr.io, repository: a/b, digest: 'sha256:0'}", "ghcr.io/a/b@sha256:0"),
        ("global: {systemDefaultRegistry: 'reg.local:5000'}", "reg.local:5000/traefik:"),
    ],
)
def test_another_image_is_named_in_any_of_the_ways(draw: Draw, values: str, image: str) -> None:
    assert container(draw("traefik", values))["image"].startswith(image)


@pytest.mark.parametrize(
    "values",
    [
        "ports: {web: {redirectTo: websecure}}",
        "ports: {web: {redirectTo: {port: websecure}}}",
        "ports: {web: {redirections: {entryPoint: {to: websecure, permanent: true}}}}",
        "ports: {web: {http: {redirections: {entryPoint: {to: websecure, permanent: true}}}}}",
    ],
)
def test_a_redirection_leads_to_the_port_that_clients_see(draw: Draw, values: str) -> None:
    given = arguments(draw("traefik", values))
    prefix = "--entryPoints.web.http.redirections.entryPoint"
    assert {f"{prefix}.to=:443", f"{prefix}.scheme=https", f"{prefix}.permanent=true"} <= set(given)


MANY = """
deployment: {kind: DaemonSet, podAnnotations: {a: b}}
ports:
  metrics: null
  web: {hostPort: 80, nodePort: 30080, proxyProtocol: {trustedIPs: [10.0.0.1, 10.0.0.2]}}
  websecure:
    http3: {enabled: true}
    tls: {certResolver: le, domains: [{main: example.com, sans: [a.example.com, b.example.com]}]}
  dns: {port: 5353, expose: true, exposedPort: 53, protocol: UDP}
metrics: {prometheus: null}
logs:
  general: {level: DEBUG}
  access: {enabled: true, fields: {general: {defaultmode: drop}}, filters: {statuscodes: 500-599}}
certificatesResolvers: {le: {acme: {email: a@example.com, storage: /data/acme.json}}}
additionalArguments: ["--api.debug=true"]
globalArguments: ["--global.checknewversion"]
service:
  single: false
  annotations: {x: y}
  loadBalancerSourceRanges: [192.0.2.0/24]
  spec: {externalTrafficPolicy: Local}
ingressRoute: {dashboard: {enabled: true}}
tlsStore: {default: {defaultCertificate: {secretName: mine}}}
tlsOptions: {modern: {minVersion: VersionTLS13}}
persistence: {enabled: true, size: 1Gi}
providers: {kubernetesCRD: {allowCrossNamespace: true}, kubernetesIngress: {enabled: false}}
volumes: [{name: ca, mountPath: /ca, type: configMap}]
env: [{name: TZ, value: UTC}]
resources: {limits: {memory: 100Mi}}
nodeSelector: {disk: ssd}
tracing:
  otlp: {enabled: true, http: {enabled: true, endpoint: "http://c"}, grpc: {enabled: false}}
what-nobody-knows: {at: all}
"""


@pytest.fixture(scope="module")
def many(draw: Draw) -> Objects:
    return draw("traefik", MANY)


def test_values_become_flags_of_the_static_configuration(many: Objects) -> None:
    given = set(arguments(many, "DaemonSet"))
    assert given >= {
        "--accessLog.fields.defaultMode=drop",
        "--accessLog.filters.statusCodes=500-599",
        "--api.debug=true",
        "--certificatesResolvers.le.acme.email=a@example.com",
        "--entryPoints.dns.address=:5353/udp",
        "--entryPoints.web.proxyProtocol.trustedIPs=10.0.0.1,10.0.0.2",
        "--entryPoints.websecure.http.tls.certResolver=le",
        "--entryPoints.websecure.http.tls.domains[0].main=example.com",
        "--entryPoints.websecure.http.tls.domains[0].sans=a.example.com,b.example.com",
        "--entryPoints.websecure.http3=true",
        "--global.checknewversion",
        "--log.level=DEBUG",
        "--providers.kubernetesCRD.allowCrossNamespace=true",
        "--tracing.otlp.http.endpoint=http://c",
    }
    absent = ("metrics", "entryPoints.metrics", "providers.kubernetesIngress.", "tracing.otlp.grpc")
    assert not [flag for flag in given if flag.removeprefix("--").startswith(absent)]
    assert not [flag for flag in given if "enabled" in flag]


def test_each_protocol_has_a_service_when_asked_for(many: Objects) -> None:
    tcp, udp = of(many, "Service")["spec"], of(many, "Service", "traefik-udp")["spec"]
    assert [port["name"] for port in tcp["ports"]] == ["web", "websecure"]
    assert tcp["ports"][0]["nodePort"] == 30080
    names = {port["name"]: port["port"] for port in udp["ports"]}
    assert names == {"dns": 53, "websecure-http3": 443}
    for spec in (tcp, udp):
        assert spec["externalTrafficPolicy"] == "Local"
        assert spec["loadBalancerSourceRanges"] == ["192.0.2.0/24"]


def test_the_pod_has_what_the_values_add(many: Objects) -> None:
    made = container(many, "DaemonSet")
    assert made["resources"] == {"limits": {"memory": "100Mi"}}
    assert {"name": "TZ", "value": "UTC"} in made["env"]
    assert {"name": "GOMEMLIMIT", "value": "94371840B"} in made["env"]  # 0.9 of the limit
    assert {"name": "ca", "mountPath": "/ca", "readOnly": True} in made["volumeMounts"]
    template = of(many, "DaemonSet")["spec"]["template"]
    assert template["metadata"]["annotations"] == {"a": "b"}
    assert template["spec"]["nodeSelector"] == {"disk": "ssd"}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "traefik"}
    assert volumes["ca"]["configMap"] == {"name": "ca"}
    # The ports of the node are free only when the old pod is gone.
    strategy = of(many, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 1, "maxSurge": 0}


def test_objects_of_its_own_kinds_are_made(many: Objects) -> None:
    assert of(many, "TLSStore", "default")["spec"]["defaultCertificate"]["secretName"] == "mine"
    assert of(many, "TLSOption", "modern")["spec"] == {"minVersion": "VersionTLS13"}
    route = of(many, "IngressRoute", "traefik-dashboard")["spec"]
    assert route["entryPoints"] == ["traefik"]
    claim = of(many, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_ports_of_the_node_must_be_the_pods_own_on_its_network(draw: Draw) -> None:
    with pytest.raises(NotDrawn, match=r"ports\.web\.hostPort must be ports\.web\.port"):
        draw("traefik", "hostNetwork: true\nports: {web: {hostPort: 80}}")


def test_within_a_namespace_it_asks_for_no_more_than_that(draw: Draw) -> None:
    objects = draw("traefik", "rbac: {namespaced: true}")
    assert {o["kind"] for o in objects if "Role" in o["kind"]} == {"Role", "RoleBinding"}
    assert "--providers.kubernetesCRD.namespaces=kube-system" in arguments(objects)
    resources = {name for rule in of(objects, "Role")["rules"] for name in rule["resources"]}
    assert not resources & {"nodes", "namespaces", "ingressclasses"}


def test_what_is_the_users_own_is_taken_as_it_is(draw: Draw) -> None:
    objects = draw(
        "traefik",
        """
additionalArguments: ["--accesslog.format={{ .Method }}"]
serviceAccount: {name: mine}
experimental:
  localPlugins: {demo: {moduleName: example.com/demo, hostPath: /opt/demo, mountPath: /p}}
""",
    )
    given = arguments(objects)
    assert "--accesslog.format={{ .Method }}" in given
    assert [flag for flag in given if "demo" in flag] == [
        "--experimental.localPlugins.demo.moduleName=example.com/demo"
    ]
    assert not [item for item in objects if item["kind"] == "ServiceAccount"]
    pod = of(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "mine"
    assert {"name": "demo", "hostPath": {"path": "/opt/demo"}} in pod["volumes"]


def test_the_example_gives_what_it_says(draw: Draw) -> None:
    text = (ROOT / "examples" / "traefik-config.yaml").read_text()
    objects = draw("traefik", yaml.safe_load(text)["spec"]["valuesContent"])
    given = arguments(objects)
    assert "--entryPoints.web.http.redirections.entryPoint.to=:443" in given
    assert "--accessLog=true" in given
    assert of(objects, "Service")["spec"]["externalTrafficPolicy"] == "Local"
