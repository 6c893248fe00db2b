"""containerd's configuration, and what of the machine it depends on."""

import tomllib
from pathlib import Path

import pytest

from node import settings
from node.config import Config, from_settings
from node.supervise import containerd
from node.supervise.containerd import Machine

MACHINE = Machine(cni_bin_dir="/usr/lib/cni", systemd_cgroup=False, oom_scores=True)
CRI = "io.containerd.grpc.v1.cri"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    flags = [f"--data-dir={tmp_path}/data", f"--run-dir={tmp_path}/run", "--node-ip=192.0.2.7"]
    return from_settings(settings.read("server", [*flags, "--node-name=n1"], {}))


def test_the_configuration_is_toml_with_our_folders(config: Config) -> None:
    read = tomllib.loads(containerd.configuration(config, MACHINE))
    assert read["version"] == 2
    assert read["grpc"]["address"] == str(config.containerd_socket)
    cri = read["plugins"][CRI]
    assert cri["cni"]["conf_dir"] == str(config.cni_conf_dir)
    assert cri["sandbox_image"] == config.pause_image
    assert cri["restrict_oom_score_adj"] is False


@pytest.mark.parametrize("systemd", [True, False])
def test_the_cgroup_driver_is_the_machines(config: Config, systemd: bool) -> None:
    machine = Machine(cni_bin_dir="/x", systemd_cgroup=systemd, oom_scores=False)
    cri = tomllib.loads(containerd.configuration(config, machine))["plugins"][CRI]
    assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is systemd
    assert cri["restrict_oom_score_adj"] is True


def test_an_unchanged_configuration_is_not_written_again(config: Config) -> None:
    made = containerd.service(config, "/usr/bin/containerd")
    path = Path(made.argv[-1])
    before = path.stat().st_mtime_ns
    assert containerd.service(config, "/usr/bin/containerd") == made
    assert path.stat().st_mtime_ns == before
