"""Packages are taken as they were locked, and laid out without running anything of theirs."""

from pathlib import Path

import pytest
from appliance import debs, trim
from appliance.debs import DebError

from tests.fakes.debs import make_deb


def test_a_package_that_is_in_the_cache_is_not_fetched(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, "tool", {"usr/bin/tool": "x"})
    cache = tmp_path / "cache"
    cache.mkdir()
    there = cache / f"{package.sha256[:16]}_{package.file_name}"
    path.rename(there)
    assert debs.fetch([package], pytest.fail, cache) == {package: there}


def test_a_package_whose_bytes_are_others_is_refused_and_removed(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, "tool", {"usr/bin/tool": "x"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DebError, match="is not the locked file"):
        debs.verify(package, path)
    assert not path.exists()


def test_unpacking_merges_the_folders_and_leaves_out_what_is_not_wanted(tmp_path: Path) -> None:
    files = {
        "lib/old/a": "a",
        "usr/bin/tool": "#!/bin/sh\n",
        "usr/bin/also": "-> tool",
        "usr/share/doc/tool/changelog": "long",
        "usr/share/doc/tool/copyright": "Copyright: somebody",
        "usr/share/man/man1/tool.1": "long",
        "usr/share/locale/de/LC_MESSAGES/tool.mo": "long",
    }
    package, path = make_deb(tmp_path, "tool", files)
    tree = tmp_path / "tree"
    found = debs.unpack(path, tree, trim.keep)
    assert found.places == (
        "usr/bin/also",
        "usr/bin/tool",
        "usr/lib/old/a",
        "usr/share/doc/tool/copyright",
    )
    assert (tree / "usr/lib/old/a").read_text() == "a"
    assert (tree / "usr/bin/also").readlink() == Path("tool")
    assert not (tree / "lib").exists()
    assert debs.fields(found.control)["Version"] == package.version


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.deb"
    path.write_bytes(b"!<arch>\nnothing")
    with pytest.raises(DebError, match="not a Debian package"):
        debs.unpack(path, tmp_path / "tree", trim.keep)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("./usr/bin/x", "usr/bin/x"),
        ("./lib/x86_64-linux-gnu/libc.so", "usr/lib/x86_64-linux-gnu/libc.so"),
        ("./sbin/init", "usr/sbin/init"),
        ("./lib64", ""),
        ("./", ""),
        ("./library/x", "library/x"),
    ],
)
def test_paths_are_merged_into_usr(name: str, place: str) -> None:
    assert debs.merged(name) == place


def test_a_path_that_leaves_the_tree_is_refused() -> None:
    with pytest.raises(DebError, match="has the path"):
        debs.merged("./usr/../../etc/passwd")


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("usr/share/doc/libc6/copyright", True),
        ("usr/share/doc/libgcc-s1", True),  # a link to another package's folder
        ("usr/share/doc/libc6/NEWS.gz", False),
        ("usr/share/common-licenses/GPL-2", True),
        ("usr/share/man/man8/nft.8.gz", False),
        ("usr/lib/cni/bridge", True),
        ("usr/lib/cni/dhcp", False),
        ("usr/bin/ctr", False),
        ("usr/bin/containerd-shim-runc-v2", True),
        ("usr/bin/containerd-shim-runc-v1", False),
        ("usr/lib/systemd/systemd-logind", False),
        ("usr/lib/systemd/systemd-resolved", True),
        ("usr/lib/systemd/network/99-default.link", True),
        ("usr/lib/systemd/network/80-container-host0.network", False),
        ("usr/share/zoneinfo/Europe/Berlin", True),
        ("usr/lib/locale/C.utf8/LC_CTYPE", True),
        ("etc/init.d/ssh", False),
    ],
)
def test_what_is_left_out_is_known(place: str, kept: bool) -> None:
    assert trim.keep(place) is kept
