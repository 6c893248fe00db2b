"""Archives of images into a real containerd; its own ``ctr`` is the judge of what came of it."""

import contextlib
import json
import logging
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.cri.client import CriClient
from node.cri.store import Store, WrongLayer
from node.cri.wire import CallFailed
from node.kubelet.base import PODS
from node.kubelet.preload import Preloader
from node.preload.archive import BadArchive
from node.preload.plan import Unusable
from node.preload.run import load, this_machine
from tests.fakes import archives
from tests.fakes.archives import Layout
from tests.fakes.ociimage import busybox_files
from tests.host.cri.containerd import Containerd
from tests.host.kubelet.conftest import Node, pod

pytestmark = pytest.mark.root

BIG = 3 << 19  # bytes: more than a piece, and than a window of HTTP/2


@pytest.fixture
def store(containerd: Containerd) -> Iterator[Store]:
    made = Store(containerd.socket)
    yield made
    made.close()
    for name in names(containerd):
        if name.startswith(("registry.test/pre", "sha256:")):
            remove(containerd, name)


def ctr(containerd: Containerd, *words: str) -> list[str]:
    return containerd.ctr("-n", "k8s.io", *words).stdout.decode().splitlines()


def names(containerd: Containerd) -> list[str]:
    return ctr(containerd, "images", "ls", "-q")


def remove(containerd: Containerd, name: str) -> None:
    containerd.ctr("-n", "k8s.io", "images", "rm", "--sync", name, check=False)


def content(containerd: Containerd) -> set[str]:
    return set(ctr(containerd, "content", "ls", "-q"))


def state(containerd: Containerd) -> dict[str, list[str]]:
    """All that an import could leave behind."""
    collect(containerd)
    commands = ("images ls -q", "content ls -q", "content active", "snapshots ls", "leases ls")
    return {command: sorted(ctr(containerd, *command.split())) for command in commands}


def collect(containerd: Containerd) -> None:
    """Have containerd remove what nothing refers to."""
    lease = ctr(containerd, "leases", "create")[0]
    ctr(containerd, "leases", "delete", "--sync", lease)


def oci(layers: list[bytes], *, packed: bool = False) -> archives.Files:
    layout = Layout()
    layout.name(layout.manifest(layers, packed=packed), "registry.test/pre:1")
    return layout.whole()


@pytest.mark.parametrize(
    ("kind", "program"),
    [
        ("docker", ""),
        ("docker", "gzip"),
        ("oci", ""),
        *(("oci", each) for each in archives.PACKERS),
    ],
)
def test_an_archive_is_imported_unpacked_and_pinned(
    containerd: Containerd, store: Store, tmp_path: Path, *, kind: str, program: str
) -> None:
    layers = [archives.plain_layer(1, BIG), archives.plain_layer(2), archives.plain_layer(1, BIG)]
    if kind == "oci":
        files = oci(layers, packed=True)
    else:
        files = archives.docker([(("registry.test/pre:1",), layers)])
    before = state(containerd)
    (image,) = load(store, archives.write(tmp_path / "a.tar", files, program), this_machine())
    collect(containerd)
    assert image.names == ("registry.test/pre:1",)
    assert set(image.content()) <= content(containerd)
    after = state(containerd)
    assert len(after["snapshots ls"]) == len(before["snapshots ls"]) + 3
    assert after["leases ls"] == before["leases ls"]
    shown = next(
        line for line in ctr(containerd, "images", "ls") if line.startswith("registry.test/pre:1")
    )
    assert "io.cri-containerd.pinned=pinned" in shown
    checked = next(
        line for line in ctr(containerd, "images", "check") if "registry.test/pre:1" in line
    )
    assert "complete" in checked
    assert checked.split()[-1] == "true"  # unpacked


@pytest.mark.parametrize("packed", [False, True])
def test_it_makes_of_docker_save_what_ctr_does(
    containerd: Containerd, store: Store, tmp_path: Path, packed: bool
) -> None:
    layers = [archives.plain_layer(3), archives.plain_layer(4)]
    files = archives.docker([(("registry.test/pre:1",), layers)], packed=packed)
    path = archives.write(tmp_path / "a.tar", files)
    ctr(containerd, "images", "import", str(path))
    theirs = next(
        line for line in ctr(containerd, "images", "ls") if line.startswith("registry.test/pre:1")
    )
    (image,) = load(store, path, this_machine())
    assert image.target.digest == theirs.split()[2]
    assert image.target.media_type == theirs.split()[1]


