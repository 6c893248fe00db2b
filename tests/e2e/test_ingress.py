"""Requests from outside find their way by host, path and certificate: the real Traefik."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Space, a_space, traefik_serves
from tests.e2e.node import ADDRESS, ROOT, Node
from tests.fakes.tls import SelfSigned, self_signed

WEB = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {{index.html: "this is {name}"}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: pinnace.dev/hello:1
    volumeMounts: [{{name: page, mountPath: /www}}]
    readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1}}
  volumes: [{{name: page, configMap: {{name: {name}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
"""

# One request by a client that trusts one authority: status, body, Location; or what went wrong.
ASK = """
import http.client, json, socket, ssl, sys
url, host, authority = json.loads(sys.argv[1])
scheme, _, rest = url.partition("://")
address, _, path = rest.partition("/")
address, _, port = address.partition(":")
tls = ssl.create_default_context(cadata=authority) if scheme == "https" else None
try:
    port = int(port or (443 if tls else 80))
    plain = socket.create_connection((address, port), timeout=5)
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.sock = tls.wrap_socket(plain, server_hostname=host) if tls else plain
    connection.request("GET", "/" + path, headers={"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    print(json.dumps([answer.status, body.strip(), answer.getheader("Location", "")]))
except OSError as err:
    print(json.dumps([0, str(err), ""]))
"""


def ask(node: Node, url: str, host: str, authority: str = "") -> tuple[int, str, str]:
    argument = json.dumps([url, host, authority])
    done = node.namespace.exec(sys.executable, "-c", ASK, argument)
    status, body, location = json.loads(done.stdout)
    return status, body, location


@pytest.fixture(scope="module")
def pages(ingress: Node) -> Iterator[Space]:
    """Two pods with a page each, behind the Services one and two."""
    with a_space(ingress) as made:
        made.apply("---".join(WEB.format(name=name) for name in ("one", "two")))
        made.wait("pod/one", "pod/two", "--for=condition=Ready")
        yield made


RULES = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: rules}
spec:
  rules:
  - host: one.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
      - {path: /index.html, pathType: Exact, backend: {service: {name: two, port: {name: http}}}}
  - host: "*.two.example.com"
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: two, port: {number: 80}}}}
"""


def test_an_ingress_routes_by_host_and_path_and_has_the_nodes_address(pages: Space) -> None:
    pages.apply(RULES)
    node, url = pages.node, f"http://{ADDRESS}"
    pages.until(lambda: ask(node, f"{url}/", "one.example.com")[:2] == (200, "this is one"))
    assert ask(node, f"{url}/index.html", "one.example.com")[:2] == (200, "this is two")
    assert ask(node, f"{url}/", "any.two.example.com")[:2] == (200, "this is two")
    assert ask(node, f"{url}/", "other.example.com")[0] == 404
    ingress = pages.get("ingress", "rules")
    assert ingress["spec"]["ingressClassName"] == "traefik"
    pages.until(lambda: pages.get("ingress", "rules")["status"]["loadBalancer"].get("ingress"))
    [entry] = pages.get("ingress", "rules")["status"]["loadBalancer"]["ingress"]
    assert entry["ip"] == ADDRESS
    pages.kubectl("delete", "ingress", "rules")
    pages.until(lambda: ask(node, f"{url}/", "one.example.com")[0] == 404)


def test_the_example_shows_a_page_by_its_host_name(pages: Space) -> None:
    example = (ROOT / "examples" / "ingress.yaml").read_text()
    pages.apply(example)

    def page() -> bool:
        status, body, _ = ask(pages.node, f"http://{ADDRESS}/", "page.example.com")
        return status == 200 and "Hello from Pinnace" in body

    pages.until(page)
    pages.kubectl("delete", "-f", "-", input=example)


SECURE = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: secure}
spec:
  tls: [{hosts: [safe.example.com], secretName: safe}]
  rules:
  - host: safe.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
"""


