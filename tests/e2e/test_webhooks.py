"""Admission webhooks and conversion webhooks, as kubectl sees them: a real server answers."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Space
from tests.fakes.tls import self_signed

# Refuses what is labelled so, marks everything else, and converts doors.
PROGRAM = """
import base64, http.server, json, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = review["request"]
        answer = {"uid": asked["uid"]}
        if self.path.startswith("/convert"):
            answer["result"] = {"status": "Success"}
            answer["convertedObjects"] = [
                {**o, "apiVersion": asked["desiredAPIVersion"], "spec": {"size": o["spec"]["wide"]}}
                for o in asked["objects"]
            ]
        elif self.path.startswith("/mark"):
            patch = [{"op": "add", "path": "/data/marked", "value": asked["userInfo"]["username"]}]
            answer |= {"allowed": True, "patchType": "JSONPatch", "warnings": ["it was marked"],
                       "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        else:
            forbidden = "no" in (asked["object"] or {}).get("data", {})
            answer["allowed"] = not forbidden
            answer["status"] = {"message": "the data say no", "code": 403}
        body = json.dumps({**review, "request": None, "response": answer}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""

HOOK = """
apiVersion: admissionregistration.k8s.io/v1
kind: {kind}WebhookConfiguration
metadata: {{name: {name}}}
webhooks:
- name: {name}.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {{url: "https://127.0.0.1:{port}/{path}", caBundle: {ca}}}
  namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}
  rules:
  - {{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}}
"""

DOORS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: doors.hooks.example.com}}
spec:
  group: hooks.example.com
  scope: Namespaced
  names: {{plural: doors, singular: door, kind: Door}}
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig: {{url: "https://127.0.0.1:{port}/convert", caBundle: {ca}}}
  versions:
  - name: v1
    served: true
    storage: true
    schema: &any {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
  - {{name: v2, served: true, storage: false, schema: *any}}
"""

DOOR = """
apiVersion: hooks.example.com/v1
kind: Door
metadata: {name: a}
spec: {wide: 3}
"""


@pytest.fixture
def server(space: Space, tmp_path: Path) -> Iterator[dict[str, object]]:
    """Where the webhook answers, and its authority, for the manifests above."""
    made = self_signed()
    path = made.write(tmp_path / "webhook.pem")
    process = subprocess.Popen(
        [*space.node.namespace.enter, sys.executable, "-c", PROGRAM, str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    bundle = base64.b64encode(made.certificate.encode()).decode()
    yield {"port": port, "ca": bundle, "namespace": space.name}
    process.kill()
    process.communicate()


def test_webhooks_change_and_refuse_what_kubectl_creates(
    space: Space, server: dict[str, object]
) -> None:
    names = [f"mark-{space.name}", f"judge-{space.name}"]
    kinds = ["Mutating", "Validating"]
    for kind, name in zip(kinds, names, strict=True):
        path = name.partition("-")[0]
        space.node.apply(HOOK.format(kind=kind, name=name, path=path, **server))
    done = space.run("create", "configmap", "yes", "--from-literal=a=b")
    assert "Warning: it was marked" in done.stderr
    assert space.value("configmap/yes", path="{.data.marked}") == "system:admin"
    said = space.refused("create", "configmap", "other", "--from-literal=no=1")
    words = f'admission webhook "{names[1]}.example.com" denied the request: the data say no'
    assert words in said
    space.kubectl("delete", "mutatingwebhookconfiguration", names[0])
    space.kubectl("delete", "validatingwebhookconfiguration", names[1])
    space.kubectl("create", "configmap", "other", "--from-literal=no=1")


def test_custom_resources_are_converted_by_their_webhook(
    space: Space, server: dict[str, object]
) -> None:
    space.node.apply(DOORS.format(**server))
    space.wait("crd/doors.hooks.example.com", "--for=condition=Established")
    space.apply(DOOR)
    read = space.value("doors.v2.hooks.example.com/a", path="{.apiVersion} {.spec.size}")
    assert read == "hooks.example.com/v2 3"
    read = space.value("doors.v1.hooks.example.com/a", path="{.apiVersion} {.spec.wide}")
    assert read == "hooks.example.com/v1 3"
    space.kubectl("delete", "crd", "doors.hooks.example.com")
