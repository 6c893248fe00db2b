"""Services, endpoints, ingresses and policies."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from controlplane.objects import selectors
from controlplane.objects.printing.cells import (
    NONE,
    UNKNOWN,
    UNSET,
    Cells,
    Object,
    Printer,
    age,
    columns,
    joined,
    labels,
    name,
    shortened,
    spec,
    status,
)

_ADDRESS_WIDTH = 16


def _service(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    return [
        name(obj),
        inner.get("type", ""),
        joined(inner.get("clusterIPs") or ())
        if len(inner.get("clusterIPs") or ()) == 1
        else inner.get("clusterIP") or NONE,
        _external(obj),
        joined(map(_port, inner.get("ports") or ())),
        age(obj, now),
        labels(inner.get("selector")),
    ]


def _external(obj: Object) -> str:
    inner = spec(obj)
    given = list(inner.get("externalIPs") or ())
    match inner.get("type"):
        case "ClusterIP" | "NodePort":
            return joined(given)
        case "LoadBalancer":
            addresses = _balancer(obj, wide=True)
            return joined([*addresses, *given]) if addresses or given else "<pending>"
        case "ExternalName":
            return inner.get("externalName") or ""
        case _:
            return UNKNOWN


def _balancer(obj: Object, *, wide: bool) -> list[str]:
    ingress = (status(obj).get("loadBalancer") or {}).get("ingress") or ()
    found = sorted({str(i.get("ip") or i.get("hostname") or "") for i in ingress} - {""})
    text = ",".join(found)
    if not wide and len(text) > _ADDRESS_WIDTH:
        return [text[: _ADDRESS_WIDTH - 3] + "..."]
    return found


def _port(port: Mapping[str, Any]) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}"


def _endpoints(obj: Object, now: datetime) -> Cells:
    found = [
        f"{_bracketed(address.get('ip', ''))}:{port.get('port')}"
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    if not found:  # without ports the addresses alone
        found = [
            address.get("ip", "")
            for subset in obj.get("subsets") or ()
            if not subset.get("ports")
            for address in subset.get("addresses") or ()
        ]
    return [name(obj), shortened(found) or NONE, age(obj, now)]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _endpoint_slice(obj: Object, now: datetime) -> Cells:
    ports = [str(p.get("port")) if p.get("port") else "*" for p in obj.get("ports") or ()]
    addresses = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    shown_ports = shortened(ports) or UNSET
    shown = shortened(addresses) or UNSET
    return [name(obj), obj.get("addressType", ""), shown_ports, shown, age(obj, now)]


def _ingress(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    hosts = [rule["host"] for rule in inner.get("rules") or () if rule.get("host")]
    return [
        name(obj),
        inner.get("ingressClassName") or NONE,
        shortened(hosts) or "*",
        ",".join(_balancer(obj, wide=True)),
        "80, 443" if inner.get("tls") else "80",
        age(obj, now),
    ]


def _ingress_class(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    parameters = inner.get("parameters")
    shown = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        shown = f"{parameters.get('kind')}{group}/{parameters.get('name')}"
    return [name(obj), inner.get("controller", ""), shown, age(obj, now)]


def _policy(obj: Object, now: datetime) -> Cells:
    return [name(obj), selectors.to_text(spec(obj).get("podSelector")), age(obj, now)]


def _address(obj: Object, _now: datetime) -> Cells:
    parent = spec(obj).get("parentRef") or {}
    group = f".{parent['group']}" if parent.get("group") else ""
    parts: Sequence[str] = [
        parent.get("resource", "") + group,
        parent.get("namespace", ""),
        parent.get("name", ""),
    ]
    return [name(obj), "/".join(part for part in parts if part)]


def _service_cidr(obj: Object, now: datetime) -> Cells:
    return [name(obj), ",".join(spec(obj).get("cidrs") or ()), age(obj, now)]


SERVICE = Printer(
    columns("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "Selector*"), _service
)
ENDPOINTS = Printer(columns("Name", "Endpoints", "Age"), _endpoints)
ENDPOINT_SLICE = Printer(
    columns("Name", "AddressType", "Ports", "Endpoints", "Age"), _endpoint_slice
)
INGRESS = Printer(columns("Name", "Class", "Hosts", "Address", "Ports", "Age"), _ingress)
INGRESS_CLASS = Printer(columns("Name", "Controller", "Parameters", "Age"), _ingress_class)
NETWORK_POLICY = Printer(columns("Name", "Pod-Selector", "Age"), _policy)
IP_ADDRESS = Printer(columns("Name", "ParentRef"), _address)
SERVICE_CIDR = Printer(columns("Name", "CIDRs", "Age"), _service_cidr)
