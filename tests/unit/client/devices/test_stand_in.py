"""What a site does on a device that is not its CPU: nothing is mixed, and hardly anything waits.

All of it is done once, in a process of its own, on a stand-in that counts (``stand_in.py``). A GPU
may wait for more than it knows of; it has not been one.
"""

import pytest
from tests.unit.client.devices.names import EVALUATED, METHODS, TRAINED
from tests.unit.client.devices.outcomes import Results, of, work_apart

pytestmark = pytest.mark.long

IMAGE_BYTES = 2 * 16 * 16 * 4  # a batch of two images of float32


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return work_apart("jobs", tmp_path_factory.mktemp("device"))


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_is_one_transfer_that_nobody_waits_for(results: Results, name: str) -> None:
    step = of(results, f"training {name}")
    assert step["synchronisations"] <= 1, (step["waits"], step["blocking"])
    assert step["synchronisations"] == 0, "and for a step of training there need be none"
    assert step["transfers"] == 1


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained_there_is_what_is_trained_on_the_cpu(results: Results, name: str) -> None:
    assert of(results, f"training {name}")["apart"] < 1e-6


def test_masks_travel_as_the_bytes_that_they_are(results: Results) -> None:
    masks = 2 * 16 * 16
    sent = of(results, "training segmentation")["sent_bytes"]
    assert IMAGE_BYTES + masks <= sent <= IMAGE_BYTES + masks + 2048, "with what augmentation drew"


@pytest.mark.parametrize("name", EVALUATED)
def test_an_evaluation_waits_at_most_once_a_batch(results: Results, name: str) -> None:
    batch = of(results, f"evaluation {name}")
    assert batch["synchronisations"] <= 1, (batch["waits"], batch["blocking"])
    assert batch["same"]
    assert batch["apart"] < 1e-6


def test_surfaces_fetch_both_masks_of_a_batch_at_once(results: Results) -> None:
    batch = of(results, "surfaces")
    assert batch["synchronisations"] == 1, (batch["waits"], batch["blocking"])
    assert batch["same"]


def test_the_logits_of_a_whole_ct_are_never_whole_in_memory(results: Results) -> None:
    volume = of(results, "volume")
    assert volume["copies"] <= 1.5, "of the logits in half precision, all that lies there together"
    assert volume["same"]
    assert volume["apart"] < 1e-6


def test_a_ct_that_a_device_has_no_room_for_is_summed_up_on_the_cpu(results: Results) -> None:
    volume = of(results, "volume without room")
    assert volume["same"]
    assert volume["apart"] < 1e-6


def test_the_noise_of_a_private_step_is_one_transfer(results: Results) -> None:
    noise = of(results, "noise")
    assert noise["synchronisations"] == 0
    assert noise["transfers"] == 1
    assert noise["apart"] == 0, "the same key gives the same noise, wherever it is added"


def test_a_private_step_waits_once_where_each_patient_has_one_image(results: Results) -> None:
    step = of(results, "clipping, one image a patient")
    assert step["synchronisations"] == 1, (step["waits"], step["blocking"])
    assert step["apart"] < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_clipped_gradients_are_those_of_the_cpu(results: Results, method: str) -> None:
    assert of(results, f"clipping {method}")["apart"] < 1e-6
