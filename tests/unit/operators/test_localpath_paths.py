"""The ConfigMap local-path-config, in K3s's form and with its rules."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from operators.localpath import paths
from operators.localpath.base import Refused, Unfit
from operators.localpath.paths import DEFAULT_NODE, Invalid

ROOT = Path(__file__).parent.parent.parent.parent
POD = """
apiVersion: v1
kind: Pod
metadata: {name: helper-pod}
spec:
  priorityClassName: system-node-critical
  containers:
  - {name: helper-pod, image: busybox}
"""


def config(told: Any, **more: str) -> paths.Configuration:
    return paths.parse({"config.json": json.dumps(told), **more})


def by_node(**nodes: list[str]) -> dict[str, Any]:
    return {"nodePathMap": [{"node": name, "paths": found} for name, found in nodes.items()]}


def test_the_packaged_configuration_is_valid_and_asks_for_nothing_more() -> None:
    text = (ROOT / "controlplane/deploy/packaged/local-storage.yaml").read_text()
    documents = yaml.safe_load_all(text.replace("%{DEFAULT_LOCAL_STORAGE_PATH}%", "/data/storage"))
    data = next(d["data"] for d in documents if d["kind"] == "ConfigMap")
    found = paths.parse(data)
    assert found.bases("pi") == [Path("/data/storage")]
    assert found.ignored == ()


def test_a_node_has_its_own_paths_or_the_default_ones() -> None:
    found = config(by_node(**{DEFAULT_NODE: ["/a"], "n1": ["/b", "/c"], "n3": []})).of_class("x")
    assert found.of("n1") == ("/b", "/c")
    assert found.of("n2") == ("/a",)
    assert found.of("n3") == ()


def test_several_paths_are_taken_in_turn_unless_the_class_names_one() -> None:
    found = config(by_node(n1=["/b", "/c"])).of_class("x")
    assert {found.choose("n1", "", seed) for seed in range(4)} == {Path("/b"), Path("/c")}
    assert found.choose("n1", "/c", 0) == Path("/c")


def test_a_node_without_a_path_is_unfit_in_upstreams_words() -> None:
    found = config(by_node(n1=["/b"], n3=[])).of_class("x")
    with pytest.raises(Unfit, match="no local path available on node n3"):
        found.choose("n3", "", 0)
    with pytest.raises(Unfit, match="config doesn't contain node n9, and no DEFAULT_PATH"):
        found.choose("n9", "", 0)
    with pytest.raises(Unfit, match="config doesn't contain path /z on node n1"):
        found.choose("n1", "/z", 0)


def test_classes_may_have_paths_of_their_own() -> None:
    told = {
        "storageClassConfigs": {
            "fast": by_node(**{DEFAULT_NODE: ["/ssd"]}),
            "shared": {"sharedFileSystemPath": "/nfs"},
        }
    }
    found = config(told)
    assert found.of_class("fast").of("n1") == ("/ssd",)
    assert found.of_class("shared").shared == "/nfs"
    assert found.is_shared("shared")
    assert not found.is_shared("fast")
    assert found.bases("n1") == [Path("/nfs"), Path("/ssd")]
    with pytest.raises(Refused, match="unexpected storage class other"):
        found.of_class("other")


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        (by_node(n1=["opt"]), "path must start with / for path opt on node n1"),
        (by_node(n1=["/"]), "cannot use root"),
        (by_node(n1=["//"]), "cannot use root"),
        (by_node(n1=["/a/.."]), "cannot use root"),
        (by_node(n1=["/a", "/a/"]), "duplicate path /a/ on node n1"),
        ({"nodePathMap": [{"node": "n", "paths": []}] * 2}, "duplicate node n"),
        ({**by_node(n1=["/a"]), "sharedFileSystemPath": "/b"}, "make sure only one is in use"),
        ({}, "both nodePathMap and sharedFileSystemPath are unconfigured"),
        ({"nodePathMap": "x"}, "canonicalization failed"),
        ([], "no JSON object"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_reason(told: Any, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        config(told)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(Invalid, match="fail to load config file"):
        paths.parse({"config.json": "# comment"})


def test_a_helper_pod_template_may_not_ask_for_power() -> None:
    told = by_node(n1=["/a"])
    assert config(told, **{"helperPod.yaml": POD}).helper_pod is not None
    bad = {
        "hostNetwork: true": "enable host namespaces",
        "nodeName: n1": "set spec.nodeName",
        "volumes: [{name: x, emptyDir: {}}]": "define custom volumes",
        "serviceAccountName: x": "set spec.serviceAccountName",
        "initContainers: [{name: x}]": "define initContainers",
        "securityContext: {runAsUser: 0}": "runAsUser to 0",
    }
    for line, complaint in bad.items():
        with pytest.raises(Invalid, match=complaint):
            config(told, **{"helperPod.yaml": f"{POD}  {line}\n"})
    privileged = POD.replace("image: busybox", "securityContext: {privileged: true}")
    with pytest.raises(Invalid, match="privileged"):
        config(told, **{"helperPod.yaml": privileged})


def test_a_script_that_asks_for_more_is_known_to_be_ignored() -> None:
    told = {**by_node(n1=["/a"]), "setupCommand": "/manager"}
    found = config(told, setup="#!/bin/sh\nset -eu\nxfs_quota -x\n", teardown='rm -rf "$VOL_DIR"')
    assert found.ignored == ("setupCommand", "setup")
