"""The Open Inference Protocol: the network's own numbers, as JSON and as raw bytes, and for the public clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bundle_factory import make_tiny_bundle, tiny_model_in_numpy
from nodule_diag.ct.points import index_from_lps
from nodule_diag.ct.reading import read_ct
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import UsageError
from nodule_diag.preprocessing.patch import extract_patches, patch_sampling
from nodule_diag.results import FeatureDistance
from nodule_diag.service import tensors
from nodule_diag.service.tensors import DTYPES
from service_client import MIDDLE

INFER = "/v2/models/nodule-diag/infer"
OUTPUTS = ["malignancy", "logit", "expert_score", "segmentation", "cam"]
PATCHES = (np.random.default_rng(0).integers(0, 257, (2, 2, 64, 64, 64)) / 256).astype(np.float32)
"""Short numbers, so that two patches are not too much JSON."""


def tensor(name: str, values: np.ndarray, kind: str = "FP32") -> dict[str, object]:
    return {"name": name, "shape": list(values.shape), "datatype": kind, "data": values.ravel().tolist()}


def arrays(answer) -> dict[str, np.ndarray]:
    """The outputs of an answer, whichever way they came."""
    assert answer.status_code == 200, answer.text
    length = answer.headers.get("inference-header-content-length")
    head, raw = (answer.content[: int(length)], answer.content[int(length) :]) if length else (answer.content, b"")
    found, at = {}, 0
    for output in json.loads(head)["outputs"]:
        assert output["datatype"] == "FP32"
        if "data" in output:
            values = np.array(output["data"], np.float32)
        else:
            size = output["parameters"]["binary_data_size"]
            values, at = np.frombuffer(raw[at : at + size], "<f4"), at + size
        found[output["name"]] = values.reshape(output["shape"])
    assert at == len(raw)
    return found


def binary(request: dict[str, object], *raw: bytes) -> dict[str, object]:
    head = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return {"content": head + b"".join(raw), "headers": headers}


def test_json_and_raw_bytes_give_the_networks_numbers(running):
    wanted = [tiny_model_in_numpy(patch) for patch in PATCHES]
    plain = running.client.post(INFER, json={"id": "a", "inputs": [tensor("patch", PATCHES)]})
    assert {key: plain.json()[key] for key in ("id", "model_name", "model_version")} == {
        "id": "a", "model_name": "nodule-diag", "model_version": "1"
    }  # fmt: skip
    described = {"name": "patch", "shape": list(PATCHES.shape), "datatype": "FP32"}
    described["parameters"] = {"binary_data_size": PATCHES.nbytes}
    request = {"inputs": [described], "parameters": {"binary_data_output": True}}
    raw = running.client.post(INFER, **binary(request, PATCHES.tobytes()))
    found = arrays(plain)
    assert list(found) == OUTPUTS
    for name, values in found.items():
        np.testing.assert_allclose(values, [one[name] for one in wanted], atol=2e-5)
        np.testing.assert_array_equal(values, arrays(raw)[name])


def test_outputs_are_chosen_and_each_may_be_raw(running):
    outputs = [{"name": "cam", "parameters": {"binary_data": True}}, {"name": "logit"}]
    answer = running.client.post(INFER, json={"inputs": [tensor("patch", PATCHES[:1])], "outputs": outputs})
    assert [
        (one["name"], "data" in one)
        for one in json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])["outputs"]
    ] == [("cam", False), ("logit", True)]
    assert arrays(answer)["cam"].shape == (1, 16, 16, 16)


def test_features_are_an_output_where_the_network_gives_them(start, tmp_path):
    rows = np.random.default_rng(0).random((40, 256))
    bundle = make_tiny_bundle(tmp_path / "bundle", distance=FeatureDistance.fit(rows, components=4))
    running = start(network=Diagnoser.load(bundle.path, backend="onnxruntime", threads=1))
    outputs = running.client.get("/v2/models/nodule-diag").json()["outputs"]
    assert [one["name"] for one in outputs] == [*OUTPUTS, "features"]
    assert outputs[-1]["shape"] == [-1, 256]
    found = arrays(running.client.post(INFER, json={"inputs": [tensor("patch", PATCHES[:1])]}))
    np.testing.assert_allclose(found["features"], [tiny_model_in_numpy(PATCHES[0])["features"]], atol=2e-5)


@pytest.mark.parametrize("model", ["nodule-diag", "nodule-diag-fused"])
def test_what_the_fused_graph_takes(model, running, scan, diagnoser):
    ct = read_ct(scan)
    sampling = patch_sampling(ct, index_from_lps(ct, np.array([MIDDLE]))[0])
    hu = ct.hu[sampling.box].astype(np.float32)[None]
    matrices = dict(zip(("along_z", "along_y", "along_x"), (m[None] for m in sampling.matrices_zyx), strict=True))
    inputs = [tensor("hu", hu), *(tensor(name, values) for name, values in matrices.items())]
    metadata = running.client.get(f"/v2/models/{model}").json()
    if model == "nodule-diag-fused":
        assert [one["name"] for one in metadata["inputs"]] == ["hu", "along_z", "along_y", "along_x"]
    found = arrays(running.client.post(f"/v2/models/{model}/infer", json={"inputs": inputs}))
    wanted = diagnoser.network.infer(extract_patches(ct, [MIDDLE]))
    assert found["malignancy"] == pytest.approx(wanted.malignancy, abs=1e-6)
    np.testing.assert_allclose(found["cam"], wanted.cam, atol=1e-5)


def test_health_and_metadata(running):
    client = running.client
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/models/nodule-diag/ready").json() == {"name": "nodule-diag", "ready": True}
    for place in ("/v2/models/nodule-diag", "/v2/models/nodule-diag/versions/1"):
        metadata = client.get(place).json()
        assert metadata["inputs"] == [{"name": "patch", "datatype": "FP32", "shape": [-1, 2, 64, 64, 64]}]
        assert [one["name"] for one in metadata["outputs"]] == OUTPUTS


SMALL = np.zeros((1, 2, 64, 64, 64), np.float32)


@pytest.mark.parametrize(
    "request_",
    [
        {"inputs": [tensor("patches", SMALL)]},
        {"inputs": [tensor("patch", SMALL), tensor("patch", SMALL)]},
        {"inputs": [tensor("patch", SMALL) | {"shape": [1, 2, 64, 64, 63]}]},
        {"inputs": [tensor("patch", SMALL) | {"shape": [-1, 2, 64, 64, 64]}]},
        {"inputs": [tensor("patch", SMALL) | {"datatype": "BYTES"}]},
        {"inputs": [tensor("patch", SMALL) | {"data": ["x"] * SMALL.size}]},
        {"inputs": [tensor("patch", np.zeros((0, 2, 64, 64, 64)))]},
        {"inputs": [tensor("patch", np.zeros((2, 2, 2)))]},
        {"inputs": [tensor("hu", np.zeros((1, 2, 2, 2)))]},
        {"inputs": [tensor("patch", SMALL) | {"parameters": {"binary_data_size": 10**9}}]},
        {"inputs": [tensor("patch", SMALL) | {"parameters": {"binary_data_size": -1}}]},
        {"inputs": [tensor("patch", np.array(1.0))]},
        {"inputs": []},
        {
            "inputs": [
                tensor("patch", SMALL) | {"shape": [0, 10**30], "data": None, "parameters": {"binary_data_size": 0}}
            ]
        },
        {"inputs": [tensor("patch", SMALL) | {"shape": [2**31, 2**31], "data": [1]}]},
        {"inputs": [tensor("patch", SMALL) | {"data": None}]},
        {"inputs": [tensor("patch", SMALL + 1e30)]},
        {"inputs": [tensor("patch", SMALL - 1.5)]},
        {"inputs": [tensor("patch", SMALL)], "outputs": [{"name": "secrets"}]},
    ],
    ids=range(19),
)
def test_requests_that_make_no_sense(request_, running):
    answer = running.client.post(INFER, json=request_)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == answer.json()["detail"], "the protocol's own field"


def test_raw_bytes_that_do_not_fit(running):
    described = {"name": "patch", "shape": [1, 2, 64, 64, 64], "datatype": "FP32"}
    described["parameters"] = {"binary_data_size": SMALL.nbytes}
    for raw in (SMALL.tobytes()[:-1], SMALL.tobytes() + b"x"):
        assert running.client.post(INFER, **binary({"inputs": [described]}, raw)).status_code == 400
    not_finite = np.full_like(SMALL, np.nan).tobytes()
    answer = running.client.post(INFER, **binary({"inputs": [described]}, not_finite))
    assert (answer.status_code, answer.json()["code"]) == (400, "inference-request")
    for length in ("x", "-1", "99999999", "9" * 5000, "\u00b2".encode(), ""):
        headers = {"Inference-Header-Content-Length": length}
        assert running.client.post(INFER, content=b"{}", headers=headers).status_code == 400
    answer = running.client.post(INFER, content=b"{}", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "body-compressed")


def test_json_has_a_limit_of_its_own(running):
    text = (
        b'{"inputs": [{"name": "patch", "shape": [8000000], "datatype": "FP32", "data": [1'
        + b",1" * 8_500_000
        + b"]}]}"
    )
    answer = running.client.post(INFER, content=text)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large")
    answer = running.client.post(INFER, content=text, headers={"Inference-Header-Content-Length": str(len(text))})
    assert (answer.status_code, answer.json()["code"]) == (413, "json-too-large")


def test_numbers_are_counted_before_they_are_an_array(monkeypatch):
    made = []
    monkeypatch.setattr(tensors.np, "array", lambda *_, **__: made.append(1))
    text = b'{"inputs": [{"name": "patch", "shape": [1, 2, 64, 64, 64], "datatype": "FP32", "data": [1,1,1]}]}'
    with pytest.raises(UsageError, match="are not"):
        tensors.decode(text, None)
    assert not made


def test_a_balancer_may_ask_by_head(running):
    for place in ("/", "/v2/health/live", "/v2/health/ready"):
        answer = running.client.head(place)
        assert (answer.status_code, answer.content) == (200, b""), place


def test_models_that_there_are_not(running):
    for place in ("other", "nodule-diag/versions/2", "other/ready"):
        answer = running.client.get(f"/v2/models/{place}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no-such-model")


def test_types_are_the_protocols():
    assert [np.dtype(kind).itemsize for kind in DTYPES.values()] == [4, 8, 2, 2, 4, 1]


CLIENTS = """
import asyncio, sys
import numpy as np

