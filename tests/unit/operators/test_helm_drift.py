"""What differs from what a release made, as an API in memory tells it."""

import base64
import gzip
import json
from typing import Any

import pytest

from operators.helm.drift import left_over, places, said
from operators.helm.live import Unknown, check

MANIFEST = """---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec: {replicas: 1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: page, namespace: elsewhere}
data: {a: "1"}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all}
---
"""
DEPLOYMENT = "/apis/apps/v1/namespaces/apps/deployments/web"
PAGE = "/api/v1/namespaces/elsewhere/configmaps/page"
ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/all"
RECORD = "/api/v1/namespaces/apps/secrets/sh.helm.release.v1.web.v3"


def resource(name: str, kind: str, *, namespaced: bool = True) -> dict[str, Any]:
    return {"name": name, "kind": kind, "namespaced": namespaced}


class Api:
    """``live`` by path; applying an object merges its data and spec into what is there."""

    def __init__(self) -> None:
        release = gzip.compress(json.dumps({"manifest": MANIFEST}).encode())
        data = base64.b64encode(base64.b64encode(release)).decode()
        found = {"metadata": {"resourceVersion": "7", "managedFields": [], "generation": 1}}
        self.patches: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.refusals: dict[str, tuple[int, Any]] = {}
        self.live: dict[str, dict[str, Any]] = {
            RECORD: {"metadata": {"name": "r"}, "data": {"release": data}},
            "/apis/apps/v1": {
                "resources": [
                    resource("deployments", "Deployment"),
                    resource("deployments/scale", "Scale"),
                ]
            },
            "/api/v1": {"resources": [resource("configmaps", "ConfigMap")]},
            "/apis/rbac.authorization.k8s.io/v1": {
                "resources": [resource("clusterroles", "ClusterRole", namespaced=False)]
            },
            DEPLOYMENT: {**found, "spec": {"replicas": 1, "paused": False}, "status": {"x": 1}},
            PAGE: {**found, "data": {"a": "1"}},
            ROLE: found,
        }

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        if refusal := self.refusals.get(f"{method} {path}"):
            return refusal
        if path not in self.live:
            return 404, {"message": "not found"}
        live = self.live[path]
        if method == "GET":
            return 200, live
        self.patches.append((path, body, query))
        metadata = {**live["metadata"], "resourceVersion": "8", "generation": 2}
        made = {**live, "metadata": metadata}
        for part in ("spec", "data"):
            if part in body:
                made[part] = {**live[part], **body[part]}
        return 200, made

    def drift(self, *ignore: dict[str, Any]) -> list[tuple[str, list[str]]]:
        target = {"name": "web", "namespace": "apps", "driver": "secret", "timeout": 1}
        return check(self.ask, {"target": target, "revision": 3, "ignore": ignore})


@pytest.fixture
def api() -> Api:
    return Api()


def test_what_is_as_the_release_made_it_has_not_drifted(api: Api) -> None:
    assert api.drift() == []
    path, body, query = api.patches[0]
    assert path == DEPLOYMENT
    assert query == {"dryRun": "All", "fieldManager": "helm", "force": "true"}
    # Else applying would take away the marks that Helm gives its objects.
    assert body["metadata"]["labels"] == {"app": "web", "app.kubernetes.io/managed-by": "Helm"}
    assert body["metadata"]["annotations"] == {
        "meta.helm.sh/release-name": "web",
        "meta.helm.sh/release-namespace": "apps",
    }


def test_what_somebody_changed_is_told_by_its_place(api: Api) -> None:
    api.live[DEPLOYMENT]["spec"] = {"replicas": 5, "paused": True}
    del api.live[PAGE]
    assert api.drift() == [("Deployment web", ["/spec/replicas"]), ("ConfigMap page", ["missing"])]


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "Deployment"},
        {"kind": "Deployment", "name": "web"},
        {"paths": ["/spec/replicas"]},
        {"kind": "Deployment", "paths": ["/metadata", "/spec"]},
    ],
)
def test_what_is_to_be_ignored_is_no_drift(api: Api, rule: dict[str, Any]) -> None:
    api.live[DEPLOYMENT]["spec"]["replicas"] = 5
    assert api.drift(rule) == []


@pytest.mark.parametrize(
    "rule", [{"kind": "Service"}, {"name": "other"}, {"paths": ["/spec/repl", "/data"]}]
)
def test_what_a_rule_does_not_name_is_drift(api: Api, rule: dict[str, Any]) -> None:
    api.live[DEPLOYMENT]["spec"]["replicas"] = 5
    assert api.drift(rule) == [("Deployment web", ["/spec/replicas"])]


def test_a_kind_that_is_not_served_has_drifted(api: Api) -> None:
    del api.live["/apis/rbac.authorization.k8s.io/v1"]
    assert api.drift() == [("ClusterRole all", ["its kind is not served"])]


def test_what_cannot_be_applied_any_more_has_drifted(api: Api) -> None:
    api.refusals[f"PATCH {DEPLOYMENT}"] = (422, {"message": "field is immutable"})
    assert api.drift() == [("Deployment web", ["cannot be applied: field is immutable"])]


@pytest.mark.parametrize(
    "request_line", [f"GET {RECORD}", f"GET {PAGE}", f"PATCH {DEPLOYMENT}", "GET /apis/apps/v1"]
)
@pytest.mark.parametrize("code", [0, 403, 429, 500])
def test_without_an_answer_nobody_can_tell(api: Api, request_line: str, code: int) -> None:
    api.refusals[request_line] = (code, {"message": "no answer"})
    with pytest.raises(Unknown, match="no answer"):
        api.drift()


def test_places_are_json_pointers() -> None:
    metadata = {"resourceVersion": "1", "labels": {"a/b": "1", "c~d": "1"}}
    live = {"metadata": metadata, "list": [1, {"x": 1}], "longer": [1, 2], "gone": 1}
    other = {"resourceVersion": "2", "labels": {"a/b": "2", "c~d": "2"}}
    wanted = {"metadata": other, "list": [1, {"x": 2}], "longer": [1], "new": None}
    assert places(live, wanted) == [
        "/gone",
        "/list/1/x",
        "/longer",
        "/metadata/labels/a~1b",
        "/metadata/labels/c~0d",
        "/new",
    ]


def test_a_long_tale_is_cut() -> None:
    assert said([]) == ("False", "InSync", "")
    status, reason, message = said([(f"A {n}", [f"/{m}" for m in range(9)]) for n in range(10)])
    assert (status, reason) == ("True", "Drifted")
    assert message.startswith("A 0: /0, /1, /2, /3 and 5 more; A 1: ")
    assert message.endswith("; and 2 more")


def test_a_rule_fits_by_kind_and_name() -> None:
    name = {"kind": "Deployment", "name": "web"}
    assert left_over(name, ["/a", "/ab/c"], [{"paths": ["/a/"]}]) == ["/ab/c"]
    assert left_over(name, ["missing"], [{"paths": ["/a"]}]) == ["missing"]
    assert left_over(name, ["missing"], [{"kind": "Deployment"}]) == []
