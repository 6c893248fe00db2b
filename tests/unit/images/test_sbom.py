"""The inventory of an image: valid SPDX, with all that is in it, the same from the same."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from appliance import sbom
from appliance.wheels import Wheel

from tests.fakes.debs import make_deb

WHEEL = Wheel(
    path=Path("example-1.0-py3-none-any.whl"),
    name="Example_Thing",
    version="1.0",
    license="MIT",
    sha256="cd" * 32,
)
ABOUT = {"Maintainer": "Somebody <somebody@example.org>"}


def made(tmp_path: Path, wheel: Wheel = WHEEL) -> dict[str, Any]:
    package, _ = make_deb(tmp_path, "libstdc++6", {"usr/lib/x": "x"}, version="1:14.2+x-1")
    text = sbom.document(
        board="x86-64",
        version="v1.36.3+pinnace1",
        epoch=1_795_000_000,
        debs=[(package, ABOUT)],
        wheels=[wheel],
    )
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_document_has_every_part_that_spdx_asks_for(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found["spdxVersion"] == "SPDX-2.3"
    assert found["dataLicense"] == "CC0-1.0"
    assert found["creationInfo"]["created"] == "2026-11-18T11:06:40Z"
    assert re.fullmatch(r"https://[^#]+", found["documentNamespace"])
    for package in found["packages"]:
        assert {"SPDXID", "name", "downloadLocation", "licenseDeclared"} <= package.keys()
        assert re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", package["SPDXID"])


def test_packages_are_named_with_version_hash_and_licence(tmp_path: Path) -> None:
    _, deb, wheel = made(tmp_path)["packages"]
    assert (deb["name"], deb["versionInfo"]) == ("libstdc++6", "1:14.2+x-1")
    assert deb["licenseComments"] == "/usr/share/doc/libstdc++6/copyright"
    assert re.fullmatch(r"[0-9a-f]{64}", deb["checksums"][0]["checksumValue"])
    assert deb["externalRefs"][0]["referenceLocator"] == (
        "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2%2Bx-1?arch=all&distro=trixie"
    )
    assert wheel["licenseDeclared"] == "MIT"
    assert wheel["externalRefs"][0]["referenceLocator"] == "pkg:pypi/example-thing@1.0"


def test_every_package_stands_in_a_relationship(tmp_path: Path) -> None:
    found = made(tmp_path)
    known = {package["SPDXID"] for package in found["packages"]}
    related = {relation["relatedSpdxElement"] for relation in found["relationships"]}
    assert related == known


@pytest.mark.parametrize(
    ("told", "declared"),
    [
        ("Apache-2.0 OR BSD-3-Clause", "Apache-2.0 OR BSD-3-Clause"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "MPL-2.0 AND (Apache-2.0 OR MIT)"),
        ("The MIT License (MIT)", "MIT"),
        ("as long as you smile, do what you like", "NOASSERTION"),
        ("", "NOASSERTION"),
    ],
)
def test_a_licence_that_is_no_expression_is_not_called_one(
    tmp_path: Path, told: str, declared: str
) -> None:
    wheel = Wheel(path=WHEEL.path, name="x", version="1", license=told, sha256=WHEEL.sha256)
    assert made(tmp_path, wheel)["packages"][2]["licenseDeclared"] == declared


def test_the_same_inputs_give_the_same_document(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    for document in (one, two):  # dpkg-deb writes the time into what the test makes
        document["packages"][1]["checksums"] = []
        document["documentNamespace"] = ""
    assert one == two


def test_a_package_without_its_licence_is_told(tmp_path: Path) -> None:
    package, _ = make_deb(tmp_path, "tool", {"usr/bin/tool": "x"})
    assert sbom.missing_licenses(tmp_path / "tree", [package]) == ["tool"]
    (tmp_path / "tree/usr/share/doc/tool").mkdir(parents=True)
    (tmp_path / "tree/usr/share/doc/tool/copyright").write_text("Copyright: somebody")
    assert sbom.missing_licenses(tmp_path / "tree", [package]) == []
