"""
The ``helm`` program, version 3 or 4, as a :class:`operators.helm.base.Helm`.

For machines for which the library has no wheel. Everything is given as files in the
working folder and as arguments, so that no password is seen in a list of processes
except where Helm offers no other way.
"""

import json
import shutil
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Sequence
from typing import Any

from operators.config import Config
from operators.helm.base import TOO_LARGE, HelmError, Job, Release, Source, Target
from operators.helm.library import MARGIN_SECONDS, MAX_HISTORY
from operators.helm.process import Runner, last_words

Files = dict[str, bytes]


class Binary:
    def __init__(self, config: Config, runner: Runner, program: str) -> None:
        self._config = config
        self._runner = runner
        self._program = program
        # A program of ours asks for this itself: not to outlive who started it.
        setpriv = shutil.which("setpriv", path=config.path)
        self._wrapped = [setpriv, "--pdeathsig=KILL"] if setpriv else []

    async def install(self, job: Job) -> Release:
        # "--replace": over what "uninstall --keep-history" left.
        more = ["--replace", *(["--create-namespace"] if job.create_namespace else [])]
        return _release(json.loads(await self._write("install", job, more)))

    async def upgrade(self, job: Job) -> Release:
        return _release(
            json.loads(
                await self._write(
                    "upgrade", job, [f"--history-max={MAX_HISTORY}", "--reset-values"]
                )
            )
        )

    async def rollback(
        self, target: Target, revision: int, *, server_side: str, force_conflicts: bool
    ) -> None:
        argv = [
            "rollback",
            target.name,
            str(revision),
            f"--timeout={target.timeout}s",
            f"--history-max={MAX_HISTORY}",
        ]
        # "auto" is not named: version 3 has no such flag.
        if server_side != "auto":
            argv.append(f"--server-side={server_side}")
        if force_conflicts and server_side != "false":
            argv.append("--force-conflicts")
        await self._run(argv, target, {})

    async def uninstall(self, target: Target) -> None:
        argv = [
            "uninstall",
            target.name,
            "--wait",
            "--ignore-not-found",
            f"--timeout={target.timeout}s",
        ]
        await self._run(argv, target, {})

    async def history(self, target: Target) -> Sequence[Release]:
        try:
            out = await self._run(["history", target.name, "--output=json"], target, {})
        except HelmError as err:
            if "not found" in str(err):
                return []
            raise
        return [
            Release(
                name=target.name,
                namespace=target.namespace,
                revision=found["revision"],
                status=found["status"],
                chart=found["chart"],
                app_version=found["app_version"],
            )
            for found in json.loads(out)
        ]

    async def status(self, target: Target) -> Release | None:
        try:
            out = await self._run(["status", target.name, "--output=json"], target, {})
        except HelmError as err:
            if "not found" in str(err):
                return None
            raise
        return _release(json.loads(out))

    async def template(self, job: Job) -> str:
        files = files_of(job)
        return await self._run(
            ["template", job.target.name, *chart_arguments(job.source), *value_arguments(job)],
            job.target,
            files,
        )

    async def _write(self, action: str, job: Job, more: Sequence[str]) -> str:
        argv = [
            action,
            job.target.name,
            *chart_arguments(job.source),
            *value_arguments(job),
            f"--timeout={job.target.timeout}s",
            "--output=json",
            *more,
            *how_arguments(job),
        ]
        return await self._run(argv, job.target, files_of(job))

    async def _run(self, argv: Sequence[str], target: Target, files: Files) -> str:
        everywhere = [f"--kubeconfig={self._config.kubeconfig}", f"--namespace={target.namespace}"]
        # HELM_DRIVER is read from the environment only.
        command = ["env", f"HELM_DRIVER={target.driver}", self._program]
        code, out, errors = await self._runner.run(
            [*self._wrapped, *command, *argv, *everywhere],
            seconds=target.timeout + MARGIN_SECONDS,
            files=files,
        )
        if code:
            raise HelmError("HelmFailed", last_words(errors), permanent=_is_permanent(errors))
        return out


def files_of(job: Job) -> Files:
    """Raises :class:`HelmError` where the content of a chart is no base64."""
    source = job.source
    files = {f"values-{index:03}.yaml": text.encode() for index, text in enumerate(job.values)}
    if source.content:
        try:
            files["chart.tgz"] = b64decode("".join(source.content.split()), validate=True)
        except NotBase64 as err:
            raise HelmError("ChartLoadError", f"chartContent: {err}", permanent=True) from err
    named = {
        "ca.pem": source.ca,
        "client.crt": source.certificate,
        "client.key": source.key,
        "registry.json": source.registry_auth,
    }
    return files | {name: text.encode() for name, text in named.items() if text}


def chart_arguments(source: Source) -> list[str]:
    if source.content:
        return ["chart.tgz"]
    given = {
        "--repo": source.repo,
        "--version": source.version,
        "--ca-file": "ca.pem" if source.ca else "",
        "--cert-file": "client.crt" if source.certificate else "",
        "--key-file": "client.key" if source.key else "",
        "--registry-config": "registry.json" if source.registry_auth else "",
        "--username": source.username,
        "--password": source.password,
    }
    switches = {
        "--pass-credentials": source.pass_credentials,
        "--insecure-skip-tls-verify": source.insecure,
        "--plain-http": source.plain_http,
    }
    return [
        source.chart,
        *(f"{flag}={value}" for flag, value in given.items() if value),
        *(flag for flag, wanted in switches.items() if wanted),
    ]


def value_arguments(job: Job) -> list[str]:
    return [
        *(f"--values=values-{index:03}.yaml" for index in range(len(job.values))),
        *(f"--set={path}={text}" for path, text in job.set),
        *(f"--set-string={path}={text}" for path, text in job.set_string),
    ]


def how_arguments(job: Job) -> list[str]:
    labels = ",".join(f"{key}={value}" for key, value in job.labels)
    found = [f"--labels={labels}"] if labels else []
    if job.take_ownership:
        found.append("--take-ownership")
    if job.server_side != "auto":
        found.append(f"--server-side={job.server_side}")
    if job.force_conflicts and job.server_side != "false":
        found.append("--force-conflicts")
    if job.wait:
        found.append("--wait")
    return found


def _release(found: dict[str, Any]) -> Release:
    metadata = found["chart"]["metadata"]
    return Release(
        name=found["name"],
        namespace=found["namespace"],
        revision=found["version"],
        status=found["info"]["status"],
        chart=f"{metadata['name']}-{metadata['version']}",
        app_version=metadata.get("appVersion", ""),
    )


def _is_permanent(errors: str) -> bool:
    """The program says why only in words."""
    known = ("parse error", "failed to parse", "values don't meet", *TOO_LARGE)
    return any(words in errors for words in known)
