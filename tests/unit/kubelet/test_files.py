"""The files of volumes: switched over at once, and never outside of their volume."""

from pathlib import Path, PurePath

import pytest

from node.kubelet.files import File, make_mount_points, write_payload


def payload(**files: str) -> dict[str, File]:
    return {name: File(text.encode(), 0o644) for name, text in files.items()}


def test_every_name_is_a_link_into_one_folder(tmp_path: Path) -> None:
    assert write_payload(tmp_path, payload(a="1", b="2"), None)
    assert (tmp_path / "a").read_text() == "1"
    assert (tmp_path / "a").readlink() == Path("..data/a")
    assert (tmp_path / "..data").is_symlink()


def test_a_change_replaces_the_folder_and_takes_old_names_away(tmp_path: Path) -> None:
    write_payload(tmp_path, payload(a="1", b="2"), None)
    before = (tmp_path / "..data").readlink()
    assert write_payload(tmp_path, payload(a="new", c="3"), None)
    assert (tmp_path / "..data").readlink() != before
    assert not (tmp_path / before).exists()
    names = {p.name for p in tmp_path.iterdir() if not p.name.startswith("..")}
    assert names == {"a", "c"}
    assert (tmp_path / "a").read_text() == "new"


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    write_payload(tmp_path, payload(a="1"), None)
    before = (tmp_path / "..data").readlink()
    assert write_payload(tmp_path, payload(a="1"), None) is False
    assert (tmp_path / "..data").readlink() == before


def test_paths_with_folders_are_linked_by_their_first_part(tmp_path: Path) -> None:
    write_payload(tmp_path, {"x/y": File(b"deep", 0o400)}, None)
    assert (tmp_path / "x").readlink() == Path("..data/x")
    assert (tmp_path / "x" / "y").read_text() == "deep"
    assert (tmp_path / "x" / "y").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("mode", [0o400, 0o644, 0o755])
def test_files_have_their_mode(tmp_path: Path, mode: int) -> None:
    write_payload(tmp_path, {"f": File(b"", mode)}, None)
    assert (tmp_path / "f").stat().st_mode & 0o777 == mode
    assert write_payload(tmp_path, {"f": File(b"", mode)}, None) is False
    assert write_payload(tmp_path, {"f": File(b"", 0o600)}, None) is True


def test_places_for_other_volumes_stay_when_the_content_changes(tmp_path: Path) -> None:
    write_payload(tmp_path, payload(a="1", b="2"), None)
    make_mount_points(tmp_path, [PurePath("custom"), PurePath("x/y"), PurePath("a")])
    assert (tmp_path / "a").read_text() == "1"
    assert (tmp_path / "x" / "y").is_dir()
    write_payload(tmp_path, payload(custom="of the same name"), None)
    assert (tmp_path / "custom").is_dir()
    assert not (tmp_path / "a").is_symlink()
