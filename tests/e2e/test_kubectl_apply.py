"""kubectl changes what is there: apply on both sides, patch, edit, replace, diff, kustomize."""

import json
from pathlib import Path

from tests.e2e.conftest import Space

FIRST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web}}
data: {colour: red, size: "1"}
"""
SECOND = FIRST.replace(', size: "1"', ', weight: "2"')
LAST_APPLIED = r"{.metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration}"
CONFLICT = """\
error: Apply failed with 1 conflict: conflict with "alice": .data.colour
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: one, image: "pinnace.dev/hello:1", env: [{name: A, value: a}, {name: B, value: b}]}
      - {name: two, image: "pinnace.dev/hello:1"}
"""


def data(space: Space) -> dict[str, str]:
    found: dict[str, str] = space.get("configmap", "settings")["data"]
    return found


def owners(space: Space) -> dict[str, list[str]]:
    """The fields of data that each manager owns."""
    shown = space.kubectl("get", "cm", "settings", "-o", "json", "--show-managed-fields")
    return {
        entry["manager"]: [f for f in entry["fieldsV1"].get("f:data", {}) if f != "."]
        for entry in json.loads(shown)["metadata"]["managedFields"]
    }


def test_apply_creates_then_leaves_alone_then_configures(space: Space) -> None:
    assert space.apply(FIRST) == "configmap/settings created\n"
    revision = space.value("cm", "settings", path="{.metadata.resourceVersion}")
    assert space.apply(FIRST) == "configmap/settings unchanged\n"
    assert space.value("cm", "settings", path="{.metadata.resourceVersion}") == revision
    assert space.apply(SECOND) == "configmap/settings configured\n"


def test_apply_removes_what_the_manifest_dropped_and_keeps_what_others_added(space: Space) -> None:
    space.apply(FIRST)
    space.kubectl("patch", "cm", "settings", "-p", '{"data": {"other": "kept"}}')
    space.apply(SECOND)
    assert data(space) == {"colour": "red", "weight": "2", "other": "kept"}
    applied = json.loads(space.value("cm", "settings", path=LAST_APPLIED))
    assert applied["data"] == {"colour": "red", "weight": "2"}


def test_apply_prunes_what_left_the_set(space: Space) -> None:
    other = FIRST.replace("settings", "other")
    space.apply(f"{FIRST}---{other}")
    flags = ("--prune", "-l", "app=web", "--prune-allowlist=core/v1/ConfigMap")
    assert space.apply(FIRST, *flags) == ("configmap/settings unchanged\nconfigmap/other pruned\n")


def test_a_dry_run_on_the_server_says_what_would_be_and_stores_nothing(space: Space) -> None:
    assert space.apply(FIRST, "--dry-run=server") == (
        "configmap/settings created (server dry run)\n"
    )
    assert "NotFound" in space.refused("get", "cm", "settings")


def test_server_side_apply_refuses_fields_of_others_until_forced(space: Space) -> None:
    mine = ("--server-side", "--field-manager=bob")
    assert space.apply(FIRST, "--server-side", "--field-manager=alice") == (
        "configmap/settings serverside-applied\n"
    )
    changed = FIRST.replace("red", "blue")
    refusal = space.refused("apply", "-f", "-", *mine, input=changed)
    assert refusal == CONFLICT
    assert data(space)["colour"] == "red"
    space.apply(changed, *mine, "--force-conflicts")
    assert data(space)["colour"] == "blue"
    assert owners(space) == {"alice": ["f:size"], "bob": ["f:colour", "f:size"]}


def test_server_side_apply_removes_what_its_only_owner_dropped(space: Space) -> None:
    space.apply(FIRST, "--server-side")
    space.apply(SECOND, "--server-side")
    assert data(space) == {"colour": "red", "weight": "2"}


def test_server_side_apply_takes_over_from_client_side_apply(space: Space) -> None:
    space.apply(FIRST)
    space.apply(SECOND, "--server-side")
    assert data(space) == {"colour": "red", "weight": "2"}
    assert owners(space)["kubectl"] == ["f:colour", "f:weight"]
    assert "kubectl-client-side-apply" not in owners(space)


def test_diff_shows_what_apply_would_change_and_ends_with_one(space: Space) -> None:
    space.apply(FIRST)
    assert space.kubectl("diff", "-f", "-", input=FIRST) == ""
    done = space.run("diff", "-f", "-", input=SECOND, check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert '-  size: "1"' in lines
    assert '+  weight: "2"' in lines
    assert data(space)["size"] == "1"


def test_diff_on_the_server_side_ends_with_one_too(space: Space) -> None:
    space.apply(FIRST, "--server-side")
    done = space.run("diff", "--server-side", "-f", "-", input=SECOND, check=False)
    assert done.returncode == 1
    assert '-  size: "1"' in done.stdout.splitlines()


def test_patches_of_all_three_types(space: Space) -> None:
    space.apply(DEPLOYMENT)

    def images() -> str:
        return space.value("deploy", "web", path="{.spec.template.spec.containers[*].image}")

    def names() -> str:
        return space.value("deploy", "web", path="{.spec.template.spec.containers[*].name}")

    one = {"spec": {"template": {"spec": {"containers": [{"name": "two", "image": "x:2"}]}}}}
    patched = "deployment.apps/web patched\n"
    assert space.kubectl("patch", "deploy", "web", "-p", json.dumps(one)) == patched
    assert images() == "pinnace.dev/hello:1 x:2"
    step = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "y:3"}]
    space.kubectl("patch", "deploy", "web", "--type=json", "-p", json.dumps(step))
    assert images() == "y:3 x:2"
    space.kubectl("patch", "deploy", "web", "--type=merge", "-p", json.dumps(one))
    assert names() == "two"
    same = ("patch", "deploy", "web", "-p", '{"spec": {"replicas": 0}}')
    assert space.kubectl(*same) == "deployment.apps/web patched (no change)\n"


def test_a_strategic_patch_can_delete_an_item_of_a_list(space: Space) -> None:
    space.apply(DEPLOYMENT)
    gone = {"name": "A", "$patch": "delete"}
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "one", "env": [gone]}]}}}}
    space.kubectl("patch", "deploy", "web", "-p", json.dumps(patch))
    path = "{.spec.template.spec.containers[0].env[*].name}"
    assert space.value("deploy", "web", path=path) == "B"


def test_a_json_patch_whose_test_fails_changes_nothing(space: Space) -> None:
    space.apply(FIRST)
    patch = [
        {"op": "replace", "path": "/data/colour", "value": "blue"},
        {"op": "test", "path": "/data/size", "value": "7"},
    ]
    refusal = space.refused("patch", "cm", "settings", "--type=json", "-p", json.dumps(patch))
    assert refusal == (
        "The request is invalid: patch: testing value /data/size failed: test failed"
    )
    assert data(space)["colour"] == "red"


def test_edit_applies_what_the_editor_left(space: Space) -> None:
    space.apply(FIRST)
    editor = {"KUBE_EDITOR": "sed -i s/red/blue/"}
    assert space.kubectl("edit", "cm", "settings", env=editor) == "configmap/settings edited\n"
    assert data(space)["colour"] == "blue"
    quitter = space.run("edit", "cm", "settings", env={"KUBE_EDITOR": "true"})
    assert quitter.stderr == "Edit cancelled, no changes made.\n"


def test_edit_of_the_status_changes_only_that(space: Space) -> None:
    space.apply(DEPLOYMENT)
    space.wait("deploy/web", "--for=jsonpath={.status.observedGeneration}=1")
    editor = {"KUBE_EDITOR": "sed -i -e 's/replicas: 0/replicas: 1/' -e 's/True/Unknown/'"}
    space.kubectl("edit", "deploy", "web", "--subresource=status", env=editor)
    assert space.value("deploy", "web", path="{.spec.replicas}") == "0"
    assert "Unknown" in space.value("deploy", "web", path="{.status.conditions[*].status}")


def test_replace_puts_the_whole_object(space: Space) -> None:
    space.apply(FIRST)
    assert space.kubectl("replace", "-f", "-", input=SECOND) == "configmap/settings replaced\n"
    assert data(space) == {"colour": "red", "weight": "2"}
    uid = space.value("cm", "settings", path="{.metadata.uid}")
    forced = space.kubectl("replace", "--force", "-f", "-", input=FIRST)
    assert forced.splitlines() == [
        'configmap "settings" deleted',
        "configmap/settings replaced",
    ]
    assert space.value("cm", "settings", path="{.metadata.uid}") != uid


def test_replace_with_an_old_version_is_a_conflict(space: Space) -> None:
    space.apply(FIRST)
    old = space.kubectl("get", "cm", "settings", "-o", "yaml")
    space.kubectl("label", "cm", "settings", "a=b")
    assert space.refused("replace", "-f", "-", input=old) == (
        'Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled '
        'on configmaps "settings": the object has been modified; please apply your changes to the '
        "latest version and try again"
    )


def test_a_kustomization_is_built_and_applied(space: Space, tmp_path: Path) -> None:
    (tmp_path / "deployment.yaml").write_text(DEPLOYMENT)
    (tmp_path / "kustomization.yaml").write_text(
        "namePrefix: my-\nresources: [deployment.yaml]\nimages: [{name: pinnace.dev/hello, "
        "newTag: '9'}]\nconfigMapGenerator: [{name: settings, literals: [a=b]}]\n"
    )
    shown = space.kubectl("apply", "-k", str(tmp_path)).split()
    assert shown[0].startswith("configmap/my-settings-")
    assert shown[2] == "deployment.apps/my-web"
    path = "{.spec.template.spec.containers[0].image}"
    assert space.value("deploy", "my-web", path=path) == "pinnace.dev/hello:9"
    space.kubectl("delete", "-k", str(tmp_path))
    assert space.kubectl("get", "deploy", "-o", "name") == ""
