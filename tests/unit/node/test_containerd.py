"""containerd's configuration, and what of the machine it depends on."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from controlplane.deploy.folder import PACKAGED
from node import settings
from node.config import Config, from_settings
from node.settings import UsageError
from node.supervise import containerd
from node.supervise.containerd import Machine
from node.supervise.runtimes import installed

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


def test_runtimes_that_are_installed_are_told_to_containerd(config: Config) -> None:
    programs = {
        "nvidia-container-runtime": "/usr/bin/nvidia-container-runtime",
        "containerd-shim-spin-v2": "/usr/local/bin/containerd-shim-spin-v2",
    }
    machine = replace(MACHINE, systemd_cgroup=True, runtimes=installed(programs.get))
    read = tomllib.loads(containerd.configuration(config, machine))["plugins"][CRI]["containerd"]
    assert set(read["runtimes"]) == {"runc", "nvidia", "spin"}
    assert read["runtimes"]["nvidia"] == {
        "runtime_type": "io.containerd.runc.v2",
        "options": {"BinaryName": programs["nvidia-container-runtime"], "SystemdCgroup": True},
    }
    assert read["runtimes"]["spin"] == {
        "runtime_type": "io.containerd.spin.v2",
        "runtime_path": programs["containerd-shim-spin-v2"],
    }
    assert read["default_runtime_name"] == "runc"


def test_every_packaged_class_can_be_found() -> None:
    classes = yaml.safe_load_all((PACKAGED / "runtimes.yaml").read_text())
    handlers = {(item["metadata"]["name"], item["handler"]) for item in classes}
    assert handlers == {(r.name, r.name) for r in installed(lambda program: f"/bin/{program}")}


def test_the_default_runtime_must_be_there(config: Config) -> None:
    wanted = replace(config, default_runtime="crun")
    with pytest.raises(UsageError, match=r"--default-runtime=crun is not installed.*: runc$"):
        containerd.configuration(wanted, MACHINE)
    machine = replace(MACHINE, runtimes=installed({"crun": "/usr/bin/crun"}.get))
    read = tomllib.loads(containerd.configuration(wanted, machine))
    assert read["plugins"][CRI]["containerd"]["default_runtime_name"] == "crun"


def test_registries_yaml_becomes_what_containerd_reads(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "registries.yaml"
    config = replace(config, private_registry=file)
    file.write_text(
        "mirrors: {docker.io: {endpoint: ['https://mirror.lan:5000']}}\n"
        "configs: {'mirror.lan:5000': {auth: {username: me, password: geheim}}}\n"
    )
    path = Path(containerd.service(config, "containerd").argv[-1])
    read = tomllib.loads(path.read_text())["plugins"][CRI]["registry"]
    assert read["configs"]["mirror.lan:5000"]["auth"]["password"] == "geheim"
    assert path.stat().st_mode & 0o777 == 0o600
    hosts = Path(read["config_path"]) / "docker.io/hosts.toml"
    assert "https://mirror.lan:5000" in tomllib.loads(hosts.read_text())["host"]
    theirs = Path(read["config_path"]) / "own.lan/hosts.toml"
    theirs.parent.mkdir()
    theirs.write_text("")
    file.write_text("mirrors: {}\n")
    containerd.service(config, "containerd")
    assert not hosts.exists()
    assert theirs.exists()
    assert "geheim" not in path.read_text()


def test_a_wrong_registries_yaml_is_named(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "registries.yaml"
    for text in ("mirrors: {a: {rewrite: {}}}", "a: b: c", "mirror: {}"):
        file.write_text(text)
        with pytest.raises(UsageError, match=r"registries\.yaml"):
            containerd.service(replace(config, private_registry=file), "containerd")
