"""How large images are, what mkfs.ext4 is asked, and amounts of storage."""

import pytest

from operators.localpath import quantity, sizes
from operators.localpath.sizes import MIB

GIB = 2**30


@pytest.mark.parametrize("claim", [1, MIB, 8 * MIB, 119 * MIB, 500 * MIB, GIB, 10 * GIB, 2**40])
def test_an_image_is_larger_than_its_claim_in_whole_mebibytes(claim: int) -> None:
    size = sizes.image_size(claim)
    assert size > claim
    assert size % MIB == 0


@pytest.mark.parametrize(("claim", "most"), [(GIB, 1.05), (10 * GIB, 1.03), (100 * GIB, 1.02)])
def test_what_ext4_needs_for_itself_is_a_small_part(claim: int, most: float) -> None:
    assert sizes.image_size(claim) < claim * most


def test_larger_claims_have_larger_images() -> None:
    found = [sizes.image_size(n * MIB) for n in range(1, 3000, 7)]
    assert found == sorted(found)


@pytest.mark.parametrize("room", [0, 5 * MIB, 20 * MIB, GIB, 37 * GIB + 12345])
def test_the_largest_claim_fits_and_a_larger_one_does_not(room: int) -> None:
    claim = sizes.claim_size(room)
    assert claim % MIB == 0
    assert claim == 0 or sizes.image_size(claim) <= room
    assert sizes.image_size(claim + MIB) > room


def test_mkfs_writes_nothing_that_is_zero_and_keeps_nothing_for_root() -> None:
    argv = sizes.make_arguments("/x/a.img", GIB, "1000:2000")
    assert argv[0] == "mkfs.ext4"
    assert argv[argv.index("-m") + 1] == "0"
    extended = argv[argv.index("-E") + 1].split(",")
    assert {"lazy_itable_init=0", "nodiscard", "assume_storage_prezeroed=1"} <= set(extended)
    assert "root_owner=1000:2000" in extended
    assert argv[-1] == "/x/a.img"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1Gi", GIB),
        ("100Mi", 100 * MIB),
        ("1G", 10**9),
        ("1500m", 2),
        ("1e3", 1000),
        ("0.5Ki", 512),
        ("7", 7),
        ("2E", 2 * 10**18),
        (1024, 1024),
    ],
)
def test_amounts_are_read_as_kubernetes_writes_them(text: str, size: int) -> None:
    assert quantity.parse(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "1XB", "one", "1 Gi x"])
def test_what_is_no_amount_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        quantity.parse(text)


@pytest.mark.parametrize("size", [0, 1, 1000, 2**20, 3 * 2**30, 2**60])
def test_an_amount_is_written_so_that_it_is_read_again(size: int) -> None:
    assert quantity.parse(quantity.text(size)) == size
