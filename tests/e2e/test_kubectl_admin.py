"""kubectl for those who run the cluster: certificates, jobs, tokens, descriptions, raw paths."""

import base64
import json
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.conftest import Space

BUSYBOX = "docker.io/library/busybox:1.35"


def signing_request(key: ec.EllipticCurvePrivateKey, name: str, group: str) -> dict[str, Any]:
    subject = [
        x509.NameAttribute(NameOID.COMMON_NAME, name),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, group),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
            "expirationSeconds": 86400,
        },
    }


def test_a_user_gets_a_certificate_and_logs_in_with_it(space: Space, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"jane-{space.name}"
    space.kubectl("create", "-f", "-", input=json.dumps(signing_request(key, name, "dev")))
    row = space.kubectl("get", "csr", name, "--no-headers").split()
    assert row[2:] == ["kubernetes.io/kube-apiserver-client", "system:admin", "24h", "Pending"]
    said = space.kubectl("certificate", "approve", name)
    assert said == f"certificatesigningrequest.certificates.k8s.io/{name} approved\n"
    space.until(lambda: space.value("csr", name, path="{.status.certificate}"))
    assert space.kubectl("get", "csr", name, "--no-headers").split()[-1] == "Approved,Issued"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    config = json.loads(space.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {
        "client-certificate-data": space.value("csr", name, path="{.status.certificate}"),
        "client-key-data": base64.b64encode(private).decode(),
    }
    file = tmp_path / "jane"
    file.write_text(json.dumps(config))
    asked = space.kubectl(f"--kubeconfig={file}", "auth", "whoami", "-o", "json")
    user = json.loads(asked)["status"]["userInfo"]
    assert (user["username"], user["groups"]) == (name, ["dev", "system:authenticated"])
    assert "Forbidden" in space.refused(f"--kubeconfig={file}", "get", "pods")


def test_a_denied_request_gets_no_certificate(space: Space) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"eve-{space.name}"
    space.kubectl("create", "-f", "-", input=json.dumps(signing_request(key, name, "dev")))
    space.kubectl("certificate", "deny", name)
    assert space.kubectl("get", "csr", name, "--no-headers").split()[-1] == "Denied"
    master = signing_request(key, f"root-{space.name}", "system:masters")
    said = space.refused("create", "-f", "-", input=json.dumps(master))
    assert "use of kubernetes.io/kube-apiserver-client signer with system:masters group" in said


def test_a_job_runs_to_completion_and_is_described(space: Space) -> None:
    space.kubectl("create", "job", "once", f"--image={BUSYBOX}", "--", "echo", "done")
    space.wait("job/once", "--for=condition=Complete")
    row = space.kubectl("get", "job", "once", "--no-headers").split()
    assert row[:3] == ["once", "Complete", "1/1"]
    assert space.kubectl("logs", "job/once") == "done\n"
    described = space.kubectl("describe", "job", "once")
    assert "Pods Statuses:    0 Active (0 Ready) / 1 Succeeded / 0 Failed" in described
    assert "Job completed" in described


def test_a_job_that_fails_too_often_is_failed(space: Space) -> None:
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "bad"},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{"name": "c", "image": BUSYBOX, "command": ["false"]}],
                }
            },
        },
    }
    space.apply(json.dumps(manifest))
    space.wait("job/bad", "--for=condition=Failed")
    reason = "{.status.conditions[?(@.type=='Failed')].reason}"
    assert space.value("job", "bad", path=reason) == "BackoffLimitExceeded"


def test_a_job_is_made_from_a_cron_job(space: Space) -> None:
    space.kubectl(
        "create", "cronjob", "yearly", f"--image={BUSYBOX}", "--schedule=0 0 1 1 *", "--", "true"
    )
    space.kubectl("create", "job", "now", "--from=cronjob/yearly")
    space.wait("job/now", "--for=condition=Complete")
    annotations = space.get("job", "now")["metadata"]["annotations"]
    assert annotations["cronjob.kubernetes.io/instantiate"] == "manual"


def test_a_token_in_a_secret_is_filled_in_and_the_secret_goes_with_its_account(
    space: Space,
) -> None:
    space.kubectl("create", "serviceaccount", "robot")
    annotation = {"kubernetes.io/service-account.name": "robot"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "robot", "annotations": annotation},
    }
    space.apply(json.dumps(secret))
    space.until(lambda: space.value("secret", "robot", path="{.data.token}"))
    assert "ca.crt:" in space.kubectl("describe", "secret", "robot")
    space.kubectl("delete", "serviceaccount", "robot")
    space.kubectl("wait", "secret/robot", "--for=delete", "--timeout=20s")


def test_a_token_bound_to_what_is_not_there_is_refused(space: Space) -> None:
    bound = ("--bound-object-kind=Pod", "--bound-object-name=ghost")
    assert space.refused("create", "token", "default", *bound) == (
        'error: failed to create token: pods "ghost" not found'
    )


def test_namespaces_services_and_nodes_are_described(space: Space) -> None:
    space.kubectl("create", "quota", "few", "--hard=configmaps=9")
    space.wait("quota/few", "--for=jsonpath={.status.used.configmaps}=1")
    described = space.kubectl("describe", "namespace", space.name)
    assert "Status:       Active" in described
    assert "  configmaps  1     9" in described
    service = space.node.kubectl("describe", "service", "kubernetes").stdout
    assert "Endpoints:                10.99.0.2:6443" in service
    node = space.node.kubectl("describe", "node", "pi").stdout
    assert "KubeletReady" in node
    assert "Kubelet Version:            v1.36." in node
    assert "Non-terminated Pods:" in node


def test_waiting_for_what_does_not_exist_yet(space: Space) -> None:
    with space.background("wait", "cm/late", "--for=create", "--timeout=20s") as waiting:
        space.kubectl("create", "configmap", "late")
        assert waiting.wait(timeout=20) == 0
    assert space.refused("wait", "cm/never", "--for=create", "--timeout=1s").startswith("error: ")


def test_the_kubelet_is_reached_through_the_server(space: Space) -> None:
    path = "/api/v1/nodes/pi/proxy"
    assert space.kubectl("get", "--raw", f"{path}/healthz") == "ok"
    summary = json.loads(space.kubectl("get", "--raw", f"{path}/stats/summary"))
    assert summary["node"]["nodeName"] == "pi"
    for page, series in (
        ("metrics", 'kubelet_node_name{node="pi"} 1'),
        ("metrics/resource", "node_cpu_usage_seconds_total"),
        ("metrics/cadvisor", "machine_cpu_cores"),
    ):
        assert series in space.kubectl("get", "--raw", f"{path}/{page}")
    assert "apiserver_request_total" in space.kubectl("get", "--raw", "/metrics")


def test_the_whole_state_can_be_dumped(space: Space, tmp_path: Path) -> None:
    target = tmp_path / "dump"
    space.kubectl("run", "web", "--image=pinnace.dev/hello:1")
    space.wait("pod/web", "--for=condition=Ready")
    space.kubectl(
        "cluster-info", "dump", f"--namespaces={space.name}", f"--output-directory={target}"
    )
    assert (target / "nodes.json").exists()
    assert (target / space.name / "web" / "logs.txt").exists()
