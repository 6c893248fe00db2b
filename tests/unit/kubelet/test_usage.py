"""Disk use of folders, and the text that Prometheus reads."""

import os
from pathlib import Path

from node.kubelet import usage
from node.kubelet.exposition import Page


def test_a_folder_takes_what_is_allocated_and_hard_links_count_once(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "file").write_bytes(bytes(10_000))
    os.link(tmp_path / "file", tmp_path / "deep" / "again")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    found = usage.of_tree(tmp_path)
    assert found.inodes == 4
    own = sum(p.lstat().st_blocks for p in (tmp_path, tmp_path / "deep", tmp_path / "file"))
    assert found.used == own * 512 + (tmp_path / "sparse").lstat().st_blocks * 512
    assert found.used < 1 << 20


def test_a_folder_that_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert usage.of_tree(tmp_path / "gone") == usage.NOTHING


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr")
    assert usage.of_tree(tmp_path).inodes == 2


def test_a_file_system_tells_what_others_than_root_may_have(tmp_path: Path) -> None:
    found, known = usage.of_file_system(tmp_path), os.statvfs(tmp_path)
    assert found.capacity == known.f_blocks * known.f_frsize
    assert found.available <= found.capacity - found.used


def test_metrics_are_written_with_their_labels_escaped() -> None:
    page = Page()
    page.begin("a_total", "counter", "[ALPHA] What it is")
    page.add("a_total", 3, {"x": 'say "hi"\\\n'}, stamp=17)
    page.one("b", "gauge", "[BETA] Half", 0.5)
    assert page.text() == (
        "# HELP a_total [ALPHA] What it is\n# TYPE a_total counter\n"
        'a_total{x="say \\"hi\\"\\\\\\n"} 3 17\n'
        "# HELP b [BETA] Half\n# TYPE b gauge\nb 0.5\n"
    )
