"""
What the parts of local-path storage agree on: names, values, and what a store of volumes can do.

:class:`Storage` is the seam: :mod:`operators.localpath.native` touches the disk itself,
:mod:`operators.localpath.pods` asks helper pods on somebody else's nodes. Everything that
speaks to the API is the same above both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROVISIONER = "rancher.io/local-path"
# Written into the API; other parts of the node read the first two.
IMAGE = "localpath.pinnace.dev/image"
ENFORCED_BY = "localpath.pinnace.dev/enforced-by"
ENFORCEMENT = "localpath.pinnace.dev/enforcement"
SELECTED_NODE = "local.path.provisioner/selected-node"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"

QUOTA, FILE_IMAGE, UNENFORCED = "project-quota", "image", "none"

OWN_FOLDER = ".pinnace"  # beside the volumes: images, snapshots, notes of what is being made


class Refused(Exception):
    """It will not be done until something changes; the text is for the person who asked."""


class Unfit(Refused):
    """Not on this node: another one may do."""


class StorageError(Exception):
    """The disk or a program failed; the same may succeed later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a new volume begins with: a snapshot, or another volume as it is now."""

    kind: str  # "snapshot" | "volume"
    name: str  # of the snapshot, or of the PersistentVolume
    size: int  # bytes of its claim
    base: Path
    folder: str = ""
    image: Path | None = None  # None: a folder
    created: float = 0.0  # of a snapshot: seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A volume to be made; ``folder`` is below ``base``, without ``..``."""

    name: str  # of the PersistentVolume
    claim: str  # namespace/name
    uid: str  # of the claim
    node: str
    base: Path
    folder: str
    size: int  # bytes that must fit in
    user: str = ""  # "": nobody asked, as for the next two
    group: str = ""
    mode: str = ""  # octal
    enforce: str = "auto"
    overcommit: float = 1.0
    shared: bool = False  # other nodes see the same path
    source: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    enforced_by: str
    image: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What matters of a PersistentVolume that this provisioner made."""

    name: str
    uid: str
    version: str  # resourceVersion
    path: str
    node: str  # "": of no single node
    affinity: tuple[str, str]  # label and value; ("", ""): none
    image: str | None
    enforced_by: str
    phase: str
    policy: str
    size: int
    class_name: str
    claim: str  # namespace/name
    claim_uid: str
    deleting: bool
    finalizers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a volume lies, after its PersistentVolume was found to tell the truth."""

    name: str
    node: str
    base: Path
    folder: str
    size: int
    enforced_by: str
    image: Path | None
    shared: bool = False

    @property
    def path(self) -> Path:
        return self.base / self.folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A volume that was begun and of which nobody has said that it is finished."""

    name: str
    claim: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A snapshot on the disk."""

    created: float  # seconds since the epoch
    consistent: bool  # False: files may have changed while they were copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What the file system of a path can do, found by doing it. Reasons are "" where it can."""

    no_quota: str = ""
    no_image: str = ""

    @property
    def best(self) -> str:
        if not self.no_quota:
            return QUOTA
        return UNENFORCED if self.no_image else FILE_IMAGE


class Storage(Protocol):
    """
    Makes and removes volumes. Every call may be repeated after it was killed at any point.

    Raises :class:`Refused` for what it never does and :class:`StorageError` for what failed.
    """

    async def make(self, order: Order) -> Made:
        """The volume is there; until :meth:`finished` it is found by :meth:`unfinished`."""
        ...

    async def finished(self, name: str) -> None: ...

    async def unfinished(self) -> Sequence[Unfinished]: ...

    async def undo(self, name: str) -> None:
        """Remove what was begun; what was there before it stays."""
        ...

    async def remove(self, place: Place) -> None: ...

    async def grow(self, place: Place, size: int, overcommit: float) -> None: ...

    async def snapshot(self, place: Place, name: str) -> Copied:
        """Found again by the name, so a second call copies nothing."""
        ...

    async def remove_snapshot(self, name: str) -> None: ...

    async def find_snapshot(self, name: str, size: int) -> Source | None:
        """``size``: bytes of its claim; 0: nobody knows any more."""
        ...


Object = dict[str, Any]
