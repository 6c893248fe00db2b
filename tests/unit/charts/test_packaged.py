"""What is packaged fits together: versions, addresses of charts, and the API's own rules."""

import itertools
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import coredns
import pytest
import traefik
import yaml

from charts import PACKAGED as CHARTS
from charts import file_name, write_packaged
from controlplane.client.base import PatchType
from controlplane.deploy.folder import PACKAGED
from controlplane.objects.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from tests.fakes.api_server import Served, follow_definitions, serving
from tests.unit.charts.conftest import ROOT, Draw

LINT = """
import json, sys, helm_python
print(json.dumps([helm_python.lint(path, strict=True)["errors"] for path in sys.argv[1:]]))
"""


def about(chart: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())
    return found


def test_each_chart_is_served_at_the_address_that_its_manifest_names() -> None:
    text = "".join(path.read_text() for path in PACKAGED.glob("*.yaml"))
    named = set(re.findall(r"https://%{KUBERNETES_API}%/static/charts/(\S+)", text))
    assert named == {file_name(ROOT / "charts" / name) for name in CHARTS}


def test_images_and_charts_are_of_one_version() -> None:
    assert about("traefik")["appVersion"] == about("traefik-crd")["appVersion"]
    assert about("traefik")["appVersion"] == traefik.version()
    assert about("coredns")["appVersion"] == coredns.VERSION


def test_packing_writes_what_is_new_and_removes_what_is_old(tmp_path: Path) -> None:
    (tmp_path / "traefik-0.0.1.tgz").touch()
    written = write_packaged(tmp_path)
    assert sorted(tmp_path.iterdir()) == written
    before = [path.stat().st_mtime_ns for path in written]
    assert [path.stat().st_mtime_ns for path in write_packaged(tmp_path)] == before


@pytest.mark.parametrize("chart", ["traefik", "coredns"])
def test_every_value_is_explained(chart: str) -> None:
    lines = (ROOT / "charts" / chart / "values.yaml").read_text().splitlines()
    item = None  # how far the entry of a list is indented: what is in it needs no words
    for above, line in itertools.pairwise(lines):
        indent = len(line) - len(line.lstrip())
        if line.lstrip().startswith("- "):
            item = indent
        elif line.strip() and not line.lstrip().startswith("#"):
            item = item if item is not None and indent > item else None
            assert item is not None or above.strip().startswith("#"), line


def test_helm_finds_nothing_wrong_with_them() -> None:
    if find_spec("helm_python") is None:
        pytest.skip("Helm's library has no wheel for this machine")
    folders = [str(ROOT / "charts" / name) for name in CHARTS]
    argv = [sys.executable, "-c", LINT, *folders]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [[] for _ in folders]


async def put(served: Served, item: dict[str, Any]) -> None:
    """Strictly: a field that the API does not know is an error."""
    kind = served.parts.kinds.by_kind(item["apiVersion"], item["kind"])
    assert kind is not None, item["kind"]
    meta = item["metadata"]
    namespace = meta.get("namespace", "default") if kind.namespaced else ""
    await served.client.patch(
        kind.resource,
        namespace,
        meta["name"],
        body=item,
        type=PatchType.APPLY,
        options={"fieldManager": "helm", "force": "true", "fieldValidation": "Strict"},
    )


@pytest.mark.parametrize(
    "values",
    [
        "",
        "autoscaling: {enabled: true, maxReplicas: 2}\npodDisruptionBudget: {enabled: true}",
        "ingressRoute: {dashboard: {enabled: true}, healthcheck: {enabled: true}}",
        "deployment: {kind: DaemonSet}\npersistence: {enabled: true}\nhostNetwork: true",
        "tlsOptions: {a: {sniStrict: true}}\nproviders: {file: {enabled: true, content: {a: {}}}}",
    ],
)
async def test_what_the_charts_give_is_taken_by_the_api(draw: Draw, values: str) -> None:
    async with serving() as served:
        follow_definitions(served)
        for name in ("default", "kube-system"):
            await served.client.create(NAMESPACES, {"metadata": {"name": name}})
        for definition in draw("traefik-crd"):
            await established(served, definition)
        for item in [*draw("traefik", values), *draw("coredns")]:
            await put(served, item)


async def established(served: Served, definition: dict[str, Any]) -> None:
    """Served, as the controller of definitions would have it."""
    await put(served, definition)
    found = await served.client.get(CUSTOM_RESOURCE_DEFINITIONS, "", definition["metadata"]["name"])
    status = {
        "conditions": [{"type": "Established", "status": "True", "reason": "x", "message": "x"}],
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": ["v1alpha1"],
    }
    await served.client.update(
        CUSTOM_RESOURCE_DEFINITIONS, {**found, "status": status}, subresource="status"
    )
    await served.parts.cache.wait_for(served.parts.cache.revision)
