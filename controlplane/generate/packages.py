"""Which Go packages hold the types of which group and version, and how OpenAPI names them."""

from dataclasses import dataclass
from pathlib import Path

META = "meta/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One Go package; ``key`` names its data file: ``core/v1`` → ``core_v1.json``."""

    key: str
    group: str
    version: str
    prefix: str  # of the OpenAPI names
    module: str  # which of the four checkouts
    folder: str

    @property
    def import_path(self) -> str:
        return f"k8s.io/{self.module}/{self.folder}"


# The folder below k8s.io/api and the API group, where they differ.
_GROUPS = {
    "core": "",
    "apps": "apps",
    "batch": "batch",
    "autoscaling": "autoscaling",
    "policy": "policy",
    "rbac": "rbac.authorization.k8s.io",
    "flowcontrol": "flowcontrol.apiserver.k8s.io",
}
_API_PACKAGES = (
    "core/v1",
    "admissionregistration/v1",
    "apps/v1",
    "authentication/v1",
    "authorization/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "batch/v1",
    "certificates/v1",
    "coordination/v1",
    "discovery/v1",
    "events/v1",
    "flowcontrol/v1",
    "networking/v1",
    "node/v1",
    "policy/v1",
    "rbac/v1",
    "resource/v1",
    "scheduling/v1",
    "storage/v1",
)


def _api_source(key: str) -> Source:
    folder, _, version = key.partition("/")
    return Source(
        key=key,
        group=_GROUPS.get(folder, f"{folder}.k8s.io"),
        version=version,
        prefix=f"io.k8s.api.{folder}.{version}",
        module="api",
        folder=key,
    )


SOURCES: tuple[Source, ...] = (
    *(_api_source(key) for key in _API_PACKAGES),
    Source(
        key=META,
        group="",
        version="v1",
        prefix="io.k8s.apimachinery.pkg.apis.meta.v1",
        module="apimachinery",
        folder="pkg/apis/meta/v1",
    ),
    Source(
        key="apiextensions/v1",
        group="apiextensions.k8s.io",
        version="v1",
        prefix="io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        module="apiextensions-apiserver",
        folder="pkg/apis/apiextensions/v1",
    ),
    Source(
        key="apiregistration/v1",
        group="apiregistration.k8s.io",
        version="v1",
        prefix="io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
        module="kube-aggregator",
        folder="pkg/apis/apiregistration/v1",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkouts:
    """Where the four modules lie."""

    api: Path
    apimachinery: Path
    apiextensions: Path
    aggregator: Path

    def folder_of(self, source: Source) -> Path:
        roots = {
            "api": self.api,
            "apimachinery": self.apimachinery,
            "apiextensions-apiserver": self.apiextensions,
            "kube-aggregator": self.aggregator,
        }
        return roots[source.module] / source.folder
