"""
The files that go onto a card's first partition, checked by the node's own rules before.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import available_timezones

from node.firstboot import manifests, schema
from node.firstboot.base import ConfigError, Problem, Settings
from node.firstboot.places import CONFIG_NAME, MANIFESTS_NAME
from node.flash.base import BrokenError, Placed
from node.flash.fat import Fat, FatError
from node.flash.write import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    settings: Settings
    files: Mapping[str, bytes]  # path on the partition → content


def read(config: Path | None, folder: Path | None) -> Content:
    """
    ``config``: a pinnace.yaml, None for an image without one; ``folder``: of manifests, None for
    the one beside it. Raises :class:`ConfigError`, with every mistake in all of them.
    """
    problems: list[Problem] = []
    files: dict[str, bytes] = {}
    settings = Settings()
    if config is not None:
        try:
            data = config.read_bytes()
            settings = schema.parse(data, time_zones=_time_zones())
            files[CONFIG_NAME] = data
        except OSError as err:
            raise ConfigError([Problem(0, str(config), err.strerror or str(err))]) from err
        except ConfigError as err:
            problems.extend(err.problems)
        found = manifests.gather(config.parent, settings.manifests, with_folder=folder is None)
        problems.extend(found.problems)
        files |= {name: text.encode() for name, text in found.origins.items()}
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError([Problem(0, str(folder), "is no folder")])
        found = manifests.gather_folder(folder)
        problems.extend(found.problems)
        files |= {name: text.encode() for name, text in found.origins.items()}
    if problems:
        raise ConfigError(problems)
    return Content(settings=settings, files=files)


def _time_zones() -> Container[str] | None:
    return available_timezones() or None


def put(target: Target, placed: Placed, files: Mapping[str, bytes], when: datetime) -> None:
    """Into the FAT partition of what was written, and read back. Raises :class:`BrokenError`."""
    target.indirect()
    try:
        fat = Fat(target.descriptor, placed.start, placed.size)
        for path, data in files.items():
            fat.write_file(path, data, when)
        fat.flush()
        target.settle()
        again = Fat(target.descriptor, placed.start, placed.size)
        for path, data in files.items():
            if again.read_file(path) != data:
                raise BrokenError(f"{target.path} gave back another {path} than was written")
    except FatError as err:
        raise BrokenError(f"{CONFIG_NAME} and {MANIFESTS_NAME}/ do not fit: {err}") from err
    except OSError as err:
        raise BrokenError(f"{target.path} cannot be written to: {err.strerror}") from err
