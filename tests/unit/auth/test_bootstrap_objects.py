"""The objects of a first start and of the next ones."""

import asyncio
import ipaddress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.api.admission.registry import default_admissions
from controlplane.api.admission.scheduling import PRIORITY_CLASSES
from controlplane.api.authorize import Masters
from controlplane.api.bootstrap_objects import ensure_bootstrap_objects, ensure_service_cidr
from controlplane.api.rbac import Rbac
from controlplane.objects.resources import CONFIG_MAPS, NAMESPACES, SERVICE_CIDRS
from controlplane.pki.ensure import Pki
from controlplane.pki.token import Token
from tests.unit.auth.fake_objects import Objects, Writer


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(
        tls_dir=tmp_path,
        agent_dir=tmp_path,
        token_file=tmp_path,
        admin_kubeconfig=tmp_path,
        token=Token(ca_hash="", password="x"),
        server_ca_pem=b"server",
        client_ca_pem=b"client",
        request_header_ca_pem=b"proxy",
        service_key_pem=b"",
        warnings=(),
    )


def start(objects: Objects, pki: Pki) -> list[tuple[str, str, str]]:
    objects.writes.clear()
    asyncio.run(ensure_bootstrap_objects(Writer(objects), objects, pki))
    return objects.writes


def test_a_first_start_makes_all_and_a_second_nothing(pki: Pki) -> None:
    objects = Objects()
    start(objects, pki)
    names = {n["metadata"]["name"] for n in objects.list(NAMESPACES)}
    assert names == {"default", "kube-system", "kube-public", "kube-node-lease"}
    values = {c["metadata"]["name"]: c["value"] for c in objects.list(PRIORITY_CLASSES)}
    assert values == {
        "system-node-critical": 2_000_001_000,
        "system-cluster-critical": 2_000_000_000,
    }
    assert start(objects, pki) == []


def test_extension_servers_learn_of_new_authorities(pki: Pki) -> None:
    objects = Objects()
    start(objects, pki)
    name = "extension-apiserver-authentication"
    found: Any = objects.get(CONFIG_MAPS, "kube-system", name)
    assert found["data"]["requestheader-client-ca-file"] == "proxy"
    assert orjson.loads(found["data"]["requestheader-allowed-names"]) == ["system:auth-proxy"]
    writes = start(objects, replace(pki, client_ca_pem=b"new"))
    assert writes == [("update", "configmaps", name)]
    found = objects.get(CONFIG_MAPS, "kube-system", name)
    assert found["data"]["client-ca-file"] == "new"


def test_the_network_of_services_is_told_once() -> None:
    objects = Objects()
    network = ipaddress.IPv4Network("10.43.0.0/16")
    at = datetime(2026, 1, 2, tzinfo=UTC)
    for _ in range(2):
        asyncio.run(ensure_service_cidr(Writer(objects), objects, network, at))
    assert [verb for verb, *_ in objects.writes] == ["create", "update"]
    found: Any = objects.get(SERVICE_CIDRS, "", "kubernetes")
    assert found["spec"] == {"cidrs": ["10.43.0.0/16"]}
    assert found["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-02T00:00:00Z"


def test_plugins_come_in_upstreams_order() -> None:
    objects = Objects()
    plugins = default_admissions(
        feed=objects, authorizer=Masters(), rbac=Rbac(objects), randomness=bytes
    )
    names = [plugin.name for plugin in plugins]
    assert len(set(names)) == len(names)
    upstream = ["NamespaceLifecycle", "LimitRanger", "ServiceAccount", "NodeRestriction"]
    assert names[:4] == upstream
    assert names.index("PodSecurity") < names.index("Priority") < names.index("RuntimeClass")
