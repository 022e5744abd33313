"""How the TensorRT backends feed an engine, over a device that only remembers: no GPU is claimed to be tested here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nodule_diag.backends.engines.build import BatchProfile, profile_name, profiles_up_to
from nodule_diag.backends.tensorrt_runner import Runner
from nodule_diag.bundle.manifest import ModelSpec
from nodule_diag.errors import BackendError, UsageError

SPEC = ModelSpec(opset=18)


class Memory:
    def __init__(self, nbytes: int, address: int) -> None:
        self.floats = np.full(nbytes // 4, np.nan, np.float32)
        self.address = address

    def __int__(self) -> int:
        return self.address


class Device:
    """Device memory in numpy, and a stream that runs what it is given at once."""

    def __init__(self) -> None:
        self.stream = SimpleNamespace(handle=7, synchronize=lambda: None)
        self.memory: dict[int, Memory] = {}
        self.captured: list[int] = []

    def pinned(self, shape):
        return np.full(shape, np.nan, np.float32)

    def allocate(self, nbytes):
        made = Memory(nbytes, 1000 + len(self.memory))
        self.memory[made.address] = made
        return made

    def upload(self, target, source):
        target.floats[: source.size] = source.ravel()

    def download(self, target, source):
        target[...] = source.floats[: target.size].reshape(target.shape)

    def capture(self, work):
        self.captured.append(1)
        return SimpleNamespace(launch=work)


class Context:
    """Answers with the mean of each patch in every output."""

    def __init__(self, device: Device, *, works: bool = True) -> None:
        self.device, self.works, self.runs = device, works, 0
        self.addresses: dict[str, int] = {}
        self.shape = (0,)
        self.profile = -1

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return stream == 7

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)
        return name == "patch"

    def execute_async_v3(self, stream):
        self.runs += 1
        memory = {name: self.device.memory[address].floats for name, address in self.addresses.items()}
        batch = self.shape[0]
        means = memory["patch"][: int(np.prod(self.shape))].reshape(batch, -1).mean(axis=1)
        for field in SPEC.outputs.given():
            size = int(np.prod(getattr(SPEC.outputs, field).shape[1:], dtype=int))
            memory[field][: batch * size] = np.repeat(means, size)
        return self.works


def runner(context: Context, *, record: bool) -> Runner:
    profile = BatchProfile(smallest=1, typical=2, largest=3)
    return Runner(context, profile=profile, index=1, spec=SPEC, cuda=context.device, record=record)


@pytest.mark.parametrize("record", [True, False])
def test_answers_come_by_name_and_belong_to_their_patch(record):
    device = Device()
    context = Context(device)
    made = runner(context, record=record)
    assert context.profile == 1
    for batch in (2, 3, 2, 1, 2):
        patches = np.random.default_rng(batch).random((batch, 2, 64, 64, 64), dtype=np.float32)
        found = made.run(patches)
        means = patches.mean(axis=(1, 2, 3, 4))
        context.shape = patches.shape
        assert found.keys() == {"malignancy", "logit", "expert_score", "segmentation", "cam"}
        for name, array in found.items():
            assert array.shape == (batch, *getattr(SPEC.outputs, name).shape[1:])
            np.testing.assert_allclose(array.reshape(batch, -1), np.repeat(means[:, None], array[0].size, 1), rtol=1e-4)
    assert len(device.captured) == (3 if record else 0)  # one graph a batch size


def test_an_engine_that_does_not_run_is_an_error():
    context = Context(Device(), works=False)
    with pytest.raises(BackendError, match="the engine cannot run"):
        runner(context, record=True).run(np.zeros((1, 2, 64, 64, 64), np.float32))


def test_the_profiles():
    assert profile_name(profiles_up_to()) == "1-1-1,1-8-32"
    assert profile_name(profiles_up_to(4)) == "1-1-1,1-4-4"
    assert profile_name(profiles_up_to(1)) == "1-1-1"
    with pytest.raises(UsageError, match="ascending"):
        profiles_up_to(0)
