"""The Helm library as a :class:`operators.helm.base.Helm`: a process for each request."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from operators.config import Config
from operators.helm.base import HelmError, Job, Release, Source, Target
from operators.helm.process import Runner, last_words

# Downloads and an uninstall before an install come on top of Helm's own timeout.
MARGIN_SECONDS = 300
MAX_HISTORY = 10  # revisions that are kept of a release, as many as Helm keeps


class Library:
    def __init__(self, config: Config, runner: Runner) -> None:
        self._config = config
        self._runner = runner

    async def install(self, job: Job) -> Release:
        return Release(**await self._ask("install", job))

    async def upgrade(self, job: Job) -> Release:
        return Release(**await self._ask("upgrade", job))

    async def rollback(
        self, target: Target, revision: int, *, server_side: str, force_conflicts: bool
    ) -> None:
        how = {"server_side": server_side, "force_conflicts": force_conflicts}
        await self._ask("rollback", target, revision=revision, **how)

    async def uninstall(self, target: Target) -> None:
        await self._ask("uninstall", target)

    async def history(self, target: Target) -> Sequence[Release]:
        return [Release(**found) for found in await self._ask("history", target)]

    async def status(self, target: Target) -> Release | None:
        found = await self._ask("status", target)
        return Release(**found) if found else None

    async def template(self, job: Job) -> str:
        text: str = await self._ask("template", job)
        return text

    async def _ask(self, action: str, what: Job | Target, **more: Any) -> Any:
        target = what.target if isinstance(what, Job) else what
        request = asdict(what) if isinstance(what, Job) else {"target": asdict(what), **more}
        request |= {"action": action, "kubeconfig": str(self._config.kubeconfig)}
        authorities = _authorities(what.source) if isinstance(what, Job) else b""
        code, out, errors = await self._runner.run(
            [self._config.python, "-m", "operators.helm.worker", str(os.getpid())],
            seconds=target.timeout + MARGIN_SECONDS,
            files={"authorities.pem": authorities} if authorities else {},
            environment={"SSL_CERT_FILE": "authorities.pem"} if authorities else {},
            stdin=json.dumps(request).encode(),
        )
        try:
            answer = json.loads(out)
        except ValueError as err:
            how = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
            message = f"the Helm worker {how}: {last_words(errors)}"
            raise HelmError("WorkerDied", message) from err
        if failure := answer.get("error"):
            raise HelmError(failure["reason"], failure["message"], permanent=failure["permanent"])
        return answer["result"]


def _authorities(source: Source) -> bytes:
    """The library takes an authority for a registry only from its environment."""
    return source.ca.encode() if source.chart.startswith("oci://") else b""
