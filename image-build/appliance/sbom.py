"""
What is in an image, for those who must know: an SPDX 2.3 document, and the licences themselves.

Each Debian package, each wheel and the program is named with version, hash and licence; of a
Debian package the licence is its copyright file, which says it file by file.
Source: the SPDX specification 2.3, clauses 6 to 11.
"""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from appliance.lock import Package
from appliance.wheels import Wheel

PLACE = "usr/share/pinnace/sbom.spdx.json"
_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-Image"
# Expressions whose parts are names of the SPDX list; other texts are told as a comment.
_EXPRESSION = re.compile(r"\(?[A-Z0-9][A-Za-z0-9.+-]*\)?( (AND|OR|WITH) \(?[A-Za-z0-9.+-]+\)?)*")
_PLAIN = {  # as some metadata write it
    "Apache 2.0": "Apache-2.0",
    "The MIT License (MIT)": "MIT",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "NOASSERTION",
}


def document(
    *,
    board: str,
    version: str,
    epoch: int,
    debs: Iterable[tuple[Package, Mapping[str, str]]],
    wheels: Iterable[Wheel],
) -> str:
    """The document as JSON; ``debs`` with the fields of their control files."""
    packages = [
        _image(board, version),
        *(_deb(package, about) for package, about in debs),
        *map(_wheel, wheels),
    ]
    names = [str(package["SPDXID"]) for package in packages[1:]]
    made_of = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    created = dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        json.dumps(
            {
                "spdxVersion": "SPDX-2.3",
                "dataLicense": "CC0-1.0",
                "SPDXID": _DOCUMENT,
                "name": f"pinnace-{board}-{version}",
                "documentNamespace": f"https://pinnace.dev/spdx/{board}/{version}/{made_of[:32]}",
                "creationInfo": {"created": created, "creators": ["Tool: pinnace-image-build"]},
                "packages": packages,
                "relationships": list(_relationships(names)),
            },
            indent=1,
            sort_keys=True,
        )
        + "\n"
    )


def _relationships(names: Iterable[str]) -> Iterator[dict[str, str]]:
    yield _relation(_DOCUMENT, "DESCRIBES", _IMAGE)
    for name in names:
        yield _relation(_IMAGE, "CONTAINS", name)


def _relation(of: str, kind: str, to: str) -> dict[str, str]:
    return {"spdxElementId": of, "relationshipType": kind, "relatedSpdxElement": to}


def _image(board: str, version: str) -> dict[str, object]:
    return {
        "SPDXID": _IMAGE,
        "name": f"pinnace-{board}",
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    }


def _deb(package: Package, about: Mapping[str, str]) -> dict[str, object]:
    return {
        "SPDXID": f"SPDXRef-deb-{_identifier(package.name)}",
        "name": package.name,
        "versionInfo": package.version,
        "packageFileName": package.file_name,
        "supplier": f"Person: {about.get('Maintainer', 'Debian')}",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "licenseComments": f"/usr/share/doc/{package.name}/copyright",
        "copyrightText": "NOASSERTION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": package.sha256}],
        "externalRefs": [
            _purl(
                f"pkg:deb/debian/{_quoted(package.name)}@{_quoted(package.version)}"
                f"?arch={package.architecture}&distro=trixie"
            )
        ],
    }


def _wheel(wheel: Wheel) -> dict[str, object]:
    declared = _PLAIN.get(wheel.license, wheel.license)
    found: dict[str, object] = {
        "SPDXID": f"SPDXRef-wheel-{_identifier(wheel.name)}",
        "name": wheel.name,
        "versionInfo": wheel.version,
        "packageFileName": wheel.path.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": declared if _EXPRESSION.fullmatch(declared) else "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": wheel.sha256}],
        "externalRefs": [_purl(f"pkg:pypi/{_identifier(wheel.name).lower()}@{wheel.version}")],
    }
    if found["licenseDeclared"] == "NOASSERTION" and wheel.license:
        found["licenseComments"] = wheel.license
    return found


def _purl(locator: str) -> dict[str, str]:
    return {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": locator,
    }


def _identifier(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)


def _quoted(text: str) -> str:
    return text.replace("+", "%2B").replace(":", "%3A").replace("~", "~")


def missing_licenses(tree: Path, packages: Iterable[Package]) -> list[str]:
    """Packages whose copyright file is not in the tree; none may be."""
    doc = tree / "usr/share/doc"
    return sorted(p.name for p in packages if not (doc / p.name / "copyright").exists())
