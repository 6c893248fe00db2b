"""
What the Helm library is asked to do, for :mod:`operators.helm.worker`.

The library is Helm itself; what its Python face does not name, such as taking ownership,
goes through the same options below it, whose names the library promises to keep.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helm_python
from helm_python import _native

from operators.helm.base import TOO_LARGE
from operators.helm.library import MAX_HISTORY
from operators.helm.values import merge, put

# What the same request will meet again. Templates are not among it: they may look at what is there.
_PERMANENT = (
    helm_python.HelmChartInvalidError,
    helm_python.HelmInvalidArgError,
    helm_python.HelmValuesError,
)
Request = dict[str, Any]


def answer(request: Request) -> dict[str, Any]:
    try:
        return {"result": _ACTIONS[request["action"]](request)}
    except helm_python.HelmError as err:
        permanent = isinstance(err, _PERMANENT) or any(words in str(err) for words in TOO_LARGE)
        # What a network brought may be better next time; what the HelmChart itself holds is not.
        given = bool((request.get("source") or {}).get("content"))
        permanent |= given and isinstance(err, helm_python.HelmChartLoadError)
        reason = type(err).__name__.removesuffix("Error").removeprefix("Helm") + "Error"
        return {"error": {"reason": reason, "message": str(err), "permanent": permanent}}
    except ValueError as err:
        return {"error": {"reason": "ValuesError", "message": str(err), "permanent": True}}


def _install(request: Request) -> dict[str, Any]:
    return _write(
        "helm_install",
        request,
        # Over what "uninstall --keep-history" left.
        replace=True,
        create_namespace=request["create_namespace"],
        server_side_apply=request["server_side"] != "false",
    )


def _upgrade(request: Request) -> dict[str, Any]:
    return _write(
        "helm_upgrade",
        request,
        max_history=MAX_HISTORY,
        # Or else Helm would keep the old values where a HelmChart has none any more.
        reset_values=True,
        server_side_apply=request["server_side"],
    )


def _rollback(request: Request) -> None:
    target = request["target"]
    options = {
        "version": request["revision"],
        "timeout_seconds": target["timeout"],
        "wait": "hookOnly",
        "max_history": MAX_HISTORY,
        "server_side_apply": request["server_side"],
        "force_conflicts": request["force_conflicts"] and request["server_side"] != "false",
    }
    with _config(request) as config:
        _native.call_status("helm_rollback", config._raw(), target["name"], json.dumps(options))


def _write(action: str, request: Request, **more: Any) -> dict[str, Any]:
    target = request["target"]
    options = {
        "namespace": target["namespace"],
        "timeout_seconds": target["timeout"],
        "wait": "watcher" if request["wait"] else "hookOnly",
        "labels": dict(request["labels"]),
        "take_ownership": request["take_ownership"],
        "force_conflicts": request["force_conflicts"] and request["server_side"] != "false",
        **more,
    }
    with _config(request) as config, load_chart(request["source"]) as chart:
        payload = _native.call_string(
            action,
            config._raw(),
            _native.HANDLE(0),
            chart._raw(),
            None,
            target["name"],
            json.dumps(values_of(request)),
            json.dumps(options),
        )
        return _summary(json.loads(payload))


def _uninstall(request: Request) -> None:
    target = request["target"]
    with _config(request) as config:
        config.uninstall(
            target["name"], timeout=target["timeout"], ignore_not_found=True, wait="watcher"
        )


def _history(request: Request) -> list[dict[str, Any]]:
    with _config(request) as config:
        try:
            return [_summary(found) for found in config.history(request["target"]["name"])]
        except helm_python.HelmNotFoundError:
            return []


def _status(request: Request) -> dict[str, Any] | None:
    with _config(request) as config:
        try:
            return _summary(config.status(request["target"]["name"]))
        except helm_python.HelmNotFoundError:
            return None


def _template(request: Request) -> str:
    target = request["target"]
    with load_chart(request["source"]) as chart:
        rendered = chart.render(
            values_of(request), name=target["name"], namespace=target["namespace"]
        )
    wanted = {path: text for path, text in rendered.items() if not path.endswith("NOTES.txt")}
    return "".join(f"---\n# Source: {path}\n{text}\n" for path, text in sorted(wanted.items()))


_ACTIONS: dict[str, Callable[[Request], Any]] = {
    "install": _install,
    "upgrade": _upgrade,
    "rollback": _rollback,
    "uninstall": _uninstall,
    "history": _history,
    "status": _status,
    "template": _template,
}


def _config(request: Request) -> helm_python.Config:
    target = request["target"]
    return helm_python.Config(
        kubeconfig_path=request["kubeconfig"],
        namespace=target["namespace"],
        storage_driver=target["driver"],
    )


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": found["name"],
        "namespace": found["namespace"],
        "revision": found["revision"],
        "status": found["status"],
        "chart": f"{found['chart_name']}-{found['chart_version']}",
        "app_version": found.get("app_version", ""),
    }


def values_of(request: Request) -> dict[str, Any]:
    """The values that the user gave, merged as Helm merges its ``--values`` and ``--set``."""
    values: dict[str, Any] = {}
    for document in request["values"]:
        values = merge(values, helm_python.values_from_yaml(document) if document.strip() else {})
    for path, text in request["set"]:
        put(values, path, text)
    for path, text in request["set_string"]:
        put(values, path, text, as_string=True)
    return values


def load_chart(source: dict[str, Any]) -> helm_python.Chart:
    if source["content"]:
        try:
            return helm_python.Chart.load_archive(base64.b64decode(source["content"]))
        except ValueError as err:
            raise helm_python.HelmChartLoadError(f"chartContent: {err}") from err
    return helm_python.Chart.load(_pull(source))


def _pull(source: dict[str, Any]) -> Path:
    if source["chart"].startswith("oci://") and source["certificate"]:
        raise helm_python.HelmInvalidArgError(
            "a TLS client certificate for oci:// is not supported"
        )
    folder = Path("chart")
    folder.mkdir()
    options = {
        "dest_dir": str(folder),
        "version": source["version"],
        "repo_url": source["repo"],
        "username": source["username"],
        "password": source["password"],
        "pass_credentials_all": source["pass_credentials"],
        "insecure_skip_tls_verify": source["insecure"],
        "plain_http": source["plain_http"],
        "ca_file": _file("ca.pem", source["ca"]),
        "cert_file": _file("client.crt", source["certificate"]),
        "key_file": _file("client.key", source["key"]),
    }
    given = {name: value for name, value in options.items() if value}
    with _registry(source) as registry:
        _native.call_string("helm_pull", registry._raw(), source["chart"], json.dumps(given))
    found = sorted(folder.glob("*.tgz"))
    if len(found) != 1:
        raise helm_python.HelmRepoError(f"{source['chart']}: no chart came")
    return found[0]


def _registry(source: dict[str, Any]) -> helm_python.RegistryClient:
    credentials = _file("registry.json", source["registry_auth"])
    client = helm_python.RegistryClient(
        plain_http=source["plain_http"], credentials_file=credentials or None
    )
    host = source["chart"].removeprefix("oci://").partition("/")[0]
    username, password = source["username"], source["password"]
    if source["insecure"] and not username:
        # The library leaves out the verification only where it logs in.
        username, password = registry_login(source["registry_auth"], host)
    if source["chart"].startswith("oci://") and username:
        client.login(
            host,
            username,
            password,
            insecure=source["insecure"],
            plain_http=source["plain_http"],
        )
    return client


def registry_login(docker_config: str, host: str) -> tuple[str, str]:
    """Username and password for a registry in a ``.dockerconfigjson``; empty where it has none."""
    found = (json.loads(docker_config or "{}").get("auths") or {}).get(host) or {}
    if encoded := found.get("auth"):
        username, _, password = base64.b64decode(encoded).decode().partition(":")
        return username, password
    return found.get("username", ""), found.get("password", "")


def _file(name: str, content: str) -> str:
    if content:
        Path(name).write_text(content)
    return name if content else ""
