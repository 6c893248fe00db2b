"""
What a Helm is asked for and what it answers: values, errors, one contract.

Two implementations: :mod:`operators.helm.library` (the Helm library in a process
of its own) and :mod:`operators.helm.binary` (the ``helm`` program).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a chart comes from; ``content`` beats the rest."""

    content: str = ""  # base64 of a .tgz
    chart: str = ""  # a name in ``repo``, an https://….tgz, or oci://…
    repo: str = ""
    version: str = ""
    ca: str = ""  # PEM, trusted in place of the system's
    username: str = ""
    password: str = ""
    certificate: str = ""  # PEM, of a TLS client
    key: str = ""
    registry_auth: str = ""  # a .dockerconfigjson
    pass_credentials: bool = False  # to other hosts than the repository's too
    insecure: bool = False
    plain_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which release is meant."""

    name: str
    namespace: str
    driver: str = "secret"  # or configmap
    timeout: int = 300  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One install, upgrade or rendering."""

    target: Target
    source: Source
    values: tuple[str, ...] = ()  # YAML documents, each over the one before
    set: tuple[tuple[str, str], ...] = ()  # --set: path, literal
    set_string: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()  # of the release's record
    create_namespace: bool = False
    take_ownership: bool = False
    server_side: str = "auto"  # true, false
    force_conflicts: bool = False
    wait: bool = False  # until what was applied is ready, not only until the hooks have run


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One revision of a release."""

    name: str
    namespace: str
    revision: int
    status: str  # deployed, failed, superseded, pending-…, uninstalling, uninstalled
    chart: str  # name-version
    app_version: str


class HelmError(Exception):
    """
    Helm said no.

    ``permanent``: the same request will fail the same way, as with a chart that is
    no chart; otherwise it is worth another attempt.
    """

    def __init__(self, reason: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.reason = reason  # one word, for a condition
        self.permanent = permanent


# A record, or an object of the chart, that no API takes: before and since v1.31.
TOO_LARGE = (
    "Too long: must have at most",
    "Too long: may not be more than",
    "request is too large",
)


class Helm(Protocol):
    """One request at a time; each ends within its timeout. Raises :class:`HelmError`."""

    async def install(self, job: Job) -> Release: ...

    async def upgrade(self, job: Job) -> Release:
        """Also over a release that failed."""
        ...

    async def rollback(
        self, target: Target, revision: int, *, server_side: str, force_conflicts: bool
    ) -> None:
        """Makes a new revision that is as this one was, with the labels of this one."""
        ...

    async def uninstall(self, target: Target) -> None:
        """Until the objects are gone; a release that is not there is no error."""
        ...

    async def history(self, target: Target) -> Sequence[Release]:
        """Oldest first; empty where there is no release."""
        ...

    async def status(self, target: Target) -> Release | None: ...

    async def template(self, job: Job) -> str:
        """The manifests, as YAML documents; nothing is installed."""
        ...