port, patches, out = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
NAMES = ["malignancy", "logit", "expert_score", "segmentation", "cam"]
found = {}

import tritonclient.http as triton
client = triton.InferenceServerClient(f"127.0.0.1:{port}")
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("nodule-diag")
assert client.is_model_ready("nodule-diag", "1")
assert client.get_server_metadata()["name"] == "nodule-diag"
assert client.get_model_metadata("nodule-diag")["inputs"][0]["shape"] == [-1, 2, 64, 64, 64]
for raw in (True, False):
    tensor = triton.InferInput("patch", list(patches.shape), "FP32")
    tensor.set_data_from_numpy(patches, binary_data=raw)
    asked = [triton.InferRequestedOutput(name, binary_data=raw) for name in NAMES]
    for outputs in (asked, None):
        answer = client.infer("nodule-diag", [tensor], outputs=outputs, request_id="7")
        for name in NAMES:
            found[f"triton {raw} {outputs is None} {name}"] = answer.as_numpy(name)
try:
    client.infer("nodule-diag", [triton.InferInput("other", [1], "FP32").set_data_from_numpy(np.zeros(1, "f4"))])
except triton.InferenceServerException as error:
    assert "patch" in error.message(), error

from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

async def kserve():
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=120))
    base = f"http://127.0.0.1:{port}"
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, "nodule-diag")
    for raw in (True, False):
        tensor = InferInput("patch", list(patches.shape), "FP32")
        tensor.set_data_from_numpy(patches, binary_data=raw)
        request = InferRequest("nodule-diag", [tensor])
        answer = await client.infer(base, request, model_name="nodule-diag")
        for output in answer.outputs:
            found[f"kserve {raw} {output.name}"] = output.as_numpy()

