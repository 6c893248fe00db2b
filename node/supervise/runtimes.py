"""
Container runtimes beside runc: found on this machine, and told to containerd by their names.

A pod asks for one by a RuntimeClass; the classes come with the node, whether or not what they
name is installed. Names, programs and types are K3s's: OCI runtimes that take runc's place
under its shim, and shims of their own for WebAssembly.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# By name: the program that is looked for.
_OCI = {
    "crun": "crun",
    "nvidia": "nvidia-container-runtime",
    "nvidia-cdi": "nvidia-container-runtime.cdi",
    "nvidia-experimental": "nvidia-container-runtime-experimental",
}
_SHIMS = {
    "lunatic": "v1",
    "slight": "v1",
    "spin": "v2",
    "wasmedge": "v1",
    "wasmer": "v1",
    "wasmtime": "v1",
    "wws": "v1",
}
_PLUGIN = 'plugins."io.containerd.grpc.v1.cri".containerd.runtimes'


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A runtime that is there; ``path`` of its program, or of its shim."""

    name: str
    path: str
    shim: str = ""  # the type of a shim of its own; "": runc's, which starts the program


def installed(which: Callable[[str], str | None] = shutil.which) -> tuple[Installed, ...]:
    """What is found in PATH, in the order of the names."""
    found = [
        Installed(name=name, path=path)
        for name, program in _OCI.items()
        if (path := which(program)) is not None
    ]
    found += [
        Installed(name=name, path=path, shim=f"io.containerd.{name}.{version}")
        for name, version in _SHIMS.items()
        if (path := which(f"containerd-shim-{name}-{version}")) is not None
    ]
    return tuple(sorted(found, key=lambda runtime: runtime.name))


def tables(runtimes: Sequence[Installed], *, systemd_cgroup: bool) -> str:
    """Of containerd's configuration, in the version 2 format."""
    cgroup = "true" if systemd_cgroup else "false"
    text = ""
    for runtime in runtimes:
        text += f'\n[{_PLUGIN}."{runtime.name}"]\n'
        if runtime.shim:
            text += f'  runtime_type = "{runtime.shim}"\n  runtime_path = "{runtime.path}"\n'
        else:
            text += (
                '  runtime_type = "io.containerd.runc.v2"\n'
                f'\n[{_PLUGIN}."{runtime.name}".options]\n'
                f'  BinaryName = "{runtime.path}"\n  SystemdCgroup = {cgroup}\n'
            )
    return text
