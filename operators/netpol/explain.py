"""
Why may this pod talk to that one, or not? In words, from what the operator knows. Pure.

The question names a pod and, if wished, another end::

    {"pod": "namespace/name", "from" | "to": "namespace/name or address", "port": 80,
     "protocol": "TCP"}

The answer is ``{"lines": […], "allowed": true | false | null}``, or ``{"error": …}``.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Protocol

from operators.netpol import oracle
from operators.netpol.objects import PROTOCOLS, Peers, Pod, Policy, Port, Rule, Selector
from operators.netpol.oracle import EGRESS, INGRESS, End, Verdict, Wanted
from operators.netpol.plan import DIRECTIONS, Compiler
from operators.netpol.rules import dotted

_WORDS = {INGRESS: ("from", "enter"), EGRESS: ("to", "leave")}


class Enforced(Protocol):
    compiler: Compiler
    error: str


class _Wrong(Exception):
    """The question makes no sense; the text says why."""


def explain(enforcer: Enforced, question: Mapping[str, Any]) -> dict[str, Any]:
    compiler = enforcer.compiler
    try:
        pod = _pod(compiler, str(question["pod"]))
        lines = [_about(compiler, pod)]
        if enforcer.error:
            lines.append(f"the kernel has not all of this: {enforcer.error}")
        other = question.get("from") or question.get("to")
        if not other:
            return {"lines": [*lines, *_policies(compiler, pod)], "allowed": None}
        found, told = _connection(compiler, pod, question)
        return {"lines": [*lines, *told], "allowed": found}
    except _Wrong as err:
        return {"error": str(err)}


def _pod(compiler: Compiler, key: str) -> Pod:
    pod = compiler.pods.get(key)
    if pod is None:
        raise _Wrong(f"no pod {key} that policies concern (finished, or in the host's network?)")
    return pod


def _about(compiler: Compiler, pod: Pod) -> str:
    where = "this node" if pod.node == compiler.node else f"node {pod.node or 'unknown'}"
    addresses = ", ".join(pod.ips) or "no address yet"
    return f"pod {pod.key} ({addresses}) on {where}"


def _policies(compiler: Compiler, pod: Pod) -> Iterator[str]:
    for direction in DIRECTIONS:
        policies = oracle.isolating(compiler, pod, direction)
        if not policies:
            yield f"{direction}: not isolated, everything may {_WORDS[direction][1]}"
            continue
        yield f"{direction}: isolated; only this may {_WORDS[direction][1]}:"
        for policy in policies:
            yield from _rules(policy, direction)


def _rules(policy: Policy, direction: str) -> Iterator[str]:
    rules = oracle.rules_of(policy, direction) or ()
    if not rules:
        yield f"  {policy.key}: nothing"
    for rule in rules:
        peers = "anyone" if rule.everyone else " or ".join(_peer_words(rule)) or "nobody"
        ports = "any port" if rule.every_port else ", ".join(_port_words(p) for p in rule.ports)
        yield f"  {policy.key}: {_WORDS[direction][0]} {peers}; {ports}"


def _peer_words(rule: Rule) -> Iterator[str]:
    yield from (_peers_words(peers) for peers in rule.peers)
    yield from dotted(rule)


def _peers_words(peers: Peers) -> str:
    pods = _selector_words(peers.pods, "pods")
    if peers.namespaces is None:
        return f"{pods} in {peers.namespace}"
    return f"{pods} in {_selector_words(peers.namespaces, 'namespaces')}"


def _selector_words(selector: Selector, what: str) -> str:
    if not selector.requirements:
        return f"all {what}"
    words = []
    for key, operator, values in selector.requirements:
        if operator in ("Exists", "DoesNotExist"):
            words.append(key if operator == "Exists" else f"!{key}")
        elif operator == "In" and len(values) == 1:
            words.append(f"{key}={values[0]}")
        else:
            words.append(f"{key} {operator.lower()} ({','.join(values)})")
    return f"{what} with {','.join(words)}"


def _port_words(port: Port) -> str:
    if port.name:
        return f"{port.protocol} {port.name}"
    if (port.first, port.last) == (0, 65535):
        return f"any {port.protocol}"
    return f"{port.protocol} {port.first}" + ("" if port.first == port.last else f"-{port.last}")


def _connection(
    compiler: Compiler, pod: Pod, question: Mapping[str, Any]
) -> tuple[bool, list[str]]:
    other = _end(compiler, str(question.get("from") or question.get("to")))
    own = End(pod.ips[0] if pod.ips else "", pod)
    source, target = (other, own) if question.get("from") else (own, other)
    protocol = str(question.get("protocol") or "TCP").upper()
    if protocol not in PROTOCOLS:
        raise _Wrong(f"protocol {protocol}: one of {', '.join(PROTOCOLS)}")
    wanted = Wanted(protocol, int(question.get("port") or 0))
    if not wanted.port:
        raise _Wrong("the port is missing")
    lines = []
    if source.address == target.address:
        return True, ["allowed: a pod always reaches itself"]
    out, into = (
        oracle.egress(compiler, source, target, wanted),
        oracle.ingress(compiler, source, target, wanted),
    )
    for direction, end, verdict in ((EGRESS, source, out), (INGRESS, target, into)):
        lines.append(f"{direction} of {_name(end)}: {_verdict_words(end, verdict)}")
    found = out.allowed and into.allowed
    words = "allowed" if found else "denied"
    lines.append(
        f"{words}: {_name(source)} -> {_name(target)} {wanted.protocol} port {wanted.port}"
    )
    return found, lines


def _end(compiler: Compiler, text: str) -> End:
    if "/" in text:
        pod = _pod(compiler, text)
        return End(pod.ips[0] if pod.ips else "", pod)
    try:
        address = str(ip_address(text))
    except ValueError as err:
        raise _Wrong(f"{text} is neither namespace/pod nor an address") from err
    return End(address, compiler.pods.at(address))


def _name(end: End) -> str:
    return end.pod.key if end.pod else end.address


def _verdict_words(end: End, verdict: Verdict) -> str:
    if end.pod is None:
        return "no pod, no policies"
    if not verdict.policies:
        return "not isolated"
    if verdict.by:
        return f"allowed by {verdict.by.key}"
    return f"no rule of {', '.join(policy.key for policy in verdict.policies)} allows it"
