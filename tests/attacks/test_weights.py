"""No weights that a server sends make a patient's contribution longer than the clip norm (P6b)."""

import pytest
from tests.support.hostile.weights import CLIP, DEAR, MOST, longest_contribution

from wardround.common.study.private_networks import PRIVATE_NETWORKS

pytestmark = pytest.mark.attacks
# By what an attack costs; 2,042 in all.
MANY = 100
ATTACKS = {
    "mlp": 500,
    "small-cnn": 1_000,
    "unet": 150,
    "attention-unet": 150,
    "dynunet": 150,
    "basic-unet": 40,
    "segresnet": 40,
    **dict.fromkeys(DEAR, 2),
}


def test_every_network_that_trains_privately_is_attacked() -> None:
    assert set(ATTACKS) == set(PRIVATE_NETWORKS)
    assert sum(ATTACKS.values()) > 2_000


@pytest.mark.parametrize("name", ATTACKS)
def test_no_weights_make_a_patients_contribution_longer_than_the_clip_norm(name: str) -> None:
    longest = longest_contribution(name, ATTACKS[name])
    assert longest <= MOST, "nor is it no number"
    if ATTACKS[name] >= MANY:
        assert longest > 0.99 * CLIP, "the attacks reach the bound"
