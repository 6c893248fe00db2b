"""
The contract of a container runtime: CRI v1 as frozen values and a few verbs.

:class:`Runtime` is spoken by ``client.CriClient`` (containerd 1.6 to 2.x); one
suite (``tests/conformance/test_cri.py``) runs over containerd and over the fake
that the other tests use.

Times are nanoseconds since the epoch as CRI gives them, 0 where nothing has
happened yet. Every call may raise :class:`RuntimeUnavailable` (nobody answers:
try again later), :class:`NotFound` or :class:`RuntimeRefused` (the runtime said
no, with its own text).
"""

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class RuntimeFailure(Exception):
    """Anything that a runtime call may end with, other than success."""


class RuntimeUnavailable(RuntimeFailure):
    """Nobody answers on the socket, or the answer took too long."""


class NotFound(RuntimeFailure):
    """No such sandbox, container or image."""


class RuntimeRefused(RuntimeFailure):
    """The runtime tried and said why not."""


class Unsupported(RuntimeFailure):
    """This version of the runtime does not know the call."""


class ContainerState(enum.Enum):
    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3


class NamespaceMode(enum.IntEnum):
    POD = 0
    CONTAINER = 1
    NODE = 2
    TARGET = 3


class Propagation(enum.IntEnum):
    PRIVATE = 0
    HOST_TO_CONTAINER = 1
    BIDIRECTIONAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.CONTAINER
    ipc: NamespaceMode = NamespaceMode.POD
    target: str = ""  # container id, with pid TARGET


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """seccomp or AppArmor: ``type`` is RuntimeDefault, Unconfined or Localhost."""

    type: str
    localhost_ref: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    protocol: str  # TCP, UDP, SCTP
    container_port: int
    host_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Zero means: not said. Memory in bytes, CPU period and quota in microseconds."""

    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    memory_limit: int = 0
    oom_score_adj: int = 0
    hugepages: Mapping[str, int] = field(default_factory=dict)  # page size ("2MB") → bytes
    unified: Mapping[str, str] = field(default_factory=dict)  # cgroup v2 files


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    name: str
    namespace: str
    uid: str
    attempt: int
    hostname: str = ""
    log_directory: str = ""
    dns: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] | None = None  # servers, …
    ports: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    namespaces: Namespaces = Namespaces()
    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    seccomp: Profile = Profile(type="RuntimeDefault")
    overhead: Resources | None = None
    resources: Resources | None = None
    runtime_handler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    container_path: str
    host_path: str
    readonly: bool = False
    propagation: Propagation = Propagation.PRIVATE
    recursive_read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    container_path: str
    host_path: str
    permissions: str = "mrw"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext:
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    privileged: bool = False
    namespaces: Namespaces = Namespaces()
    run_as_user: int | None = None
    run_as_username: str = ""
    run_as_group: int | None = None
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    strict_groups: bool = False
    no_new_privs: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: Profile | None = None
    apparmor: Profile | None = None
    selinux: Mapping[str, str] = field(default_factory=dict)  # user, role, type, level


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    name: str
    attempt: int
    image: str  # what the runtime knows it by: the image's id
    user_image: str = ""  # as the pod wrote it
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""  # relative to the sandbox's log directory
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    security: SecurityContext = SecurityContext()
    stop_signal: str = ""  # SIGUSR1, …; "": the image's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    ready: bool
    created_at: int
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    runtime_handler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStatus:
    sandbox: Sandbox
    ips: tuple[str, ...]  # empty with the host's network
    host_network: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: ContainerState
    created_at: int
    image_ref: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus:
    id: str
    name: str
    attempt: int
    state: ContainerState
    created_at: int
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""  # a tag, as the runtime resolved it
    image_ref: str = ""  # repo@sha256:… or sha256:…
    image_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""  # absolute
    user: tuple[int, int, tuple[int, ...]] | None = None  # uid, gid, groups; newer runtimes only


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int  # bytes
    uid: int | None = None
    username: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    username: str = ""
    password: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    stdout: bytes
    stderr: bytes
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStats:
    id: str
    name: str
    labels: Mapping[str, str]
    timestamp: int  # of the CPU figures
    cpu_ns: int  # since the container started
    cpu_nano_cores: int | None
    memory_usage: int  # bytes, as memory_working_set, memory_rss and the rest
    memory_working_set: int
    memory_rss: int
    page_faults: int
    major_page_faults: int
    rootfs_used: int
    rootfs_inodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FsUsage:
    mountpoint: str
    used_bytes: int
    inodes_used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a runtime handler can do; an older runtime says nothing and can do nothing."""

    recursive_read_only: bool = False
    user_namespaces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeStatus:
    runtime_ready: bool
    network_ready: bool
    message: str  # why not; "" when both are
    info: Mapping[str, str] = field(default_factory=dict)  # JSON texts, when verbose
    handlers: Mapping[str, Features] = field(default_factory=dict)  # "": the default one
    strict_groups: bool = False  # supplementalGroupsPolicy: Strict is done


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeEvent:
    """Something happened to a container or a sandbox; what it is now must be asked for."""

    id: str  # of the container; of the sandbox where that is what changed
    kind: str  # created, started, stopped, deleted


class Runtime(Protocol):
    async def version(self) -> Version: ...

    async def status(self, *, verbose: bool = False) -> RuntimeStatus: ...

    async def cgroup_driver(self) -> str:
        """cgroupfs or systemd."""

    async def run_sandbox(self, config: SandboxConfig) -> str:
        """Network included; the sandbox's id."""

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Stops its containers too, at once. To stop or remove what is gone is no error."""

    async def remove_sandbox(self, sandbox_id: str) -> None: ...

    async def sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[Sandbox]: ...

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus: ...

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig
    ) -> str: ...

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, timeout: int) -> None:  # noqa: ASYNC109
        """The stop signal, then after ``timeout`` seconds SIGKILL; returns when it is gone."""

    async def remove_container(self, container_id: str) -> None: ...

    async def containers(
        self,
        labels: Mapping[str, str] | None = None,
        *,
        id: str = "",  # noqa: A002
    ) -> Sequence[Container]: ...

    async def container_status(self, container_id: str) -> ContainerStatus: ...

    async def update_resources(self, container_id: str, resources: Resources) -> None: ...

    async def reopen_log(self, container_id: str) -> None: ...

    async def exec_sync(
        self,
        container_id: str,
        command: Sequence[str],
        timeout: float,  # noqa: ASYNC109
    ) -> ExecResult:
        """``timeout`` in seconds, 0: none; TimeoutError when it passed."""

    async def exec_url(
        self,
        container_id: str,
        command: Sequence[str],
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> str: ...

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str: ...

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str: ...

    async def stats(self, labels: Mapping[str, str] | None = None) -> Sequence[ContainerStats]: ...

    async def images(self) -> Sequence[Image]: ...

    async def image(self, reference: str) -> Image | None: ...

    async def pull(self, reference: str, auth: Auth | None, sandbox: SandboxConfig | None) -> str:
        """The image's id; waits for as long as it takes."""

    async def remove_image(self, reference: str) -> None: ...

    async def image_fs(self) -> Sequence[FsUsage]: ...

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """
        What happens from now on, until the connection ends.

        Raises :class:`Unsupported` where the runtime has no stream of events.
        """

    async def close(self) -> None: ...