def test_a_secrets_certificate_is_shown_to_who_asks_for_its_host(
    pages: Space, tmp_path: Path
) -> None:
    def put(made: SelfSigned) -> None:
        (tmp_path / "crt").write_text(made.certificate)
        (tmp_path / "key").write_text(made.key)
        flags = (f"--cert={tmp_path}/crt", f"--key={tmp_path}/key", "--dry-run=client", "-o=yaml")
        pages.apply(pages.kubectl("create", "secret", "tls", "safe", *flags))

    def shown(authority: str) -> bool:
        answer = ask(pages.node, f"https://{ADDRESS}/", "safe.example.com", authority)
        return answer[:2] == (200, "this is one")

    first, second = self_signed("safe.example.com"), self_signed("safe.example.com")
    put(first)
    pages.apply(SECURE)
    pages.until(lambda: shown(first.certificate))
    put(second)
    pages.until(lambda: shown(second.certificate))
    assert not shown(first.certificate)


ROUTES = """
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: strip}
spec: {stripPrefix: {prefixes: [/shop]}}
---
apiVersion: traefik.io/v1alpha1
kind: TraefikService
metadata: {name: both}
spec: {weighted: {services: [{name: one, port: 80, weight: 0}, {name: two, port: http, weight: 1}]}}
---
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: shop}
spec:
  entryPoints: [web]
  routes:
  - match: Host(`shop.example.com`) && PathPrefix(`/shop`)
    kind: Rule
    middlewares: [{name: strip}]
    services: [{name: one, port: 80}]
  - match: Host(`both.example.com`)
    kind: Rule
    services: [{name: both, kind: TraefikService}]
---
apiVersion: traefik.io/v1alpha1
kind: TLSOption
metadata: {name: modern}
spec: {minVersion: VersionTLS13, clientAuth: {clientAuthType: NoClientCert}}
---
apiVersion: traefik.io/v1alpha1
kind: IngressRouteTCP
metadata: {name: mail}
spec:
  entryPoints: [websecure]
  routes: [{match: "HostSNI(`mail.example.com`)", services: [{name: one, port: 80}]}]
  tls: {options: {name: modern}}
"""


def test_routes_of_traefiks_own_kinds_work_and_wrong_ones_are_refused(pages: Space) -> None:
    pages.apply(ROUTES)
    node, url = pages.node, f"http://{ADDRESS}"
    shop = f"{url}/shop/index.html"
    pages.until(lambda: ask(node, shop, "shop.example.com")[:2] == (200, "this is one"))
    pages.until(lambda: ask(node, f"{url}/", "both.example.com")[:2] == (200, "this is two"))
    wrong = ROUTES.partition("---")[0].replace("prefixes: [/shop]", "prefixes: 1")
    told = pages.refused("apply", "-f", "-", input=wrong)
    assert "spec.stripPrefix.prefixes" in told
    unknown = ROUTES.partition("---")[0].replace("stripPrefix", "stripprefix")
    assert "unknown field" in pages.refused("apply", "-f", "-", input=unknown)


TCP = """
apiVersion: traefik.io/v1alpha1
kind: IngressRouteTCP
metadata: {name: plain}
spec:
  entryPoints: [mqtt]
  routes: [{match: "HostSNI(`*`)", services: [{name: two, port: 80}]}]
"""


def test_a_chart_config_in_the_manifests_folder_customises_it(pages: Space) -> None:
    ingress = pages.node
    pages.apply(TCP)
    file = ingress.data / "server" / "manifests" / "traefik-config.yaml"
    file.write_text((ROOT / "examples" / "traefik-config.yaml").read_text())
    url = f"http://{ADDRESS}/page"

    def redirects() -> bool:
        status, _, location = ask(ingress, url, "any.example.com")
        return (status, location) == (301, "https://any.example.com/page")

    ingress.until(redirects)
    pages.until(lambda: ask(ingress, f"http://{ADDRESS}:1883/", "any")[:2] == (200, "this is two"))
    arguments = container(ingress)["args"]
    assert "--entryPoints.web.forwardedHeaders.trustedIPs=10.0.0.0/8" in arguments
    file.unlink()
    ingress.kubectl("delete", "helmchartconfig", "traefik", "-n", "kube-system")
    ingress.until(lambda: not any("redirections" in text for text in container(ingress)["args"]))
    ingress.until(lambda: not redirects() and traefik_serves(ingress))


def container(node: Node) -> dict[str, list[str]]:
    deployment = node.get("deployment", "traefik", "-n", "kube-system")
    [found] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)
