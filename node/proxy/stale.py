"""
Which tracked UDP connections lead to an endpoint that is gone.

Pure: the connections come from :mod:`node.host.conntrack`, and go back there.
"""

from collections.abc import Callable, Iterable, Mapping

from node.host.conntrack import Flow
from node.proxy.ruleset import Part

Destinations = Mapping[tuple[str, int], frozenset[tuple[str, int]]]


def changed_destinations(changed: Iterable[tuple[Part, Part]]) -> Destinations:
    """
    UDP destinations where somebody who might answer before may not any longer.

    One that had no endpoint counts too: what was sent there in the meantime may have
    been let through untranslated, and would stay so.
    """
    found: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
    for old, new in changed:
        for where in {*old.udp, *new.udp}:
            before, now = old.udp.get(where, frozenset()), new.udp.get(where, frozenset())
            if before - now or (now and not before):
                found[where] = now
    return found


def is_stale(destinations: Destinations, node_ips: Iterable[str]) -> Callable[[Flow], bool]:
    own = frozenset(node_ips)

    def check(flow: Flow) -> bool:
        answers = (flow.answers, flow.answers_port)
        allowed = destinations.get((flow.target, flow.port))
        if allowed is not None:
            return answers not in allowed
        allowed = destinations.get(("", flow.port))
        if allowed is None or answers in allowed:
            return False
        # A port of the node: somebody else's connection to the same number elsewhere stays.
        return flow.target in own or answers != (flow.target, flow.port)

    return check
