"""How the TensorRT backends feed an engine, over a device that only remembers: no GPU is claimed to be tested here."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from nodule_diag.backends.cuda import CudaDevice
from nodule_diag.backends.engines.build import BatchProfile, profile_name, profiles_up_to
from nodule_diag.backends.tensorrt_runner import Runner, check_engine
from nodule_diag.bundle.manifest import ModelSpec
from nodule_diag.errors import BackendError, BundleError, UsageError

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


class Engine:
    """The tensors that an engine declares."""

    def __init__(self, **changed: object) -> None:
        tensors = {"patch": ("in", (-1, *SPEC.input.shape[1:]), "fp32")}
        tensors |= {tensor.name: ("out", (-1, *tensor.shape[1:]), "fp32") for tensor in SPEC.outputs.given().values()}
        self.tensors = {name: said for name, said in (tensors | changed).items() if said is not None}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return self.tensors[name][0]

    def get_tensor_shape(self, name):
        return self.tensors[name][1]

    def get_tensor_dtype(self, name):
        return self.tensors[name][2]


TRT = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"), float32="fp32")


def test_an_engine_of_the_network_is_taken():
    check_engine(TRT, Engine(), SPEC)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"cam": None}, "missing"),
        ({"cam": ("in", (-1, 16, 16, 16), "fp32")}, "missing"),
        ({"patch": ("in", (-1, 2, 32, 32, 32), "fp32")}, "shape"),
        ({"cam": ("out", (-1, 16, 16), "fp32")}, "shape"),
        ({"malignancy": ("out", (-1,), "fp16")}, "shape"),
    ],
)
def test_an_engine_of_another_network_is_refused(changed, code):
    with pytest.raises(BundleError, match=r"model\.onnx") as caught:
        check_engine(TRT, Engine(**changed), SPEC)
    assert caught.value.code == f"bundle-tensor-{code}"


class FakeDriver:
    """pycuda.driver on a machine whose GPU another process has for itself alone."""

    class Error(Exception):
        pass

    def __init__(self, fails: str) -> None:
        self.fails = fails
        self.popped = 0
        self.Device = partial(self.device)
        self.Device.count = lambda: 1
        self.Context = SimpleNamespace(pop=lambda: setattr(self, "popped", self.popped + 1))

    def device(self, index):
        context = SimpleNamespace(push=lambda: self.may_fail("push"))
        return SimpleNamespace(
            name=lambda: "a GPU",
            compute_capability=lambda: (8, 9),
            retain_primary_context=lambda: self.may_fail("retain") or context,
        )

    def may_fail(self, what):
        if what == self.fails:
            raise self.Error(f"{what}: exclusive process")

    def Stream(self):
        self.may_fail("stream")
        return SimpleNamespace(handle=7)

    def get_driver_version(self):
        return 13000


@pytest.mark.parametrize("fails", ["retain", "push", "stream"])
def test_a_gpu_that_cannot_be_used_is_a_typed_error(fails):
    driver = FakeDriver(fails)
    with pytest.raises(BackendError, match=f"CUDA failed on a GPU: {fails}") as caught:
        CudaDevice(driver, index=0)
    assert caught.value.code == "cuda-failed"
    assert driver.popped == (fails == "stream")


def test_the_profiles():
    assert profile_name(profiles_up_to()) == "1-1-1,1-8-32"
    assert profile_name(profiles_up_to(4)) == "1-1-1,1-4-4"
    assert profile_name(profiles_up_to(1)) == "1-1-1"
    with pytest.raises(UsageError, match="ascending"):
        profiles_up_to(0)
