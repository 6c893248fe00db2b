"""
The parts that work on plans, joined: imported with the first plan, since most nodes have none.

What needs much memory is imported later still, when a plan needs it.
"""

from collections.abc import Callable

from operators.base import Parts
from operators.upgrade.apply import Upgrades
from operators.upgrade.base import Channels, Checks, Drains, Jobs
from operators.upgrade.known import Known
from operators.upgrade.observe import Observer, Tools


class Work:
    """``add`` queues what is to be looked at, ``changed`` a plan."""

    def __init__(
        self,
        parts: Parts,
        known: Known,
        *,
        add: Callable[[str], None],
        changed: Callable[[str], None],
    ) -> None:
        self.observer = Observer(tools(parts), now=parts.now, add=add, changed=changed)
        self.upgrades = Upgrades(parts.client, known, self.observer, now=parts.now)


def tools(parts: Parts) -> Tools:
    def channels() -> Channels:
        from operators.upgrade.channels.run import SignedChannels

        return SignedChannels(now=parts.now, proxy=parts.config.proxy)

    def checks() -> Checks:
        from operators.upgrade.checks.run import HealthChecks

        return HealthChecks(parts.client, kubeconfig=parts.config.kubeconfig)

    def drains() -> Drains:
        from operators.upgrade.drain import NodeDrains

        return NodeDrains(parts.client, now=parts.now)

    def jobs() -> Jobs:
        from operators.upgrade.jobs import NodeJobs

        return NodeJobs(parts.client, namespace=parts.config.namespace, now=parts.now)

    return Tools(channels=channels, checks=checks, drains=drains, jobs=jobs)
