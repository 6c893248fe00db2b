"""What would fail later is said before the start, in one line."""

import os
import socket
from pathlib import Path

import pytest

from node.supervise import preflight
from node.supervise.preflight import CannotStart


def test_a_run_folder_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="too long for sockets"):
        preflight._check_run_dir(tmp_path / ("x" * 100))
    preflight._check_run_dir(Path("/run/pinnace"))


def test_a_port_in_use_is_named_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=f"127.0.0.1:{port}.*--https-listen-port"):
            preflight._check_port("127.0.0.1", port, "https-listen-port")


def test_a_second_daemon_is_told_of_the_first(tmp_path: Path) -> None:
    with preflight.lock(tmp_path), pytest.raises(CannotStart, match="already runs as process"):
        preflight.lock(tmp_path)


def test_a_data_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="cannot write to the data folder"):
        preflight._check_data_dir(tmp_path / "file" / "data")


def test_somebody_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotStart, match="must run as root: use sudo"):
        preflight.check({})


def test_a_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotStart, match="containerd is missing: apt-get install containerd"):
        preflight.check({})


def test_a_missing_kernel_feature_is_said_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "PROGRAMS", {})
    monkeypatch.setattr(preflight, "missing_features", lambda: ["overlayfs is missing: load it"])
    data = tmp_path / "data"
    with pytest.raises(CannotStart, match="overlayfs is missing"):
        preflight.check({"data-dir": str(data), "run-dir": str(tmp_path)})
    assert not data.exists()
