"""Which images an archive holds for which machine."""

import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.preload.plan import Blob, Image, Machine, Unusable, images, rank
from tests.fakes import archives
from tests.fakes.archives import Files, Layout

AMD64, ARM64, ARM = Machine("amd64"), Machine("arm64"), Machine("arm", "v7")


def plan(files: Files, machine: Machine = AMD64) -> list[Image]:
    """As if all had been read."""
    blobs: dict[str, Blob] = {}
    documents: dict[str, bytes] = {}
    for name, data in files.items():
        if isinstance(data, bytes):
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            blobs[name] = Blob(digest=digest, size=len(data))
            documents[digest] = data
    return images(blobs, documents, machine, "import-2026-03-01")


def layout_of(*architectures: str) -> Layout:
    layout = Layout()
    made = [layout.manifest([a.encode()], architecture=a) for a in architectures]
    layout.name(layout.index(made), "test.test/a:1")
    return layout


@pytest.mark.parametrize(
    ("platform", "machine", "place"),
    [
        ({"os": "linux", "architecture": "amd64"}, AMD64, 0),
        ({"os": "linux", "architecture": "386"}, AMD64, 1),
        ({"os": "linux", "architecture": "arm64"}, AMD64, None),
        ({"os": "windows", "architecture": "amd64"}, AMD64, None),
        ({"os": "unknown", "architecture": "unknown"}, AMD64, None),
        (None, AMD64, 3),
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, ARM64, 0),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, ARM64, 2),
        ({"os": "linux", "architecture": "arm"}, ARM, 0),
        ({"os": "linux", "architecture": "arm", "variant": "6"}, ARM, 1),
        ({"os": "linux", "architecture": "arm", "variant": "v8"}, ARM, None),
        ({"os": "linux", "architecture": "riscv64"}, Machine("riscv64"), 0),
    ],
)
def test_a_machine_runs_its_own_and_what_it_knows_of_old(
    platform: dict[str, Any] | None, machine: Machine, place: int | None
) -> None:
    assert rank(platform, machine) == place


@pytest.mark.parametrize(("machine", "chosen"), [(AMD64, "amd64"), (ARM64, "arm64")])
def test_the_best_platform_is_taken(machine: Machine, chosen: str) -> None:
    (image,) = plan(layout_of("386", "amd64", "arm64").whole(), machine)
    digest = f"sha256:{hashlib.sha256(chosen.encode()).hexdigest()}"
    assert [layer.digest for layer in image.layers] == [digest]


def test_labels_lead_from_the_top_to_everything() -> None:
    (image,) = plan(layout_of("amd64", "arm64").whole())
    index, manifest = image.labels
    assert image.labels[index] == {"containerd.io/gc.ref.content.m.0": manifest}
    assert image.labels[manifest] == {
        "containerd.io/gc.ref.content.config": image.config.digest,
        "containerd.io/gc.ref.content.l.0": image.layers[0].digest,
    }
    assert index == image.target.digest
    reached = {value for labels in image.labels.values() for value in labels.values()}
    assert set(image.content()) == {index, *reached}


@pytest.mark.parametrize(
    ("key", "written", "name"),
    [
        ("", "nginx", "docker.io/library/nginx:latest"),
        ("", "test.test/a:1", "test.test/a:1"),
        ("org.opencontainers.image.ref.name", "test.test/a:1", "test.test/a:1"),
        ("org.opencontainers.image.ref.name", "library/a", "docker.io/library/a:latest"),
        ("org.opencontainers.image.ref.name", "v1", "import-2026-03-01:v1"),
    ],
)
def test_annotations_name_an_image(key: str, written: str, name: str) -> None:
    layout = Layout()
    layout.name(layout.manifest([b"x"], architecture="amd64"), written, key)
    assert [image.names for image in plan(layout.whole())] == [(name,)]


def test_a_layout_goes_before_what_docker_wrote_beside_it() -> None:
    both = {**archives.docker([(("old:1",), [b"x"])]), **layout_of("amd64").whole()}
    assert [image.names for image in plan(both)] == [("test.test/a:1",)]


def test_an_image_without_a_name_is_left_out_and_one_alone_is_refused() -> None:
    named = archives.docker([((), [b"x"]), (("a:1",), [b"y"])])
    assert [image.names for image in plan(named)] == [("docker.io/library/a:1",)]
    with pytest.raises(Unusable, match="no image in it has a name"):
        plan(archives.docker([((), [b"x"])]))


def changed(files: Files, name: str, **fields: Any) -> Files:
    data = files[name]
    assert isinstance(data, bytes)
    return {**files, name: json.dumps({**json.loads(data), **fields}).encode()}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "no archive of images"),
        ({"manifest.json": b"[1]"}, "not what `docker save` writes"),
        ({"manifest.json": b"{}"}, "no JSON of this kind"),
        ({"manifest.json": b'[{"RepoTags": ["a"], "Config": "x"}]'}, "x is missing"),
        (changed(layout_of("amd64").whole(), "index.json", manifests=1), "no list of manifests"),
        (layout_of("arm64").whole(), "is for linux/arm64, and this machine is linux/amd64"),
        (changed(layout_of("amd64").whole(), "index.json", manifests=[{}]), "has a name"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(files: Files, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        plan(files)


def test_another_digest_than_sha256_is_refused() -> None:
    layout = Layout()
    entry = {"digest": f"sha512:{'0' * 128}", "size": 1, "mediaType": "x"}
    layout.name(entry, "a:1")
    with pytest.raises(Unusable, match="only sha256"):
        plan(layout.whole())


def test_indexes_without_an_end_are_refused() -> None:
    layout = Layout()
    inner = layout.manifest([b"x"], architecture="amd64")
    for _ in range(20):
        inner = layout.index([inner])
    layout.name(inner, "a:1")
    with pytest.raises(Unusable, match="more than 8 indexes"):
        plan(layout.whole())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["manifests", "layers", "config", "digest", "size", "platform", "rootfs"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_document_makes_it_fail_in_another_way(data: st.DataObject) -> None:
    files = dict(layout_of("amd64").whole())
    name = data.draw(st.sampled_from(sorted(n for n in files if n != "oci-layout")))
    value = data.draw(JSON)
    if name == "index.json" and isinstance(value, dict):
        value = {"manifests": [{"annotations": {"io.containerd.image.name": "a:1"}, **value}]}
    files[name] = json.dumps(value).encode()
    documents = {
        **{f"sha256:{n.rpartition('/')[2]}": d for n, d in files.items() if isinstance(d, bytes)},
        "index.json": files["index.json"],
    }
    blobs = {n: Blob(digest=n, size=1) for n in files}
    with contextlib.suppress(Unusable):
        images(blobs, documents, AMD64, "none")  # type: ignore[arg-type]
