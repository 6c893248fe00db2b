"""The deployer against the real API on a store in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controlplane.client.base import PatchType
from controlplane.deploy import definitions
from controlplane.deploy.definitions import ADDONS, ensure_crds
from controlplane.deploy.deployer import Deployer, Packaged
from controlplane.deploy.manifest import parse
from controlplane.deploy.objects import KEEP_LABEL
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import CONFIG_MAPS, EVENTS, NAMESPACES
from controlplane.reconcile.clock import LoopClock
from tests.fakes.api_server import Served, defining, serving

PACKAGED = Path(definitions.__file__).parent / "packaged"
CHARTS = Resource("helm.cattle.io", "v1", "helmcharts", True)


def clock() -> LoopClock:
    return LoopClock(lambda: datetime(2026, 1, 1, tzinfo=UTC))


@asynccontextmanager
async def cluster() -> AsyncIterator[Served]:
    """An API that also serves custom resources."""
    async with serving() as served, defining(served):
        for name in ("default", "kube-system"):
            await served.client.create(NAMESPACES, {"metadata": {"name": name}})
        yield served


async def _cancelled(task: asyncio.Future[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def deploying(
    served: Served, root: Path, *disable: str, packaged: Path | None = None
) -> AsyncIterator[None]:
    variables = {"CLUSTER_DNS": "10.43.0.10"}
    deployer = Deployer(
        client=served.client,
        kinds=served.parts.kinds,
        clock=clock(),
        manifests=root,
        node_name="n1",
        disable=frozenset(disable),
        packaged=Packaged(source=packaged, variables=variables) if packaged else None,
    )
    task = asyncio.ensure_future(deployer.run())
    try:
        yield
    finally:
        await _cancelled(task)


async def until(served: Served, holds: Callable[[], Any]) -> None:
    """Wait for the cache's changes until something holds."""
    async with asyncio.timeout(10):
        while not holds():
            await served.parts.cache.wait_for(served.parts.cache.revision + 1)


def config_map(name: str, value: str = "1") -> str:
    return (
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n"
        f'data: {{value: "{value}", dns: "%{{CLUSTER_DNS}}%"}}\n'
    )


def get(served: Served, name: str) -> Any:
    return served.parts.cache.get(CONFIG_MAPS, "default", name)


def addon(served: Served, name: str) -> Any:
    return served.parts.cache.get(ADDONS, "kube-system", name)


def is_applied(served: Served, name: str) -> bool:
    return bool((addon(served, name) or {}).get("spec", {}).get("checksum"))


async def test_definitions_are_written_once() -> None:
    async with cluster() as served:
        assert len(await ensure_crds(served.client)) == len(definitions.load())
        assert await ensure_crds(served.client) == []


async def test_a_file_is_applied_pruned_and_remembered(tmp_path: Path) -> None:
    async with cluster() as served, deploying(served, tmp_path / "manifests"):
        file = tmp_path / "manifests" / "app.yaml"
        await until(served, lambda: served.parts.kinds.by_kind("k3s.cattle.io/v1", "Addon"))
        file.write_text(f"{config_map('a')}---\n{config_map('b')}")
        await until(served, lambda: is_applied(served, "app"))
        assert get(served, "a")["data"] == {"value": "1", "dns": "%{CLUSTER_DNS}%"}
        assert addon(served, "app")["spec"]["source"] == str(file)
        file.write_text(config_map("a", "2"))
        await until(served, lambda: get(served, "b") is None)
        await until(served, lambda: get(served, "a")["data"]["value"] == "2")
        annotations = addon(served, "app")["metadata"]["annotations"]
        assert annotations["addon.k3s.cattle.io/gvks"] == "/v1, Kind=ConfigMap"
        file.unlink()
        other = tmp_path / "manifests" / "other.yaml"
        other.write_text(config_map("c"))
        await until(served, lambda: is_applied(served, "other"))
        assert get(served, "a") is not None  # deleting a file deletes nothing
        reasons = {e["reason"] for e in served.parts.cache.list(EVENTS, "kube-system")}
        assert {"ApplyingManifest", "AppliedManifest"} <= reasons


async def test_a_name_that_no_object_can_have_holds_up_no_other_file(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "my_app.yaml").write_text(config_map("a"))
    (root / "App.yaml").write_text(config_map("b"))
    (root / "other.yaml").write_text(config_map("c"))
    async with cluster() as served, deploying(served, root):
        await until(served, lambda: is_applied(served, "other"))
        assert (get(served, "a"), get(served, "b")) == (None, None)
        (root / "my_app.yaml").rename(root / "my-app.yaml")
        await until(served, lambda: is_applied(served, "my-app"))


async def test_an_addon_that_fails_says_which_file_it_is(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "app.yaml").write_text("a: [1")
    async with cluster() as served, deploying(served, root):
        await until(served, lambda: addon(served, "app"))
        assert addon(served, "app")["spec"] == {"source": str(root / "app.yaml")}


async def test_a_restart_with_nothing_new_writes_no_object(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "app.yaml").write_text(config_map("a"))
    async with cluster() as served:
        async with deploying(served, root):
            await until(served, lambda: is_applied(served, "app"))
        before = get(served, "a")["metadata"]["resourceVersion"]
        noted = addon(served, "app")["metadata"]["resourceVersion"]
        async with deploying(served, root):
            (root / "last.yaml").write_text(config_map("z"))
            await until(served, lambda: is_applied(served, "last"))
        assert get(served, "a")["metadata"]["resourceVersion"] == before
        assert addon(served, "app")["metadata"]["resourceVersion"] == noted


