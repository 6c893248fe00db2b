"""Which Helm this machine has: the library where its wheel exists, else the program."""

import importlib.util
import logging
import shutil

from operators.config import Config
from operators.helm.base import Helm
from operators.helm.binary import Binary
from operators.helm.library import Library
from operators.helm.process import Runner

LOG = logging.getLogger(__name__)


def helm(config: Config, runner: Runner) -> Helm:
    """Without either, each chart fails with a message that says what is missing."""
    if importlib.util.find_spec("helm_python") is not None:
        return Library(config, runner)
    program = shutil.which("helm", path=config.path)
    LOG.info("the Helm library is not installed: using %s", program or "helm, when it is there")
    return Binary(config, runner, program or "helm")
