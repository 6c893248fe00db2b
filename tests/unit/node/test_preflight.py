"""What would fail later is said before the start, in one line."""

import os
import socket
from pathlib import Path

import pytest

from node.supervise import preflight
from node.supervise.preflight import CannotStart, data_problem


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


def datastore(data: Path, *, size: int = 1) -> Path:
    path = data / "server" / "db" / "state.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * size)
    return path


def test_a_first_start_may_be_empty_and_so_may_one_that_was_cut_off(tmp_path: Path) -> None:
    preflight._check_lost(tmp_path, begin_empty=False)
    (tmp_path / "server" / "tls").mkdir(parents=True)
    (tmp_path / "agent" / "pods").mkdir(parents=True)
    preflight._check_lost(tmp_path, begin_empty=False)


@pytest.mark.parametrize("sign", ["clock", "agent/pods/uid/etc-hosts"])
def test_a_datastore_that_is_lost_is_not_taken_for_an_empty_one(tmp_path: Path, sign: str) -> None:
    (tmp_path / sign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / sign).touch()
    with pytest.raises(CannotStart, match="is lost: this would begin as an empty cluster"):
        preflight._check_lost(tmp_path, begin_empty=False)
    preflight._check_lost(tmp_path, begin_empty=True)
    path = datastore(tmp_path, size=0)
    with pytest.raises(CannotStart, match="is lost"):
        preflight._check_lost(tmp_path, begin_empty=False)
    path.write_bytes(b"x")
    preflight._check_lost(tmp_path, begin_empty=False)


@pytest.mark.parametrize("reason", ["DataMissing", "DataCorrupt", "DataReadOnly"])
def test_a_machine_without_its_data_partition_begins_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    problem = tmp_path / "problem"
    problem.write_text(f"ConfigMissing: no card\n{reason}: /dev/vda6 cannot be repaired\n")
    monkeypatch.setattr(preflight, "data_problem", lambda: data_problem(problem))
    with pytest.raises(CannotStart, match=f"cannot be used \\({reason}: /dev/vda6 cannot be rep"):
        preflight._check_lost(tmp_path, begin_empty=False)
    preflight._check_lost(tmp_path, begin_empty=True)


def test_a_data_partition_that_was_repaired_is_one(tmp_path: Path) -> None:
    (tmp_path / "problem").write_text("DataRepaired: /dev/vda6 was damaged and is repaired\n")
    assert data_problem(tmp_path / "problem") == ""
    assert data_problem(tmp_path / "not-there") == ""


def test_a_node_starts_on_a_full_disk_that_has_its_datastore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "LEAST_FREE_BYTES", 2**70)
    with pytest.raises(CannotStart, match="is full"):
        preflight._check_data_dir(tmp_path)
    datastore(tmp_path)
    preflight._check_data_dir(tmp_path)
