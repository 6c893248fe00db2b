"""
What a root must hold so that it can be updated: RAUC's configuration, and the keys it trusts.

Both lie in ``/usr`` and therefore change with the version: a keyring in ``/etc`` would be
hidden by a copy that somebody touched once, and keys could never be rotated.
"""

import shutil
from pathlib import Path

from cryptography import x509

TEMPLATE = Path(__file__).parent.parent / "files" / "rauc" / "system.conf"
CONFIGURATION = "usr/lib/rauc/system.conf"
KEYRING = "usr/share/pinnace/keyring.pem"


def configure(tree: Path, board: str, keyring: Path) -> None:
    """Write both into a root. Raises OSError, and ValueError where the keyring is none."""
    x509.load_pem_x509_certificates(keyring.read_bytes())
    for place in (CONFIGURATION, KEYRING):
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
    (tree / CONFIGURATION).write_text(TEMPLATE.read_text().replace("@BOARD@", board))
    shutil.copyfile(keyring, tree / KEYRING)
    for place in (CONFIGURATION, KEYRING):
        (tree / place).chmod(0o644)
