"""The chart of the operators, rendered by Helm's own library."""

import tarfile
from pathlib import Path
from typing import Any

import helm_python
import operators_image
import pytest
import yaml
from operators_image import CHART, CHART_DEFINITIONS, DEFINITIONS

from operators import elsewhere

EVERYTHING = {"netpol": {"enabled": True}, "upgrade": {"enabled": True, "view": True}}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chart") / "pinnace-operators.tgz"
    path.write_bytes(operators_image.chart())
    return path


def rendered(packed: Path, **values: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Objects by kind and name."""
    with helm_python.Chart.load(str(packed)) as chart:
        files = chart.render(values, name="ops", namespace="there")
    documents = [
        document
        for path, text in files.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    return {(found["kind"], found["metadata"]["name"]): found for found in documents}


def container(workload: dict[str, Any]) -> dict[str, Any]:
    [found] = workload["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def told(workload: dict[str, Any], tmp_path: Path) -> elsewhere.Elsewhere:
    """What the program makes of the arguments that the chart gives."""
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("CA")
    environment = {
        entry["name"]: "n" for entry in container(workload)["env"] if "valueFrom" in entry
    }
    there = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"} | environment
    arguments = [*container(workload)["args"], f"--run-dir={tmp_path}"]
    return elsewhere.read(arguments, there, tmp_path)


def test_helm_finds_nothing_to_complain_about(packed: Path) -> None:
    report = helm_python.lint(str(packed), EVERYTHING, strict=True, namespace="there")
    assert report["total_charts_linted"] == 1, report
    worse = [m for m in report.get("messages") or () if "icon is recommended" not in str(m)]
    assert worse == []


def test_the_definitions_are_those_of_a_node(packed: Path) -> None:
    with tarfile.open(packed) as archive:
        there = [name for name in archive.getnames() if "/crds/" in name and name.endswith(".yaml")]
        assert len(there) == len(CHART_DEFINITIONS)
        for name in CHART_DEFINITIONS:
            member = archive.extractfile(f"pinnace-operators/crds/{name}")
            assert member is not None
            assert member.read() == (DEFINITIONS / name).read_bytes()


def test_the_program_takes_what_the_chart_gives(packed: Path, tmp_path: Path) -> None:
    found = rendered(packed, **EVERYTHING)
    central = told(found["Deployment", "ops-pinnace-operators"], tmp_path)
    assert central.election is not None
    assert central.election.name == "pinnace-operators"
    assert central.config.native is False
    node = told(found["DaemonSet", "ops-pinnace-operators-netpol"], tmp_path)
    assert node.config.operators == {"netpol"}
    assert node.election is None
    assert node.health == ("127.0.0.1", 9811)


@pytest.mark.parametrize("off", ["helm", "servicelb", "localpath"])
def test_each_operator_can_be_switched_off(packed: Path, off: str) -> None:
    found = rendered(packed, **{off: {"enabled": False}})
    deployment = found["Deployment", "ops-pinnace-operators"]
    [names] = [arg for arg in container(deployment)["args"] if arg.startswith("--operators=")]
    assert off not in names
    wanted = {"helm": "helm.cattle.io", "servicelb": "daemonsets", "localpath": "storageclasses"}
    assert wanted[off] not in str(found["ClusterRole", "there:ops-pinnace-operators"])


def test_upgrades_are_switched_on_by_hand(packed: Path) -> None:
    role = ("ClusterRole", "there:ops-pinnace-operators")
    binding = ("ClusterRoleBinding", "there:ops-pinnace-operators:upgrade")
    assert "upgradeplans" not in str(rendered(packed)[role])
    on = rendered(packed, upgrade={"enabled": True})
    assert "pods/eviction" in str(on[role])
    assert binding not in on
    assert rendered(packed, **EVERYTHING)[binding]["roleRef"]["name"] == "view"


def test_with_all_switched_off_nothing_is_left(packed: Path) -> None:
    off = {name: {"enabled": False} for name in ("helm", "servicelb", "localpath", "netpol")}
    assert rendered(packed, **off) == {}


def test_only_helm_makes_an_administrator(packed: Path) -> None:
    binding = ("ClusterRoleBinding", "there:ops-pinnace-operators:helm")
    assert rendered(packed)[binding]["roleRef"]["name"] == "cluster-admin"
    assert binding not in rendered(packed, helm={"clusterAdmin": False})
    assert binding not in rendered(packed, helm={"enabled": False})


def test_no_role_allows_everything(packed: Path) -> None:
    for (kind, name), found in rendered(packed, **EVERYTHING).items():
        if kind in {"Role", "ClusterRole"}:
            for rule in found["rules"]:
                assert "*" not in str(rule), name


def test_the_deployment_keeps_to_the_restricted_level(packed: Path) -> None:
    deployment = rendered(packed)["Deployment", "ops-pinnace-operators"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container(deployment)["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False


def test_two_that_act_without_a_lease_are_refused(packed: Path) -> None:
    with pytest.raises(helm_python.HelmError, match="replicaCount"):
        rendered(packed, replicaCount=2, leaderElection={"enabled": False})


@pytest.mark.parametrize(
    "values",
    [
        {"netpol": {"failure": "maybe"}},
        {"image": {"pullPolicy": "Sometimes"}},
        {"leaderElection": {"leaseDuration": "soon"}},
        {"heml": {"enabled": True}},
    ],
)
def test_a_value_that_is_none_is_refused(packed: Path, values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError):
        rendered(packed, **values)


def test_every_value_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.strip() and not line.strip().startswith("#"):
            assert lines[number - 1].strip().startswith("#"), line
