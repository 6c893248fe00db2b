"""Charts from repositories, registries and addresses that the node reaches, and may not trust."""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from tests.charts.person import Person
from tests.e2e.conftest import Space
from tests.e2e.node import ROOT, Node


@pytest.fixture(scope="module")
def served(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Ports and certificates of repositories beside the node, in its network."""
    folder = str(tmp_path_factory.mktemp("served"))
    with subprocess.Popen(
        [*node.namespace.enter, sys.executable, "-m", "tests.charts.server", folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'image-build'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())
        server.communicate(timeout=10)


@pytest.fixture
def person(space: Space) -> Person:
    return Person(space)


def secret(name: str, kind: str = "Opaque", **texts: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name},
        "stringData": {key.replace("_", "."): text for key, text in texts.items()},
    }


def test_a_repository_gives_the_version_that_is_asked_for(
    person: Person, served: dict[str, Any]
) -> None:
    url = f"http://127.0.0.1:{served['plain']}/open"
    person.apply("web", of="", repo=url, chart="told")
    person.deployed("web", 1)
    # The newest that is no candidate.
    assert person.data("web")["version"] == "1.1.0"
    person.apply("web", of="", repo=url, chart="told", version="~1.0")
    person.deployed("web", 2)
    assert person.data("web")["version"] == "1.0.0"
    person.apply("web", of="", repo=url, chart="told", version="2.0.0-rc.1")
    person.deployed("web", 3)
    assert person.data("web")["version"] == "2.0.0-rc.1"
    row = person.space.kubectl("get", "hc", "web", "--no-headers").split()
    assert row[:5] == ["web", url, "told", "2.0.0-rc.1", "False"]
    # By its own address, and none that is there.
    person.apply("web", of="", chart=f"{url}/told-1.0.0.tgz")
    person.deployed("web", 4)
    assert person.data("web")["version"] == "1.0.0"
    person.apply("web", of="", repo=url, chart="told", version="3.x", backOffLimit=0)
    assert "3.x" in person.failed("web")["message"]
    assert person.last("web") == (4, "deployed")


def test_a_closed_repository_opens_to_those_who_are_known(
    person: Person, served: dict[str, Any]
) -> None:
    url = f"https://127.0.0.1:{served['tls']}/closed"
    common: dict[str, Any] = {"of": "", "repo": url, "chart": "told", "backOffLimit": 0}
    person.put(secret("known", "kubernetes.io/basic-auth", username="user", password="pass"))
    person.put(secret("unknown", username="user", password="wrong"))
    authority = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authority"}}
    person.put(authority | {"data": {"ca.crt": served["ca"]}})

    person.apply("web", **common, authSecret={"name": "known"})
    assert "certificate" in person.failed("web")["message"]
    person.apply("web", **common, repoCA=served["ca"], authSecret={"name": "unknown"})
    assert "401" in person.failed("web")["message"]
    person.apply("web", **common, repoCA=served["ca"], authSecret={"name": "known"})
    person.deployed("web", 1)

    # Other ways to the same chart are no upgrade.
    configured: dict[str, Any] = {"authSecret": {"name": "known"}, "authPassCredentials": True}
    person.apply("web", **common, **configured, repoCAConfigMap={"name": "authority"})
    person.deployed("web", 1)
    person.apply("other", **common, **configured, repoCAConfigMap={"name": "authority"})
    person.apply("blind", **common, **configured, insecureSkipTLSVerify=True)
    person.deployed("other", 1)
    person.deployed("blind", 1)


def test_a_repository_may_ask_for_a_certificate(person: Person, served: dict[str, Any]) -> None:
    url = f"https://127.0.0.1:{served['mutual']}/open"
    pair = {"tls_crt": served["ca"], "tls_key": served["key"]}
    person.put(secret("client", "kubernetes.io/tls", **pair))
    common: dict[str, Any] = {
        "of": "",
        "repo": url,
        "chart": "told",
        "repoCA": served["ca"],
        "backOffLimit": 0,
    }
    person.apply("web", **common)
    assert "/open/index.yaml" in person.failed("web")["message"]
    person.apply("web", **common, authSecret={"name": "client"})
    person.deployed("web", 1)


def test_a_registry_gives_a_chart(person: Person, served: dict[str, Any]) -> None:
    closed = f"127.0.0.1:{served['tls']}"
    auths = {"auths": {closed: {"auth": b64encode(b"user:pass").decode()}}}
    kind = "kubernetes.io/dockerconfigjson"
    person.put(secret("docker", kind, _dockerconfigjson=json.dumps(auths)))
    chart = f"oci://{closed}/closed/told"
    common: dict[str, Any] = {"of": "", "chart": chart, "repoCA": served["ca"], "backOffLimit": 0}
    person.apply("closed", **common)
    plain = f"oci://127.0.0.1:{served['plain']}/open/told"
    person.apply("plain", of="", chart=plain, version="1.0.0", plainHTTP=True)
    person.deployed("plain", 1)
    assert person.data("plain")["version"] == "1.0.0"
    person.failed("closed")
    person.apply("closed", **common, dockerRegistrySecret={"name": "docker"})
    person.deployed("closed", 1)
    assert person.data("closed")["version"] == "1.1.0"


def test_credentials_may_come_later(person: Person, served: dict[str, Any]) -> None:
    url = f"http://127.0.0.1:{served['plain']}/closed"
    person.apply("web", of="", repo=url, chart="told", authSecret={"name": "late"})
    assert "late" in person.says("web", "Ready", status="False", reason="Waiting")["message"]
    person.put(secret("late", username="user", password="pass"))
    person.deployed("web", 1)
