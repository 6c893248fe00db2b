"""
What a pod calls itself and others: hostname, /etc/hosts, and resolv.conf.

Pure; the machine's own resolv.conf comes as text. Source: "DNS for Services and Pods".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.client.base import Object
from node.kubelet.base import Settings

_MAX_SERVERS, _MAX_SEARCHES = 3, 32
_MAX_HOSTNAME = 63
Dns = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ResolvConf:
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        match words[:1]:
            case ["nameserver"] if len(words) > 1:
                servers.append(words[1])
            case ["search"]:
                searches = tuple(word if word == "." else word.rstrip(".") for word in words[1:])
            case ["options"]:
                options = tuple(words[1:])
            case _:
                pass
    return ResolvConf(tuple(servers), searches, options)


def hostname(pod: Object, node_name: str) -> str:
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return node_name
    if override := spec.get("hostnameOverride"):
        return str(override)
    name = str(spec.get("hostname") or pod["metadata"]["name"])
    return name[:_MAX_HOSTNAME].rstrip("-.")


def domain(pod: Object, cluster_domain: str) -> str:
    """Of a pod with a subdomain: ``<subdomain>.<namespace>.svc.<cluster domain>``; else ""."""
    spec = pod["spec"]
    if not spec.get("subdomain") or spec.get("hostNetwork"):
        return ""
    return f"{spec['subdomain']}.{pod['metadata']['namespace']}.svc.{cluster_domain}"


def uts_hostname(pod: Object, settings: Settings) -> str:
    """What ``hostname`` prints inside; the whole name with setHostnameAsFQDN."""
    name = hostname(pod, settings.node_name)
    full = domain(pod, settings.cluster_domain)
    return f"{name}.{full}" if pod["spec"].get("setHostnameAsFQDN") and full else name


def hosts_file(pod: Object, settings: Settings, ips: Sequence[str], host_file: str) -> str:
    """The managed /etc/hosts; ``host_file`` is the machine's, for pods on its network."""
    if pod["spec"].get("hostNetwork"):
        text = "# Kubernetes-managed hosts file (host network).\n" + host_file
    else:
        text = (
            "# Kubernetes-managed hosts file.\n"
            "127.0.0.1\tlocalhost\n"
            "::1\tlocalhost ip6-localhost ip6-loopback\n"
            "fe00::0\tip6-localnet\n"
            "fe00::0\tip6-mcastprefix\n"
            "fe00::1\tip6-allnodes\n"
            "fe00::2\tip6-allrouters\n"
        )
        name, full = hostname(pod, settings.node_name), domain(pod, settings.cluster_domain)
        names = f"{name}.{full}\t{name}" if full else name
        text += "".join(f"{ip}\t{names}\n" for ip in ips)
    if aliases := pod["spec"].get("hostAliases"):
        lines = [f"{a['ip']}\t" + "\t".join(a.get("hostnames", ())) for a in aliases]
        text += "\n# Entries added by HostAliases.\n" + "".join(line + "\n" for line in lines)
    return text


def dns(pod: Object, settings: Settings, machine: ResolvConf) -> Dns:
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    on_host = policy == "ClusterFirst" and spec.get("hostNetwork")
    if policy == "None":
        base = ResolvConf()
    elif policy == "Default" or on_host or not settings.cluster_dns:
        base = machine
    else:
        zone = settings.cluster_domain
        own = (f"{pod['metadata']['namespace']}.svc.{zone}", f"svc.{zone}", zone)
        base = ResolvConf((settings.cluster_dns,), (*own, *machine.searches), ("ndots:5",))
    return _with_own(base, spec.get("dnsConfig") or {})


def _with_own(base: ResolvConf, own: Mapping[str, Sequence[object]]) -> Dns:
    servers = dict.fromkeys((*base.servers, *map(str, own.get("nameservers", ()))))
    searches = dict.fromkeys((*base.searches, *map(str, own.get("searches", ()))))
    options = {text.partition(":")[0]: text for text in base.options}
    for option in own.get("options", ()):
        if isinstance(option, Mapping):
            value = option.get("value")
            name = str(option["name"])
            options[name] = f"{name}:{value}" if value not in (None, "") else name
    return (
        tuple(servers)[:_MAX_SERVERS],
        tuple(searches)[:_MAX_SEARCHES],
        tuple(options.values()),
    )
