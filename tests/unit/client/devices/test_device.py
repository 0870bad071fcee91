"""What is chosen for a device: which one, how it computes, and what is said when it is full."""

from collections.abc import Iterator

import pytest
import torch
from tests.unit.client.devices.studies import ANY_SIZE, IMAGES, TABLE
from torch import nn

from wardround.client.data.batch import Batch, to_device
from wardround.client.data.patches import is_smaller
from wardround.client.site.device import (
    arranged_for,
    choose_arithmetic,
    device_for,
)
from wardround.client.training.schedule import names_memory_remedy
from wardround.common.errors import RunError
from wardround.simulations.experiment.environment import describe_environment
from wardround.simulations.experiment.federation import Machine

GPU = torch.device("cuda", 0)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    names = {"cuda:0": "first", "cuda:1": "second", "cuda": "first"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=None: names[str(name)])


@pytest.fixture
def settings_kept() -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark)
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


@pytest.mark.usefixtures("two_gpus")
def test_auto_leaves_a_table_on_the_cpu_and_takes_a_gpu_for_images() -> None:
    assert device_for("auto", TABLE).type == "cpu"
    assert device_for("auto", IMAGES).type == "cuda"
    assert device_for("cuda:1", TABLE) == torch.device("cuda", 1), "who asks for a GPU gets it"
    assert Machine().for_study(TABLE).devices_for(8) != ("cuda:0", "cuda:1")
    assert Machine().for_study(IMAGES).devices_for(8) == ("cuda:0", "cuda:1")


@pytest.mark.usefixtures("two_gpus")
def test_several_sites_share_a_gpu_where_workers_are_asked_for() -> None:
    assert Machine(device="cuda:1").devices_for(8) == ("cuda:1",), "in turn, in one process"
    assert Machine(device="cuda:1", workers=3).devices_for(8) == ("cuda:1",) * 3


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda:1", "second (cuda:1)"),
        ("cuda:0", "first (cuda:0)"),
        ("auto", "first (cuda:0), second (cuda:1)"),
        ("cpu", "cpu"),
    ],
)
def test_a_report_names_the_gpus_that_were_used(device: str, said: str) -> None:
    assert describe_environment(Machine(device=device))["device"] == said


@pytest.mark.usefixtures("settings_kept")
@pytest.mark.parametrize("before", [True, False])
def test_how_a_gpu_computes_does_not_depend_on_what_was_chosen_before(before: bool) -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.deterministic = cudnn.benchmark = before
    choose_arithmetic(GPU, IMAGES)
    assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, True)
    assert (cudnn.deterministic, cudnn.benchmark) == (False, True)
    choose_arithmetic(GPU, ANY_SIZE)
    assert not cudnn.benchmark, "images of many sizes would each be tried out"


@pytest.mark.usefixtures("settings_kept")
def test_on_the_cpu_no_setting_of_a_gpu_is_touched() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    choose_arithmetic(torch.device("cpu"), IMAGES)
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_channels_of_plane_convolutions_come_last_on_a_gpu(precision: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    values = [weight.clone() for weight in network.parameters()]
    arranged_for(network, GPU, precision)
    for layer in network:
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(values, network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "nvidia-smi"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "nvidia-smi"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "cache_place"),
        (MemoryError(), "cache_gigabytes"),
    ],
)
def test_full_memory_is_said_with_what_makes_a_study_smaller(error: Exception, words: str) -> None:
    @names_memory_remedy
    def work() -> None:
        raise error

    with pytest.raises(RunError) as raised:
        work()
    said = str(raised.value)
    assert words in said
    for setting in ("training.batch_size", "training.patch_size", "privacy.microbatch"):
        assert setting in said
    assert ("training.precision" in said) == ("GPU" in said)
    assert raised.value.__cause__ is None, "the error would hold on to what fills the memory"


def test_another_error_stays_what_it_is() -> None:
    @names_memory_remedy
    def work() -> None:
        msg = "CUDA error: an illegal memory access was encountered"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="illegal memory access"):
        work()


def test_on_the_cpu_nothing_is_copied() -> None:
    batch = Batch(torch.zeros(2, 1, 4, 4), None, torch.zeros(2, dtype=torch.int64))
    there = to_device((batch.images, None), torch.device("cpu"))
    assert there[0] is batch.images
    assert there[1] is None
    assert batch.widened().targets.data_ptr() == batch.targets.data_ptr()


def test_only_an_image_smaller_than_a_patch_is_looked_through_for_its_darkest_value() -> None:
    assert is_smaller(torch.zeros(1, 4, 9), (5, 5))
    assert not is_smaller(torch.zeros(1, 5, 9), (5, 5))
