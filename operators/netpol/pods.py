"""
Which pod has which address, from what the API said and what the agent handed over. Pure.

The agent knows first: it asks for a pod whose address the API has not heard of yet.
And an address has one owner, even while two pods claim it: the news of the end of one
may come after those of the beginning of the next that was given its address. Labels
of the former must open nothing to the latter.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from operators.netpol.objects import NamedPort, Pod


class Change(NamedTuple):
    """Of one pod: as it was, and as it is."""

    old: Pod | None
    new: Pod | None


class _Claim(NamedTuple):
    pod: Pod
    order: tuple[str, int]  # creation, then when it was first heard of


class Pods:
    """
    Its mutable state: what was told of each pod, what was handed over, and who has an address.

    ``[key]`` is the pod with the addresses that are its own.
    """

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}
        self._handed: dict[str, Pod] = {}
        self._owners: dict[str, str] = {}
        self._sure: dict[str, str] = {}  # address → who has it, by the agent's word
        self._pods: dict[str, Pod] = {}
        self._count = 0

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def get(self, key: str) -> Pod | None:
        return self._pods.get(key)

    def at(self, address: str) -> Pod | None:
        return self._pods.get(self._owners.get(address, ""))

    def hand(self, pod: Pod) -> list[Change]:
        """What the agent says of a pod whose sandbox it has just made."""
        known = self._claims.get(pod.key)
        if known and known.pod.uid == pod.uid and known.pod.version >= pod.version:
            pod = replace(known.pod, ips=pod.ips)
        self._handed[pod.key] = pod
        for address in pod.ips:
            self._sure[address] = pod.key
        return self._put(pod.key, pod)

    def told(self, pod: Pod) -> list[Change]:
        """What the API says."""
        known, handed = self._claims.get(pod.key), self._handed.get(pod.key)
        if known and known.pod.uid != pod.uid and pod.version < known.pod.version:
            return []  # late news of a namesake
        if handed and (handed.uid != pod.uid or handed.ips == pod.ips):
            del self._handed[pod.key]
        if handed and handed.uid == pod.uid:
            newer = pod if pod.version >= handed.version else handed
            pod = replace(newer, ips=handed.ips)
        return self._put(pod.key, pod)

    def gone(self, key: str, uid: str = "", version: int = 0) -> list[Change]:
        """Deleted, finished, or (without ``uid``) missing from a listing."""
        known = self._claims.get(key)
        if known and uid and known.pod.uid != uid and version < known.pod.version:
            return []
        if not uid and key in self._handed:
            return []
        self._handed.pop(key, None)
        return self._put(key, None)

    def _put(self, key: str, pod: Pod | None) -> list[Change]:
        known = self._claims.pop(key, None)
        touched = {key}
        if pod is not None:
            self._count += 1
            same = known is not None and known.pod.uid == pod.uid
            order = known.order if known and same else (pod.created, self._count)
            self._claims[key] = _Claim(pod, order)
            for address in pod.ips:
                touched |= self._claim(address, key)
        for address in set(known.pod.ips if known else ()) - set(pod.ips if pod else ()):
            touched |= self._release(address, key)
        return [change for one in sorted(touched) if (change := self._settle(one))]

    def _claim(self, address: str, key: str) -> set[str]:
        owner = self._owners.get(address)
        if owner == key:
            return set()
        if owner is not None:
            sure = self._sure.get(address)
            older = self._claims[owner].order > self._claims[key].order
            if sure == owner or (sure != key and older):
                return set()
        self._owners[address] = key
        return {owner} if owner else set()

    def _release(self, address: str, key: str) -> set[str]:
        if self._sure.get(address) == key:
            del self._sure[address]
        if self._owners.get(address) != key:
            return set()
        heirs = [(c.order, k) for k, c in self._claims.items() if address in c.pod.ips]
        if not heirs:
            del self._owners[address]
            return set()
        self._owners[address] = max(heirs)[1]
        return {self._owners[address]}

    def _settle(self, key: str) -> Change | None:
        old, claim = self._pods.get(key), self._claims.get(key)
        if claim is None:
            self._pods.pop(key, None)
            return Change(old, None) if old else None
        own = tuple(a for a in claim.pod.ips if self._owners.get(a) == key)
        new = claim.pod if own == claim.pod.ips else replace(claim.pod, ips=own)
        self._pods[key] = new
        return Change(old, new)


def dns_pod(address: str) -> Pod:
    """What stands for the cluster DNS where no pod is behind its address."""
    return Pod(
        namespace="kube-system",
        name="cluster DNS",  # no name that a pod can have
        uid="",
        labels={"k8s-app": "kube-dns"},
        ips=(address,),
        ports=(NamedPort("dns", "UDP", 53), NamedPort("dns-tcp", "TCP", 53)),
        node="",
        created="",
        version=0,
    )