asyncio.run(kserve())
np.savez(out, **found)
"""


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the public clients: NODULE_DIAG_V2_CLIENTS names one, or it is made here."""
    named = os.environ.get("NODULE_DIAG_V2_CLIENTS")
    if named:
        return Path(named) / "bin" / "python"
    made = tmp_path_factory.mktemp("clients")
    subprocess.run([sys.executable, "-m", "venv", str(made)], check=True, timeout=300)
    python = made / "bin" / "python"
    ended = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "kserve", "tritonclient[http]"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if ended.returncode and os.environ.get("NODULE_DIAG_TOOLS") != "required":
        pytest.skip(f"the clients cannot be installed: {ended.stderr.strip().splitlines()[-1:]}")
    assert ended.returncode == 0, ended.stderr
    return python


@pytest.mark.slow
def test_the_public_clients_get_the_same_numbers(clients, running, diagnoser, tmp_path):
    np.save(tmp_path / "patches.npy", PATCHES)
    line = [clients, "-c", CLIENTS, str(running.port), str(tmp_path / "patches.npy"), str(tmp_path / "found.npz")]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    wanted = diagnoser.network.infer(PATCHES).given()
    with np.load(tmp_path / "found.npz") as found:
        assert len(found.files) == 4 * len(OUTPUTS) + 2 * len(OUTPUTS)
        for key in found.files:
            name = key.rpartition(" ")[2]
            np.testing.assert_allclose(found[key].reshape(wanted[name].shape), wanted[name], rtol=1e-6, err_msg=key)