async def test_what_needs_a_kind_waits_for_it(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    root.mkdir()
    text = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n"
    (root / "app.yaml").write_text(text)
    async with cluster() as served, deploying(served, root):

        def failed() -> list[str]:
            events = served.parts.cache.list(EVENTS, "kube-system")
            return [e["message"] for e in events if e["reason"] == "ApplyManifestFailed"]

        await until(served, failed)
        assert 'no matches for kind "Widget" in version "example.com/v1"' in failed()[0]
        (root / "crd.yaml").write_text(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
            "metadata: {name: widgets.example.com}\n"
            "spec:\n  group: example.com\n  scope: Namespaced\n"
            "  names: {kind: Widget, plural: widgets, singular: widget}\n"
            "  versions: [{name: v1, served: true, storage: true, "
            "schema: {openAPIV3Schema: {type: object}}}]\n"
        )
        await until(served, lambda: is_applied(served, "app"))


async def test_what_is_being_deleted_is_made_anew_when_it_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    root.mkdir()
    held = {"metadata": {"name": "a", "namespace": "default", "finalizers": ["example.com/hold"]}}
    async with cluster() as served:
        old = await served.client.create(CONFIG_MAPS, held)
        await served.client.delete(CONFIG_MAPS, "default", "a")
        (root / "app.yaml").write_text(config_map("a"))
        async with deploying(served, root):

            def told() -> list[str]:
                events = served.parts.cache.list(EVENTS, "kube-system")
                return [e["message"] for e in events if e["reason"] == "ApplyManifestFailed"]

            await until(served, told)
            assert "ConfigMap a: it is being deleted" in told()[0]
            assert not is_applied(served, "app")
            release = [{"op": "remove", "path": "/metadata/finalizers"}]
            await served.client.patch(
                CONFIG_MAPS, "default", "a", body=release, type=PatchType.JSON
            )
            await until(served, lambda: is_applied(served, "app"))
            assert get(served, "a")["metadata"]["uid"] != old["metadata"]["uid"]


async def test_a_chart_is_an_object_like_any_other(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "web.yaml").write_text(
        "apiVersion: helm.cattle.io/v1\nkind: HelmChart\n"
        "metadata: {name: web, namespace: kube-system}\n"
        "spec: {chart: web, set: {replicas: 2, name: x}, valuesContent: 'a: 1'}\n"
    )
    async with cluster() as served, deploying(served, root):
        await until(served, lambda: is_applied(served, "web"))
        chart = served.parts.cache.get(CHARTS, "kube-system", "web")
        assert chart is not None
        assert chart["spec"]["set"] == {"replicas": 2, "name": "x"}


async def test_a_disabled_component_goes_with_its_file(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    root.mkdir()
    (root / "app.yaml").write_text(config_map("a"))
    async with cluster() as served:
        async with deploying(served, root):
            await until(served, lambda: is_applied(served, "app"))
        async with deploying(served, root, "app"):
            await until(served, lambda: addon(served, "app") is None)
        assert get(served, "a") is None
        assert not (root / "app.yaml").exists()


async def test_what_is_labelled_so_stays_when_its_file_or_component_goes(tmp_path: Path) -> None:
    root = tmp_path / "manifests"
    root.mkdir()
    label = 'labels: {objectset.rio.cattle.io/prune: "false"}'
    stays = config_map("data").replace("{name: data}", f"{{name: data, {label}}}")
    (root / "app.yaml").write_text(f"{config_map('a')}---\n{stays}")
    async with cluster() as served:
        async with deploying(served, root):
            await until(served, lambda: is_applied(served, "app"))
            (root / "app.yaml").write_text(config_map("b"))
            await until(served, lambda: get(served, "a") is None)
            assert get(served, "data") is not None
        async with deploying(served, root, "app"):
            await until(served, lambda: addon(served, "app") is None)
        assert get(served, "b") is None
        assert get(served, "data") is not None


def test_packaged_definitions_stay_with_what_people_made_of_them() -> None:
    objects = parse((PACKAGED / "local-storage.yaml").read_bytes())
    found = [o["metadata"] for o in objects if o["kind"] == "CustomResourceDefinition"]
    assert len(found) == 3
    assert {meta["labels"][KEEP_LABEL] for meta in found} == {"false"}


async def test_a_packaged_component_is_there_until_it_is_disabled(tmp_path: Path) -> None:
    root, packaged = tmp_path / "manifests", tmp_path / "packaged"
    packaged.mkdir()
    (packaged / "part.yaml").write_text(config_map("part"))
    async with cluster() as served:
        async with deploying(served, root, packaged=packaged):
            await until(served, lambda: is_applied(served, "part"))
        assert get(served, "part")["data"]["dns"] == "10.43.0.10"
        async with deploying(served, root, "part", packaged=packaged):
            await until(served, lambda: addon(served, "part") is None)
        assert get(served, "part") is None
        assert not (root / "part.yaml").exists()
        async with deploying(served, root, packaged=packaged):
            await until(served, lambda: is_applied(served, "part"))


async def test_a_skipped_component_is_put_there_and_not_applied(tmp_path: Path) -> None:
    root, packaged = tmp_path / "manifests", tmp_path / "packaged"
    packaged.mkdir()
    root.mkdir()
    (root / "part.yaml.skip").touch()
    for name in ("part", "whole"):
        (packaged / f"{name}.yaml").write_text(config_map(name))
    async with cluster() as served, deploying(served, root, packaged=packaged):
        await until(served, lambda: is_applied(served, "whole"))
        assert (root / "part.yaml").exists()
        assert addon(served, "part") is None
