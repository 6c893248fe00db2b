"""Reading of archives: whatever is in them, in whatever order, cut off wherever."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.preload.archive import Archive, BadArchive, Member
from node.preload.plan import Blob, Image, Machine, Unusable, images
from node.preload.run import Ingest
from tests.fakes import archives
from tests.fakes.archives import Layout

MACHINE = Machine(archives.MACHINE)
NAMES = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,120}){0,2}", fullmatch=True)
CONTENT = st.dictionaries(NAMES, st.binary(max_size=3000), max_size=6)


def read(path: Path) -> dict[str, bytes]:
    return {member.name: b"".join(pieces) for member, pieces in Archive(path).members()}


class Sink:
    """Takes all, and keeps none."""

    def write(self, ref: str, size: int, chunks: Iterable[bytes], expected: str = "") -> str:
        whole = hashlib.sha256()
        for chunk in chunks:
            whole.update(chunk)
        return f"sha256:{whole.hexdigest()}"


def look(path: Path) -> tuple[dict[str, Blob], dict[str, bytes]]:
    ingest = Ingest(Sink())
    for member, pieces in Archive(path).members():
        ingest.take(member, pieces)
    return ingest.files(), ingest.documents


def plan(path: Path) -> list[Image] | str:
    """Or why not."""
    try:
        return images(*look(path), MACHINE, "none")
    except (BadArchive, Unusable) as err:
        return str(err)


@settings(max_examples=40, deadline=None)
@given(files=CONTENT, program=st.sampled_from(["", "gzip", "zstd", "lz4"]))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], program: str
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.tar"
    assert read(archives.write(path, files, program)) == files


@pytest.mark.parametrize("program", ["", *archives.PACKERS])
def test_members_that_nobody_reads_are_passed_over(tmp_path: Path, program: str) -> None:
    files: archives.Files = {"./a": b"1" * 3_000_000, "b/../c": b"2", "l": "a"}
    archive = Archive(archives.write(tmp_path / "a.tar", files, program))
    found = [member for member, _ in archive.members()]
    assert found == [Member("a", 3_000_000), Member("c", 1), Member("l", 0, "a")]
    assert archive.jumps == (program == "")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), program=st.sampled_from(["", "gzip", "zstd", "lz4"]))
def test_a_cut_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, program: str
) -> None:
    files = archives.docker([(("test/a:1",), [archives.plain_layer(1)])])
    whole = archives.pack(program, archives.tar(files))
    path = tmp_path_factory.mktemp("a") / "a.tar"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    found = plan(path)
    if isinstance(found, str):
        assert len(found.splitlines()) == 1
    else:  # only of the end, which nobody needs
        assert not program
        assert {**read(path), **links(files)} == files
        assert found[0].names == ("docker.io/test/a:1",)


def links(files: archives.Files) -> archives.Files:
    return {name: target for name, target in files.items() if isinstance(target, str)}


@settings(max_examples=30, deadline=None)
@given(order=st.integers(0, 1 << 32), kind=st.sampled_from(["oci", "docker"]))
def test_the_order_of_an_archive_says_nothing(
    tmp_path_factory: pytest.TempPathFactory, order: int, kind: str
) -> None:
    layers = [archives.plain_layer(n % 2) for n in range(3)]
    if kind == "oci":
        layout = Layout()
        entries = [layout.manifest(layers, architecture=a) for a in ("s390x", archives.MACHINE)]
        layout.name(layout.index(entries), "test.test/a:1")
        files = layout.whole()
    else:
        files = archives.docker([(("test.test/a:1",), layers), (("test.test/b:1",), layers[:1])])
    folder = tmp_path_factory.mktemp("a")
    plain, shuffled = folder / "plain.tar", folder / "shuffled.tar"
    plain.write_bytes(archives.tar(files))
    shuffled.write_bytes(archives.tar(files, shuffled=order))
    expected = images(*look(plain), MACHINE, "none")
    assert images(*look(shuffled), MACHINE, "none") == expected
    assert expected[0].names == ("test.test/a:1",)


def test_links_that_go_round_in_circles_end(tmp_path: Path) -> None:
    files: archives.Files = {"a": "b", "b": "a", "c": "d", "d": "e", "e": b"x"}
    found, _ = look(archives.write(tmp_path / "a.tar", files))
    assert set(found) == {"c", "d", "e"}


def test_a_program_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archives.write(tmp_path / "a.tar", {"a": b"1"}, "lz4")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadArchive, match="lz4 is not installed"):
        read(path)


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=2000))
def test_noise_is_no_archive(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("a") / "a.tar"
    path.write_bytes(noise)
    assert isinstance(plan(path), str)
