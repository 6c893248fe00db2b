"""CRI requests from our values: one function for each message with more than a few fields."""

from node.cri.base import (
    Auth,
    ContainerConfig,
    Mount,
    Namespaces,
    Profile,
    Resources,
    SandboxConfig,
    SecurityContext,
)
from node.cri.generated import api_pb2 as pb

_PROTOCOLS = {"TCP": pb.TCP, "UDP": pb.UDP, "SCTP": pb.SCTP}
_PROFILES = {
    "RuntimeDefault": pb.SecurityProfile.RuntimeDefault,
    "Unconfined": pb.SecurityProfile.Unconfined,
    "Localhost": pb.SecurityProfile.Localhost,
}


def _optional(value: int | None) -> pb.Int64Value | None:
    return None if value is None else pb.Int64Value(value=value)


def _namespaces(value: Namespaces) -> pb.NamespaceOption:
    return pb.NamespaceOption(
        network=int(value.network),  # type: ignore[arg-type]
        pid=int(value.pid),  # type: ignore[arg-type]
        ipc=int(value.ipc),  # type: ignore[arg-type]
        target_id=value.target,
    )


def _profile(value: Profile | None) -> pb.SecurityProfile | None:
    if value is None:
        return None
    return pb.SecurityProfile(profile_type=_PROFILES[value.type], localhost_ref=value.localhost_ref)


def resources(value: Resources | None) -> pb.LinuxContainerResources | None:
    if value is None:
        return None
    return pb.LinuxContainerResources(
        cpu_period=value.cpu_period,
        cpu_quota=value.cpu_quota,
        cpu_shares=value.cpu_shares,
        memory_limit_in_bytes=value.memory_limit,
        oom_score_adj=value.oom_score_adj,
        hugepage_limits=[
            pb.HugepageLimit(page_size=size, limit=limit) for size, limit in value.hugepages.items()
        ],
        unified=value.unified,
    )


def sandbox(config: SandboxConfig) -> pb.PodSandboxConfig:
    servers, searches, options = config.dns or ((), (), ())
    security = pb.LinuxSandboxSecurityContext(
        namespace_options=_namespaces(config.namespaces),
        privileged=config.privileged,
        run_as_user=_optional(config.run_as_user),
        run_as_group=_optional(config.run_as_group),
        supplemental_groups=config.supplemental_groups,
        seccomp=_profile(config.seccomp),
    )
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(
            name=config.name, uid=config.uid, namespace=config.namespace, attempt=config.attempt
        ),
        hostname=config.hostname,
        log_directory=config.log_directory,
        dns_config=(
            pb.DNSConfig(servers=servers, searches=searches, options=options)
            if config.dns is not None
            else None
        ),
        port_mappings=[
            pb.PortMapping(
                protocol=_PROTOCOLS[port.protocol],
                container_port=port.container_port,
                host_port=port.host_port,
                host_ip=port.host_ip,
            )
            for port in config.ports
        ],
        labels=config.labels,
        annotations=config.annotations,
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=config.cgroup_parent,
            security_context=security,
            sysctls=config.sysctls,
            overhead=resources(config.overhead),
            resources=resources(config.resources),
        ),
    )


def _mount(value: Mount) -> pb.Mount:
    return pb.Mount(
        container_path=value.container_path,
        host_path=value.host_path,
        readonly=value.readonly,
        propagation=int(value.propagation),  # type: ignore[arg-type]
        recursive_read_only=value.recursive_read_only,
    )


def _security(value: SecurityContext) -> pb.LinuxContainerSecurityContext:
    return pb.LinuxContainerSecurityContext(
        capabilities=pb.Capability(
            add_capabilities=value.add_capabilities, drop_capabilities=value.drop_capabilities
        ),
        privileged=value.privileged,
        namespace_options=_namespaces(value.namespaces),
        selinux_options=pb.SELinuxOption(**value.selinux) if value.selinux else None,
        run_as_user=_optional(value.run_as_user),
        run_as_username=value.run_as_username,
        run_as_group=_optional(value.run_as_group),
        readonly_rootfs=value.readonly_rootfs,
        supplemental_groups=value.supplemental_groups,
        supplemental_groups_policy=pb.Strict if value.strict_groups else pb.Merge,
        no_new_privs=value.no_new_privs,
        masked_paths=value.masked_paths,
        readonly_paths=value.readonly_paths,
        seccomp=_profile(value.seccomp),
        apparmor=_profile(value.apparmor),
    )


def container(config: ContainerConfig) -> pb.ContainerConfig:
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=pb.ImageSpec(image=config.image, user_specified_image=config.user_image),
        command=config.command,
        args=config.args,
        working_dir=config.working_dir,
        envs=[pb.KeyValue(key=key, value=value.encode()) for key, value in config.env],
        mounts=[_mount(mount) for mount in config.mounts],
        devices=[
            pb.Device(
                container_path=device.container_path,
                host_path=device.host_path,
                permissions=device.permissions,
            )
            for device in config.devices
        ],
        labels=config.labels,
        annotations=config.annotations,
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=pb.LinuxContainerConfig(
            resources=resources(config.resources), security_context=_security(config.security)
        ),
        stop_signal=pb.Signal.Value(config.stop_signal) if config.stop_signal else 0,  # type: ignore[arg-type]
    )


def auth(value: Auth | None) -> pb.AuthConfig | None:
    if value is None:
        return None
    return pb.AuthConfig(
        username=value.username,
        password=value.password,
        server_address=value.server_address,
        identity_token=value.identity_token,
        registry_token=value.registry_token,
    )
