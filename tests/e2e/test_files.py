"""What a person does with files: manifests, images, snapshots."""

import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from images import architecture
from oci import Image, archive

from tests.e2e.node import ROOT, Node, run

MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: NAME, namespace: default}
data: {text: TEXT}
"""


def manifests(node: Node) -> Path:
    return node.data / "server" / "manifests"


def text_of(node: Node, name: str) -> str:
    path = "jsonpath={.data.text}"
    found = node.kubectl("get", "configmap", name, "-o", path, "--ignore-not-found", check=False)
    return found.stdout


def document(name: str, text: str) -> str:
    return MANIFEST.replace("NAME", name).replace("TEXT", text)


def test_a_manifest_is_applied_when_it_appears_and_what_it_drops_is_pruned(node: Node) -> None:
    file = manifests(node) / "drop.yaml"
    file.write_text(document("kept", "one") + "---" + document("dropped", "one"))
    node.until(lambda: text_of(node, "kept") == text_of(node, "dropped") == "one")
    addon = node.get("addon", "drop", "-n", "kube-system")
    assert addon["spec"]["source"] == str(file)
    file.write_text(document("kept", "two"))
    node.until(lambda: text_of(node, "kept") == "two" and not text_of(node, "dropped"))
    file.unlink()
    skipped = manifests(node) / "skipped.yaml"
    (manifests(node) / "skipped.yaml.skip").touch()
    skipped.write_text(document("skipped", "never"))
    (manifests(node) / "after.yaml").write_text(document("after", "late"))
    node.until(lambda: text_of(node, "after") == "late")
    assert text_of(node, "skipped") == ""
    assert text_of(node, "kept") == "two"  # removing the file removed nothing


def test_an_image_that_appears_in_the_folder_can_be_run(node: Node, tmp_path: Path) -> None:
    from images import busybox

    made = busybox()
    image = Image(
        names=("example.test/dropped:1",),
        entries=made.entries,
        architecture=architecture(),
        command=("sleep", "3600"),
    )
    partial = tmp_path / "dropped.tar"
    partial.write_bytes(archive([image]))
    shutil.move(partial, node.data / "agent" / "images" / "dropped.tar")
    node.kubectl("run", "dropped", "--image=example.test/dropped:1", "--image-pull-policy=Never")
    node.kubectl("wait", "--for=condition=Ready", "pod/dropped", "--timeout=60s")
    node.kubectl("delete", "pod", "dropped", "--now")


def test_a_snapshot_is_whole_and_holds_what_was_written_before(node: Node, tmp_path: Path) -> None:
    node.kubectl("create", "configmap", "before-snapshot", "--from-literal=a=b")
    target = tmp_path / "copy.db"
    argv = [sys.executable, "-m", "node", "snapshot", "save", f"--name={target}", *node.arguments]
    assert run(*argv, cwd=ROOT).stdout.strip() == str(target)
    assert target.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(target)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert b"before-snapshot" in target.read_bytes()
    again = run(*argv, cwd=ROOT, check=False)
    assert again.returncode == 1
    assert "exists already: choose another --name" in again.stderr
