import pytest

from operators.helm import records
from operators.helm.base import Target
from operators.helm.removed import convert
from tests.fakes.operators_api import FakeApi, FakeHelm

OLD = """---
# Source: web/templates/a.yaml
apiVersion: policy/v1beta1
kind: PodDisruptionBudget
metadata:
  name: a
  annotations:
    text: |
      apiVersion: policy/v1beta1
---
# Source: web/templates/b.yaml
apiVersion: "networking.k8s.io/v1beta1"  # the old one
kind: 'Ingress'
metadata: {name: b}
---
apiVersion: policy/v1beta1
kind: PodSecurityPolicy
metadata: {name: gone}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data:
  example: |
    apiVersion: batch/v1beta1
    kind: CronJob
"""


def test_removed_versions_become_those_that_replaced_them() -> None:
    text = convert(OLD)
    assert "\napiVersion: policy/v1\nkind: PodDisruptionBudget" in text
    assert "apiVersion: networking.k8s.io/v1  # the old one\nkind: 'Ingress'" in text
    assert "PodSecurityPolicy" not in text
    # What only looks like one, inside of an object, is left as it is.
    assert "      apiVersion: policy/v1beta1\n" in text
    assert "    apiVersion: batch/v1beta1\n    kind: CronJob\n" in text
    assert convert(text) == text


@pytest.mark.parametrize(
    ("version", "kind", "expected"),
    [
        ("extensions/v1beta1", "Deployment", "apps/v1"),
        ("extensions/v1beta1", "Ingress", "networking.k8s.io/v1"),
        ("batch/v1beta1", "CronJob", "batch/v1"),
        ("autoscaling/v2beta2", "HorizontalPodAutoscaler", "autoscaling/v2"),
        ("flowcontrol.apiserver.k8s.io/v1beta3", "FlowSchema", "flowcontrol.apiserver.k8s.io/v1"),
        ("example.com/v1beta1", "Deployment", "example.com/v1beta1"),
    ],
)
def test_each_kind_has_its_own_successor(version: str, kind: str, expected: str) -> None:
    assert f"apiVersion: {expected}\n" in convert(f"apiVersion: {version}\nkind: {kind}\n")


@pytest.fixture(params=["secret", "configmap"])
def target(request: pytest.FixtureRequest) -> Target:
    return Target(name="web", namespace="apps", driver=request.param)


async def test_records_are_read_from_secrets_and_config_maps(target: Target) -> None:
    api = FakeApi()
    helm = FakeHelm(api)
    helm.put(target, 1, "superseded", {})
    helm.put(target, 2, "deployed", {}, chart={"metadata": {"name": "a", "version": "2"}})
    helm.put(Target(name="other", namespace="apps", driver=target.driver), 7, "deployed", {})
    assert [found.version for found in await records.history(api, target)] == [1, 2]
    details = await records.details(api, target, 2)
    assert details is not None
    assert (details.release.chart, details.release.status) == ("a-2", "deployed")
    assert await records.details(api, target, 3) is None


async def test_an_interrupted_record_is_marked_in_its_label_and_inside(target: Target) -> None:
    api = FakeApi()
    FakeHelm(api).put(target, 1, "pending-upgrade", {})
    await records.mark_failed(api, target, 1, "why")
    [found] = await records.history(api, target)
    details = await records.details(api, target, 1)
    assert details is not None
    assert (found.status, details.release.status, details.description) == (
        "failed",
        "failed",
        "why",
    )


async def test_the_newest_revisions_are_converted(target: Target) -> None:
    api = FakeApi()
    helm = FakeHelm(api)
    for revision in (1, 2, 3):
        helm.put(target, revision, "deployed", {}, manifest=OLD)
    assert await records.convert(api, target)
    assert not await records.convert(api, target)
    changed = [path.rpartition(".v")[2] for verb, path in api.writes if verb == "replace"]
    assert changed == ["2", "3"]
    found = records.decode(await api.get(helm.path(target, 3)), target.driver)
    assert found["manifest"] == convert(OLD)


async def test_only_a_record_that_is_none_is_dropped(target: Target) -> None:
    api = FakeApi()
    helm = FakeHelm(api)
    assert not await records.drop_unreadable(api, target)
    helm.put(target, 1, "deployed", {})
    assert not await records.drop_unreadable(api, target)
    helm.put(target, 2, "deployed", {})
    api.objects[helm.path(target, 2)]["data"]["release"] = "%%%"
    assert await records.drop_unreadable(api, target)
    assert [found.version for found in await records.history(api, target)] == [1]
