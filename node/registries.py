"""
K3s's registries.yaml: mirrors, certificates and credentials of image registries, for containerd.

The file is K3s's, the outcome is containerd's: a folder ``certs.d`` with a ``hosts.toml`` for
each registry, and a table of credentials in its configuration. What containerd cannot do without
K3s's own changes to it (``rewrite``) is refused by name.

Source: K3s, "Private Registry Configuration"; containerd, "Registry Configuration (hosts.toml)".
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_HOST = re.compile(
    r"\*|[A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d+)?"
)
_TOP = {"mirrors", "configs"}
_TLS = {"ca_file", "cert_file", "key_file", "insecure_skip_verify"}
_AUTH = {"username", "password", "auth", "identity_token", "token"}
DOCKER = "registry-1.docker.io"
HOSTS = "hosts.toml"
MADE_HERE = "# Written at each start of pinnace from registries.yaml; changes here do not last."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    ca: str = ""
    certificate: str = ""
    key: str = ""
    skip_verify: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    mirrors: Mapping[str, tuple[str, ...]]  # registry, or "*" → endpoints, URLs
    tls: Mapping[str, Tls]  # by host of an endpoint
    auth: Mapping[str, Mapping[str, str]]  # by host; the names are containerd's


def wrong_with(content: Any) -> Iterator[tuple[str, str]]:
    """(path within the file, what is wrong) for every mistake."""
    if not isinstance(content, dict):
        yield "", "must be keys and values: mirrors, configs"
        return
    for name, value in content.items():
        if name not in _TOP:
            yield str(name), "is unknown; here may be: configs, mirrors"
        elif not isinstance(value, dict):
            yield str(name), "must be keys and values, one for each registry"
        else:
            for host, what in value.items():
                path = f"{name}.{host}"
                if not isinstance(host, str) or not _HOST.fullmatch(host):
                    yield path, "is no registry such as docker.io or 192.168.1.5:5000"
                elif not isinstance(what, dict):
                    yield path, "must be keys and values"
                else:
                    yield from (
                        _wrong_mirror(path, what)
                        if name == "mirrors"
                        else _wrong_config(path, what)
                    )


def _wrong_mirror(path: str, mirror: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for name in mirror:
        if name == "rewrite":
            yield f"{path}.rewrite", "is not supported: this containerd cannot rename images"
        elif name != "endpoint":
            yield f"{path}.{name}", "is unknown; here may be: endpoint"
    endpoints = mirror.get("endpoint")
    if endpoints is None:
        return
    if not isinstance(endpoints, list):
        yield f"{path}.endpoint", "must be a list of URLs"
        return
    for at, endpoint in enumerate(endpoints):
        if not _is_url(endpoint):
            yield (
                f"{path}.endpoint[{at}]",
                f"{endpoint!r} is no URL such as https://mirror.lan:5000",
            )


def _is_url(endpoint: Any) -> bool:
    if not isinstance(endpoint, str):
        return False
    try:
        found = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        return found.scheme in {"http", "https"} and bool(_HOST.fullmatch(found.netloc))
    except ValueError:
        return False


def _wrong_config(path: str, config: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        known = {"auth": _AUTH, "tls": _TLS}.get(name)
        if known is None:
            yield f"{path}.{name}", "is unknown; here may be: auth, tls"
        elif not isinstance(value, dict):
            yield f"{path}.{name}", "must be keys and values"
        else:
            for key, what in value.items():
                if key not in known:
                    yield (
                        f"{path}.{name}.{key}",
                        f"is unknown; here may be: {', '.join(sorted(known))}",
                    )
                elif key == "insecure_skip_verify" and not isinstance(what, bool):
                    yield f"{path}.{name}.{key}", "must be true or false"
                elif key != "insecure_skip_verify" and not isinstance(what, str | int):
                    yield f"{path}.{name}.{key}", "must be one value"


def parse(content: Any) -> Registries:
    """Raises ValueError, which names the first mistake; :func:`wrong_with` has all of them."""
    for path, message in wrong_with(content or {}):
        raise ValueError(f"{path}: {message}" if path else message)
    content = content or {}
    configs = content.get("configs") or {}
    return Registries(
        mirrors={
            host: tuple(mirror.get("endpoint") or ())
            for host, mirror in (content.get("mirrors") or {}).items()
        },
        tls={host: _tls(config["tls"]) for host, config in configs.items() if config.get("tls")},
        auth={
            host: _auth(config["auth"]) for host, config in configs.items() if config.get("auth")
        },
    )


def _tls(found: Mapping[str, Any]) -> Tls:
    return Tls(
        ca=str(found.get("ca_file") or ""),
        certificate=str(found.get("cert_file") or ""),
        key=str(found.get("key_file") or ""),
        skip_verify=bool(found.get("insecure_skip_verify")),
    )


def _auth(found: Mapping[str, Any]) -> Mapping[str, str]:
    names = {"identity_token": "identitytoken", "token": "identitytoken"}
    return {names.get(name, name): str(value) for name, value in found.items()}


def hosts(registries: Registries) -> Mapping[str, str]:
    """Folder below certs.d → its hosts.toml. "*" is containerd's ``_default``."""
    named = dict(registries.mirrors)
    for host in registries.tls:
        # Its certificates are asked for also where it has no mirror; "*" has no host of its own.
        if host != "*" and host not in named:
            named[host] = ()
    return {
        "_default" if host == "*" else host: _hosts_toml(host, endpoints, registries)
        for host, endpoints in sorted(named.items())
    }


def _hosts_toml(host: str, endpoints: tuple[str, ...], registries: Registries) -> str:
    lines = [MADE_HERE]
    own = _own(host)
    if own:
        lines.append(f"server = {json.dumps(own)}")
    urls = [e if "://" in e else f"https://{e}" for e in endpoints]
    if own and own not in urls and urlsplit(own).netloc in {*registries.tls, host}:
        urls.append(own)  # tried last; named, since its certificates belong to it
    for url in urls:
        tls = registries.tls.get(urlsplit(url).netloc) or registries.tls.get("*") or Tls()
        lines += ["", *_host_table(url, tls)]
    return "\n".join(lines) + "\n"


def _own(host: str) -> str:
    if host == "*":
        return ""
    return f"https://{DOCKER if host == 'docker.io' else host}"


def _host_table(url: str, tls: Tls) -> Iterator[str]:
    path = urlsplit(url).path.rstrip("/")
    yield f"[host.{json.dumps(url.rstrip('/'))}]"
    yield '  capabilities = ["pull", "resolve"]'
    if path:
        # A path of an endpoint replaces the usual /v2, as with K3s.
        yield "  override_path = true"
    if tls.ca:
        yield f"  ca = [{json.dumps(tls.ca)}]"
    if tls.certificate and tls.key:
        yield f"  client = [[{json.dumps(tls.certificate)}, {json.dumps(tls.key)}]]"
    elif tls.certificate:
        yield f"  client = [{json.dumps(tls.certificate)}]"
    if tls.skip_verify:
        yield "  skip_verify = true"


def credentials(registries: Registries) -> str:
    """Tables for containerd's configuration; the file that gets them is for root alone."""
    lines = []
    for host, auth in sorted(registries.auth.items()):
        lines.append(
            f'\n[plugins."io.containerd.grpc.v1.cri".registry.configs.{json.dumps(host)}.auth]'
        )
        lines += [f"  {name} = {json.dumps(value)}" for name, value in sorted(auth.items())]
    return "\n".join(lines) + "\n" if lines else ""
