"""
Which endpoints take the traffic of a service port: upstream's rules, as pure functions.

Source: KEP-1669 (terminating endpoints), KEP-2086 (internal traffic policy),
KEP-2433 and KEP-3015 (topology hints).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.proxy.services import Endpoint, Port


class Backend(NamedTuple):
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """In a fixed order, without repetition."""

    cluster: tuple[Backend, ...]  # for traffic that may go to any node
    local: tuple[Backend, ...]  # for traffic that must stay on this node
    exist: bool  # some endpoint somewhere could serve, whatever the policies say


def choose(
    endpoints: Iterable[Endpoint], port: Port, *, node: str, zone: str, hints: bool = True
) -> Chosen:
    """
    Ready endpoints; where there is none, those that serve while they terminate.

    ``zone`` "": unknown, then hints for zones are ignored.
    """
    named = [e for e in endpoints if (port.name, port.protocol) in e.ports]
    here = [e for e in named if e.node == node]
    usable = _ready_or_draining(named)
    near = _near(usable, node=node, zone=zone) if hints else usable
    return Chosen(
        cluster=_backends(near, port),
        local=_backends(_ready_or_draining(here), port),
        exist=bool(usable),
    )


def _ready_or_draining(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    ready = [e for e in endpoints if e.ready]
    return ready or [e for e in endpoints if e.serving and e.terminating]


def _near(endpoints: list[Endpoint], *, node: str, zone: str) -> list[Endpoint]:
    """
    Those hinted to this node, else to its zone, else all.

    A level of hints is used only if every endpoint has it: hints that are partly
    written must not concentrate traffic on the few that already carry one.
    """
    nodes: Callable[[Endpoint], tuple[str, ...]] = lambda e: e.node_hints  # noqa: E731
    zones: Callable[[Endpoint], tuple[str, ...]] = lambda e: e.zone_hints  # noqa: E731
    for wanted, of in ((node, nodes), (zone, zones)):
        if wanted and all(of(endpoint) for endpoint in endpoints):
            hinted = [endpoint for endpoint in endpoints if wanted in of(endpoint)]
            if hinted:
                return hinted
    return endpoints


def _backends(endpoints: Iterable[Endpoint], port: Port) -> tuple[Backend, ...]:
    key = (port.name, port.protocol)
    return tuple(sorted({Backend(e.address, e.ports[key]) for e in endpoints}))
