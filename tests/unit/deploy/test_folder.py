"""Which files count, what their text means, and what is put there at start."""

import asyncio
from pathlib import Path

import pytest

from controlplane.deploy.folder import addon_name, is_disabled, read, stage_packaged
from controlplane.deploy.inotify import Folders
from controlplane.deploy.manifest import ParseError, parse
from controlplane.deploy.objects import format_gvks, parse_gvks


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_only_manifests_count_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.YML", "c.json", "sub/d.yaml", "no.txt", ".hidden.yaml"):
        write(tmp_path / name)
    write(tmp_path / "skipped.yaml")
    write(tmp_path / "skipped.yaml.skip")
    found = [str(f.path.relative_to(tmp_path)) for f in read(tmp_path).files]
    assert found == ["a.YML", "b.yaml", "c.json", "sub/d.yaml"]


def test_a_link_to_a_folder_at_the_top_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.yaml")
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (file,) = read(root).files
    assert file.path == root / "link" / "a.yaml"


def test_an_addon_is_named_up_to_the_first_dot() -> None:
    assert addon_name(Path("/x/coredns.custom.yaml")) == "coredns"


def test_components_are_disabled_by_file_or_folder(tmp_path: Path) -> None:
    assert is_disabled(tmp_path / "traefik.yaml", tmp_path, {"traefik"})
    assert is_disabled(tmp_path / "metrics-server" / "rbac.yaml", tmp_path, {"metrics-server"})
    assert not is_disabled(tmp_path / "traefik.yaml", tmp_path, {"trae"})


def test_packaged_manifests_are_staged_once_and_disabled_ones_never(tmp_path: Path) -> None:
    source, target = tmp_path / "charts", tmp_path / "manifests"
    write(source / "a.yaml", "a: %{CLUSTER_DNS}% %{KUBERNETES_API}%")
    write(source / "off.yaml", "b: 1")
    write(source / "folder" / "off.yaml", "c: 1")
    disable, variables = frozenset({"off"}), {"CLUSTER_DNS": "10.43.0.10"}
    assert stage_packaged(source, target, disable, variables) == [target / "a.yaml"]
    assert stage_packaged(source, target, disable, variables) == []
    write(target / "a.yaml", "changed by hand")
    assert stage_packaged(source, target, disable, variables) == [target / "a.yaml"]
    # What only the Helm operator knows is left to it.
    assert (target / "a.yaml").read_text() == "a: 10.43.0.10 %{KUBERNETES_API}%"


def test_another_setting_stages_the_manifest_anew(tmp_path: Path) -> None:
    source, target = tmp_path / "packaged", tmp_path / "manifests"
    write(source / "a.yaml", "a: %{CLUSTER_DNS}%")
    for address in ("10.43.0.10", "10.44.0.10"):
        assert stage_packaged(source, target, frozenset(), {"CLUSTER_DNS": address})
        assert (target / "a.yaml").read_text() == f"a: {address}"
    assert [path.name for path in target.iterdir()] == ["a.yaml"]


CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {dns: "%{CLUSTER_DNS}%", other: "%{UNKNOWN}%"}
"""


def test_documents_and_lists_become_objects_and_variables_stay() -> None:
    text = f"""{CONFIG_MAP}---
---
apiVersion: v1
kind: List
items:
- {{apiVersion: v1, kind: Service, metadata: {{name: s}}}}
- {{apiVersion: v1, kind: Namespace, metadata: {{name: n}}}}
"""
    found = parse(text.encode())
    assert [item["kind"] for item in found] == ["Namespace", "ConfigMap", "Service"]
    # Those of packaged manifests are filled in when they are put into the folder.
    assert found[1]["data"] == {"dns": "%{CLUSTER_DNS}%", "other": "%{UNKNOWN}%"}


def test_dates_stay_text() -> None:
    text = CONFIG_MAP.replace("\ndata:", "\ndate: 2026-01-02\ndata:")
    assert parse(text.encode())[0]["date"] == "2026-01-02"


def test_keys_are_text_whatever_yaml_takes_them_for() -> None:
    text = (
        CONFIG_MAP.partition("\ndata:")[0]
        + "\ndata: {404: a, true: b, 1.5: c, nested: {1: {2: d}}}"
    )
    found = parse(text.encode())[0]["data"]
    assert found == {"404": "a", "true": "b", "1.5": "c", "nested": {"1": {"2": "d"}}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "expected"),
        ("just text", "not an object"),
        ("apiVersion: v1\nmetadata: {name: a}", "'Kind' is missing"),
        ("kind: Pod\nmetadata: {name: a}", "'apiVersion' is missing"),
        ("apiVersion: v1\nkind: Pod", "metadata.name is missing"),
    ],
)
def test_what_is_no_manifest_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ParseError, match=complaint):
        parse(text.encode())


def test_kinds_survive_the_annotation() -> None:
    gvks = [("apps/v1", "Deployment"), ("v1", "Service")]
    assert format_gvks(gvks) == "apps/v1, Kind=Deployment;/v1, Kind=Service"
    assert parse_gvks(format_gvks(gvks)) == gvks


async def test_a_file_that_was_written_or_moved_is_noticed(tmp_path: Path) -> None:
    folders = Folders()
    try:
        folders.watch([tmp_path])
        for change in (
            lambda: (tmp_path / "a").write_text("x"),
            lambda: (tmp_path / "a").rename(tmp_path / "b"),
            lambda: (tmp_path / "link").symlink_to("b"),
            lambda: (tmp_path / "b").unlink(),
            lambda: (tmp_path / "sub").mkdir(),
        ):
            change()
            async with asyncio.timeout(5):
                await folders.changed()
            folders.clear()
    finally:
        folders.close()
