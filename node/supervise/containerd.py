"""
containerd as a child: its configuration, and how it is kept small.

The configuration is in the version 2 format, which containerd 1.6 to 2.x all
read. Plugins that no node of ours needs are left out, and Go's runtime is told
to keep its heap small. A GOMEMLIMIT that is about as large as the heap is not for
that: it saves a quarter of a MiB, and collects three times a second at idle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from node.config import Config
from node.host.files import write_if_changed
from node.registries import HOSTS, MADE_HERE, Registries, credentials, hosts, parse
from node.settings import UsageError
from node.supervise.base import Executed
from node.supervise.runtimes import Installed, installed, tables

UNUSED_PLUGINS = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
)
SMALL = {"GOGC": "20", "GOMAXPROCS": "2"}
CAP_SYS_RESOURCE = 24
RUNC = "runc"
CNI_FOLDERS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What of this machine the configuration depends on."""

    cni_bin_dir: str
    systemd_cgroup: bool  # systemd owns the cgroup tree
    oom_scores: bool  # processes may be protected from the kernel's out-of-memory killer
    runtimes: tuple[Installed, ...] = ()  # beside runc


def look_at_machine() -> Machine:
    found = (folder for folder in CNI_FOLDERS if Path(folder, "bridge").exists())
    return Machine(
        cni_bin_dir=next(found, CNI_FOLDERS[0]),
        systemd_cgroup=Path("/run/systemd/system").is_dir(),
        oom_scores=_may_lower_oom_scores(),
        runtimes=installed(),
    )


def _may_lower_oom_scores() -> bool:
    """Within some virtual machines and containers root lacks the capability for it."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective, 16) >> CAP_SYS_RESOURCE & 1)


def configuration(config: Config, machine: Machine, credentials: str = "") -> str:
    """
    containerd's config.toml. Raises :class:`UsageError` for a runtime that is not there.

    ``credentials``: tables of :func:`node.registries.credentials`.
    """
    unused = ", ".join(f'"{plugin}"' for plugin in UNUSED_PLUGINS)
    return f"""\
# Written at each start of pinnace; changes here do not last.
version = 2
root = "{config.agent_dir / "containerd"}"
state = "{config.containerd_socket.parent}"
disabled_plugins = [{unused}]

[grpc]
  address = "{config.containerd_socket}"

[debug]
  level = "warn"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{config.pause_image}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  restrict_oom_score_adj = {_boolean(not machine.oom_scores)}
  disable_apparmor = {_boolean(not Path("/sys/kernel/security/apparmor").exists())}

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{machine.cni_bin_dir}"
  conf_dir = "{config.cni_conf_dir}"
  max_conf_num = 1

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  discard_unpacked_layers = true
  default_runtime_name = "{_default_runtime(config, machine)}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = {_boolean(machine.systemd_cgroup)}
{tables(machine.runtimes, systemd_cgroup=machine.systemd_cgroup)}
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{_certs_dir(config)}"
{credentials}"""


def _certs_dir(config: Config) -> Path:
    return config.agent_dir / "etc" / "containerd" / "certs.d"


def _registries(config: Config) -> Registries:
    """Of registries.yaml. Raises :class:`UsageError` where that is there and wrong."""
    path = config.private_registry
    try:
        return parse(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        return parse(None)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as err:
        raise UsageError(f"{path}: {' '.join(str(err).split())}") from err


def _write_hosts(folder: Path, wanted: Mapping[str, str]) -> None:
    """One folder for each registry; those of an earlier registries.yaml go."""
    for name, text in wanted.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_if_changed(folder / name / HOSTS, text)
    for path in folder.glob(f"*/{HOSTS}"):
        if path.parent.name not in wanted and path.read_text().startswith(MADE_HERE):
            path.unlink()


def _default_runtime(config: Config, machine: Machine) -> str:
    """Of pods that name no class. Raises :class:`UsageError` where it is not installed."""
    wanted = config.default_runtime or RUNC
    found = [RUNC, *(runtime.name for runtime in machine.runtimes)]
    if wanted not in found:
        raise UsageError(
            f"--default-runtime={wanted} is not installed; found here: {', '.join(found)}"
        )
    return wanted


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def service(config: Config, program: str) -> Executed:
    """Write the configuration where it changed, and say how containerd is started."""
    path = config.agent_dir / "etc" / "containerd" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    config.cni_conf_dir.mkdir(parents=True, exist_ok=True)
    registries = _registries(config)
    _write_hosts(_certs_dir(config), hosts(registries))
    text = configuration(config, look_at_machine(), credentials(registries))
    # It may hold passwords of registries.
    write_if_changed(path, text, mode=0o600)
    path.chmod(0o600)
    return Executed(
        name="containerd",
        argv=(program, "--config", str(path)),
        log=config.run_dir / "containerd.log",  # in memory: a log must not wear the flash
        environment=SMALL,
    )