@pytest.mark.parametrize("program", ["", "zstd"])
def test_of_many_platforms_only_this_machines_is_kept(
    containerd: Containerd, store: Store, tmp_path: Path, program: str
) -> None:
    layout = Layout()
    foreign = layout.manifest([archives.plain_layer(5)], architecture=archives.OTHER)
    ours = layout.manifest([archives.plain_layer(6)])
    proof = {
        **layout.manifest([archives.plain_layer(7)]),
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    layout.name(layout.index([foreign, ours, proof]), "registry.test/pre:1")
    path = archives.write(tmp_path / "a.tar", layout.whole(), program)
    before = content(containerd)
    (image,) = load(store, path, this_machine())
    assert content(containerd) - before == set(image.content())
    assert ours["digest"] in set(image.content())
    assert {foreign["digest"], proof["digest"]}.isdisjoint(content(containerd))


def test_one_that_lacks_what_other_machines_need_is_complete(
    containerd: Containerd, store: Store, tmp_path: Path
) -> None:
    layout = Layout()
    foreign = layout.manifest([archives.plain_layer(8)], architecture=archives.OTHER)
    layout.files.clear()
    layout.name(
        layout.index([foreign, layout.manifest([archives.plain_layer(9)])]), "registry.test/pre:1"
    )
    load(store, archives.write(tmp_path / "a.tar", layout.whole()), this_machine())
    assert "registry.test/pre:1" in names(containerd)


def test_many_images_and_names_share_what_they_have_in_common(
    containerd: Containerd, store: Store, tmp_path: Path
) -> None:
    shared = archives.plain_layer(10)
    files = archives.docker(
        [
            (("registry.test/pre:1", "registry.test/pre:2"), [shared, archives.plain_layer(11)]),
            (("registry.test/pre-other:1",), [shared]),
            ((), [archives.plain_layer(12)]),
        ]
    )
    found = load(store, archives.write(tmp_path / "a.tar", files), this_machine())
    assert [image.names for image in found] == [
        ("registry.test/pre:1", "registry.test/pre:2"),
        ("registry.test/pre-other:1",),
    ]
    assert {name for image in found for name in image.names} <= set(names(containerd))
    assert found[0].layers[0] == found[1].layers[0]


def test_what_is_there_already_is_no_error(
    containerd: Containerd, store: Store, tmp_path: Path
) -> None:
    path = archives.write(tmp_path / "a.tar", oci([archives.plain_layer(13, BIG)]))
    first = load(store, path, this_machine())
    before = state(containerd)
    assert load(store, path, this_machine()) == first
    assert state(containerd) == before


def test_a_name_moves_to_the_newer_image(
    containerd: Containerd, store: Store, tmp_path: Path
) -> None:
    load(store, archives.write(tmp_path / "a.tar", oci([archives.plain_layer(14)])), this_machine())
    path = archives.write(tmp_path / "b.tar", oci([archives.plain_layer(15)]))
    (image,) = load(store, path, this_machine())
    shown = next(
        line for line in ctr(containerd, "images", "ls") if line.startswith("registry.test/pre:1")
    )
    assert image.target.digest in shown
    assert "io.cri-containerd.pinned=pinned" in shown


def one_big() -> archives.Files:
    return oci([archives.plain_layer(16, BIG)])


def big_blob(files: archives.Files) -> str:
    return max(files, key=lambda name: len(files[name]))


def cut(data: bytes, by: int) -> bytes:
    return data[:-by]


def flipped(data: bytes | str) -> bytes:
    assert isinstance(data, bytes)
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 0xFF
    return bytes(changed)


def with_damaged_layer() -> bytes:
    files = one_big()
    return archives.tar({**files, big_blob(files): flipped(files[big_blob(files)])})


def without(files: archives.Files, name: str) -> bytes:
    return archives.tar({key: value for key, value in files.items() if key != name})


def foreign() -> bytes:
    layout = Layout()
    other = layout.manifest([archives.plain_layer(17)], architecture=archives.OTHER)
    layout.name(other, "registry.test/pre:1")
    return archives.tar(layout.whole())


def saved() -> archives.Files:
    first, second = [archives.plain_layer(18)], [archives.plain_layer(20)]
    tagged = [(("registry.test/pre:1",), first), (("registry.test/pre:2",), second)]
    return archives.docker(tagged)


BROKEN: dict[str, Callable[[], bytes]] = {
    "cut off": lambda: cut(archives.tar(one_big()), BIG // 2),
    "cut off, zstd": lambda: cut(archives.pack("zstd", archives.tar(one_big())), 3000),
    "cut off, gzip": lambda: cut(archives.pack("gzip", archives.tar(one_big())), 4),
    "damaged, xz": lambda: flipped(archives.pack("xz", archives.tar(one_big()))),
    "a layer is damaged": with_damaged_layer,
    "a layer is damaged, lz4": lambda: archives.pack("lz4", with_damaged_layer()),
    "a layer is missing": lambda: without(one_big(), big_blob(one_big())),
    "for another machine": foreign,
    "docker, a layer is another one": lambda: archives.tar(
        {**saved(), "00/layer.tar": archives.plain_layer(19)}
    ),
    "docker, a layer is missing": lambda: without(saved(), "00/layer.tar"),
    "docker, the second image is broken": lambda: archives.tar(
        {**saved(), "10/layer.tar": b"x" * 10240}
    ),
    "no layer, but noise": lambda: archives.tar(oci([b"noise" * 1000])),
    "noise": lambda: b"no archive at all\n" * 1000,
}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("cut off", "cut off"),
        ("cut off, zstd", "cut off"),
        ("cut off, gzip", "unexpected end of file"),
        ("damaged, xz", "cut off|corrupt|unexpected commit digest"),
        ("a layer is damaged", "unexpected commit digest"),
        ("a layer is damaged, lz4", "unexpected commit digest"),
        ("a layer is missing", "sha256:[0-9a-f]+ is missing"),
        ("for another machine", f"is for linux/{archives.OTHER}, and this machine is linux/"),
        ("docker, a layer is another one", "holds sha256:[0-9a-f]+, not sha256:"),
        ("docker, a layer is missing", "00/layer.tar is missing"),
        ("docker, the second image is broken", "holds|tar"),
        ("no layer, but noise", "tar|extract"),
        ("noise", "no tar|damaged"),
    ],
)
def test_what_is_broken_leaves_nothing_behind(
    containerd: Containerd, store: Store, tmp_path: Path, *, kind: str, why: str
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(BROKEN[kind]())
    before = state(containerd)
    with pytest.raises((BadArchive, Unusable, WrongLayer, CallFailed), match=why) as caught:
        load(store, path, this_machine())
    assert len(str(caught.value).strip().splitlines()) == 1
    assert state(containerd) == before
    good = archives.write(tmp_path / "b.tar", oci([archives.plain_layer(21)]))
    assert load(store, good, this_machine())  # the connection is as good as new


def test_an_import_that_was_killed_is_cleared_away_by_the_next(
    containerd: Containerd, store: Store, tmp_path: Path
) -> None:
    before = state(containerd)
    killed = Store(containerd.socket)
    with contextlib.suppress(OSError), killed.lease():
        left = killed.write("left", 4, [b"left"])
        killed.close()  # and nobody is there to end the lease
    assert left in content(containerd)
    load(store, archives.write(tmp_path / "a.tar", oci([archives.plain_layer(22)])), this_machine())
    assert left not in content(containerd)
    assert state(containerd)["leases ls"] == before["leases ls"]


async def test_a_pod_starts_from_an_image_as_soon_as_it_is_imported(
    node: Node, tmp_path: Path
) -> None:
    folder = node.config.images_dir
    folder.mkdir(parents=True)
    files = archives.docker(
        [(("pre-short",), archives.busybox_layers(busybox_files()))],
        config={"Cmd": ["sh"], "Env": ["PATH=/bin"]},
    )
    archives.write(folder / "a.tar.gz", files, "gzip")
    loader = Preloader(folder, node.containerd.socket, tmp_path / "record.json", node.runtime)
    await loader.load()
    shown = await node.runtime.image("docker.io/library/pre-short:latest")
    assert shown is not None
    assert shown.size > 0
    assert "docker.io/library/pre-short:latest" in await loader.pinned()
    collect(node.containerd)
    container = {"image": "pre-short", "imagePullPolicy": "Never"}
    node.api.put(PODS, pod("fresh", container=container))
    status = await node.ready("fresh")
    assert status["containerStatuses"][0]["image"] == "docker.io/library/pre-short:latest"


async def test_a_broken_archive_is_told_in_one_line_and_stops_no_other(
    containerd: Containerd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.tar").write_bytes(BROKEN["cut off"]())
    archives.write(folder / "b.tar", oci([archives.plain_layer(23)]))
    runtime = CriClient(containerd.socket)
    loader = Preloader(folder, containerd.socket, tmp_path / "record.json", runtime)
    with caplog.at_level(logging.INFO, "node.kubelet.preload"):
        await loader.load()
    assert await runtime.image("registry.test/pre:1") is not None
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("images: a.tar: damaged or cut off: ")
    assert told[1:] == ["images: b.tar: imported registry.test/pre:1"]
    assert list(json.loads((tmp_path / "record.json").read_text())) == ["b.tar"]
    await runtime.close()


def test_what_is_in_memory_does_not_grow_with_the_archive(
    containerd: Containerd, store: Store, tmp_path: Path
) -> None:
    path = archives.write(tmp_path / "a.tar", oci([archives.plain_layer(24, 24 << 20)]), "lz4")
    tracemalloc.start()
    try:
        load(store, path, this_machine())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20
