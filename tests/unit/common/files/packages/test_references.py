"""How a study names what a package registers."""

import pytest

from wardround.common.files.packages.references import Reference, normalised, reference_of
from wardround.common.study.registry import LOSSES, METRICS, NETWORKS


def test_package_and_name_stand_around_a_colon() -> None:
    assert reference_of("example-ward:gated-unet") == Reference("example-ward", "gated-unet")


@pytest.mark.parametrize(
    "text",
    [
        "unet",
        "flower:FedAvg",
        "monai:UNet",
        "wardround:unet",
        "Example:net",
        "a:b:c",
        "../x:net",
        "example_ward:net",
        ":net",
        "a:",
        "a:b\n",
        f"{'a' * 65}:net",
    ],
)
def test_anything_else_is_no_reference(text: str) -> None:
    assert reference_of(text) is None


def test_a_distribution_has_one_name_however_it_is_written() -> None:
    assert {normalised(name) for name in ("My.Ward", "my_ward", "MY--ward")} == {"my-ward"}


def test_tables_know_names_of_packages_and_list_their_own_alone() -> None:
    assert "a-b:c" in NETWORKS
    assert "monai:UNet" in NETWORKS
    assert "monai:UNet" not in LOSSES
    assert "nothing" not in NETWORKS
    assert NETWORKS.get("nothing") is None
    assert all(":" not in name for table in (NETWORKS, LOSSES, METRICS) for name in table)
    with pytest.raises(KeyError):
        NETWORKS["nothing"]


def test_a_metric_of_a_package_lies_between_0_and_1() -> None:
    assert METRICS["a-b:c"].in_unit_interval
    assert METRICS["a-b:c"].title == "a-b:c"
