"""Read, anew at each look, all that a HelmChart refers to."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from operators.client import ApiError, Client
from operators.config import Config, read_kubeconfig
from operators.helm import plan, status, wanted
from operators.helm.base import Target
from operators.helm.plan import Revision
from operators.helm.tell import path
from operators.helm.wanted import Inputs, Refused

MOST_CHARTS = 200  # looked at in search of a cycle
Object = dict[str, Any]


class Reader:
    def __init__(self, config: Config, client: Client) -> None:
        self._config = config
        self._client = client

    async def get(self, where: str) -> Object | None:
        try:
            return await self._client.get(where)
        except ApiError as err:
            if err.code == 404:
                return None
            raise

    async def chart(self, key: str) -> Object | None:
        return await self.get(path("helmcharts", key))

    async def inputs(self, key: str, chart: Mapping[str, Any]) -> Inputs:
        config = await self.get(path("helmchartconfigs", key))
        secrets, config_maps = wanted.names(chart, config)
        core = f"/api/v1/namespaces/{chart['metadata']['namespace']}"
        return Inputs(
            config=config,
            secrets={name: await self.get(f"{core}/secrets/{name}") for name in secrets},
            config_maps={name: await self.get(f"{core}/configmaps/{name}") for name in config_maps},
            kubernetes_api=self._config.kubernetes_api,
            cluster_ca=await self._authority() if wanted.names_the_api(chart) else "",
        )

    async def _authority(self) -> str:
        return (await asyncio.to_thread(read_kubeconfig, self._config.kubeconfig)).ca

    async def refuse_taken(
        self, chart: Mapping[str, Any], target: Target, history: Sequence[Revision]
    ) -> None:
        """Raises :class:`Refused` where a HelmChart of another namespace has the same release."""
        ours = plan.last_ours(history)
        here = chart["metadata"]["namespace"]
        if ours is None or ours.owner in {"", here}:
            return
        key = f"{ours.owner}/{target.name}"
        other = await self.chart(key)
        if other is None or not plan.managed(other):
            return
        place = wanted.spec_of(other).get("targetNamespace") or ours.owner
        if place == target.namespace:
            message = f"release {target.namespace}/{target.name} is that of HelmChart {key}"
            raise Refused("ReleaseTaken", message)

    async def waits_for(self, key: str, chart: Mapping[str, Any]) -> str:
        """
        Why the charts that this one depends on are not ready; "": they are.

        Raises :class:`Refused` where they would wait for each other.
        """
        unready = []
        for name in wanted.dependencies(chart):
            if name == key:
                raise Refused("DependencyCycle", f"spec.dependsOn names {key} itself")
            found = await self.chart(name)
            if found is None:
                unready.append(f"HelmChart {name} is not there")
            elif not status.is_ready(found):
                unready.append(f"HelmChart {name} is not ready")
        if unready:
            await self._refuse_cycle(key, chart)
        return "; ".join(unready)

    async def _refuse_cycle(self, key: str, chart: Mapping[str, Any]) -> None:
        seen = {key}
        ways: list[tuple[str, ...]] = [(key, name) for name in wanted.dependencies(chart)]
        while ways and len(seen) < MOST_CHARTS:
            way = ways.pop()
            found = None if way[-1] in seen else await self.chart(way[-1])
            seen.add(way[-1])
            for name in wanted.dependencies(found) if found else ():
                if name == key:
                    message = f"spec.dependsOn makes a circle: {' → '.join((*way, key))}"
                    raise Refused("DependencyCycle", message)
                ways.append((*way, name))
