"""Predictions over HTTP are the command line's, in every form that a client accepts."""

from __future__ import annotations

import email
import io
import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import jsonschema
import pydicom
import pytest

from nodule_diag.ct.made_up import made_up_ct
from nodule_diag.ct.reading import read_ct
from nodule_diag.exchange.reading import read_positions
from nodule_diag.report.writing import viewer_data
from nodule_diag.service.answers import DICOM, FORMS, MARKUPS, ZIP, Predicted, answer, chosen_form
from nodule_diag.service.problems import ServiceError
from nodule_diag.service.store import ReadCT
from nodule_diag_cli.main import run
from service_client import MIDDLE

OTHER = [-8.0, 20.0, -110.0]
XYZ = ("--xyz", *map(str, MIDDLE))


def without_path_and_times(document: dict[str, Any]) -> dict[str, Any]:
    return document | {"ct": document["ct"] | {"path": ""}, "timing_ms": set(document["timing_ms"])}


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({}, XYZ),
        ({"nodules": [{"xyz": MIDDLE}, {"xyz": OTHER}]}, (*XYZ, "--xyz", *map(str, OTHER))),
        ({"space": "voxel", "nodules": [{"xyz": [14, 15, 6]}]}, ("--xyz", "14", "15", "6", "--space", "voxel")),
        ({"space": "ras", "nodules": [{"xyz": [10, -24, -115]}]}, ("--xyz", "10", "-24", "-115", "--space", "ras")),
        ({"k": 3, "prevalence": 0.05}, (*XYZ, "--k", "3", "--prevalence", "0.05")),
        ({"symmetries": 8}, (*XYZ, "--symmetries", "8")),
        ({"where": "diameter_mm > 10"}, (*XYZ, "--where", "diameter_mm > 10")),
        ({"no_lung_check": True, "redact": True}, (*XYZ, "--no-lung-check", "--redact")),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_the_document_is_the_command_lines(question, words, running, scan, tiny_bundle, capsys):
    document = running.add(scan)
    answer = running.ask(document["id"], **question)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    code = run(["predict", str(scan), *words, "--bundle", str(tiny_bundle), "--backend", "onnxruntime", "--json"])
    out = capsys.readouterr().out
    assert code == 0
    wanted, found = json.loads(out), answer.json()
    wanted["runtime"]["threads"] = found["runtime"]["threads"]
    assert without_path_and_times(found) == without_path_and_times(wanted)
    assert answer.text == json.dumps(found, indent=2) + "\n", "written as the command line writes it"


def test_the_document_keeps_to_the_published_schema(running, scan, repo_root):
    schema = json.loads((repo_root / "docs/prediction.schema.json").read_text())
    found = running.ask(running.add(scan)["id"]).json()
    jsonschema.validate(found, schema)
    assert found["ct"]["path"] == scan.name


def test_the_ct_comes_with_the_question(start, scan):
    running = start()
    question = {"nodules": [{"xyz": MIDDLE, "id": "left, upper"}]}
    files = {"file": (scan.name, scan.read_bytes()), "request": (None, json.dumps(question))}
    answer = running.client.post("/v1/predictions", files=files)
    assert answer.status_code == 200, answer.text
    held = running.ask(running.add(scan)["id"]).json()["nodules"][0]
    assert answer.json()["nodules"] == [held | {"id": "left, upper"}]
    assert answer.json()["timing_ms"]["read"] > 0
    assert len(running.service.store.documents()) == 1, "the first was held for that request alone"


def test_the_ct_is_named_by_its_path(start, scan):
    running = start(root=scan.parent)
    answer = running.ask({"path": scan.name})
    assert answer.status_code == 200, answer.text
    assert answer.json()["ct"]["path"] == scan.name
    assert running.service.store.documents() == []


def test_a_report(running, scan):
    answer = running.ask(running.add(scan)["id"], headers={"Accept": "text/html"})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Scroll through it" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert scan.name not in answer.text


@pytest.mark.parametrize("form", [form for form in FORMS if form not in (DICOM, ZIP)])
def test_redact_holds_for_every_form(form, diagnoser):
    """DICOM objects, which name the patient, are refused."""
    name = "Mueller-1950"
    ct = replace(made_up_ct(), warnings=(f"'{name}' has no slice 3",))
    prediction = diagnoser.predict_timed(ct, [(0.0, 0.0, 0.0)])
    prediction = replace(prediction, cases=replace(prediction.cases, where=f"not patient_id = '{name}'"))
    made = Predicted(ReadCT(ct), 0.0, prediction, diagnoser, redact=False)
    plain, told = answer(made, form).body.decode(), answer(made._replace(redact=True), form).body.decode()
    assert name in plain or form == MARKUPS
    assert name not in told


def test_markups_for_slicer(running, scan, tmp_path):
    answer = running.ask(running.add(scan)["id"], headers={"Accept": "application/vnd.slicer.mrk+json"})
    path = tmp_path / "found.mrk.json"
    path.write_bytes(answer.content)
    (position,) = read_positions(path)
    assert position.xyz_lps_mm == pytest.approx(MIDDLE)
    assert answer.json()["markups"][0]["controlPoints"][0]["description"].startswith("P 0.")


@pytest.mark.parametrize("how", ["uploaded", "zipped", "path"])
def test_dicom_objects_refer_to_the_series(how, start, series, tmp_path):
    pytest.importorskip("highdicom")
    import ct_files as make

    running = start(root=series.parent)
    if how == "path":
        ct: Any = {"path": series.name}
    else:
        files = sorted(series.iterdir()) if how == "uploaded" else [make.zipped(series, tmp_path / "series.zip")]
        parts = [("file", (path.name, path.read_bytes())) for path in files]
        ct = running.client.post("/v1/cts", files=parts).json()["id"]
    answer = running.ask(ct, headers={"Accept": 'multipart/related; type="application/dicom"'})
    assert answer.status_code == 200, answer.text
    whole = b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    message = email.message_from_bytes(whole)
    assert message.get_param("type") == "application/dicom"
    found = {
        part["Content-Location"]: pydicom.dcmread(io.BytesIO(part.get_payload(decode=True)))
        for part in message.get_payload()
    }
    assert {"measurements.dcm", "cam_1.dcm", "pictures_1.dcm"} <= set(found)
    report = found["measurements.dcm"]
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == f"{make.UID_ROOT}.1"


def test_no_dicom_objects_of_what_was_no_dicom(running, scan):
    answer = running.ask(running.add(scan)["id"], headers={"Accept": "multipart/related"})
    assert (answer.status_code, answer.json()["code"]) == (422, "not-dicom")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("text/*", "text/html"),
        ("application/json;q=0.1, text/html", "text/html"),
        ("image/png, application/*;q=0.5", "application/json"),
        ("text/html;q=0, */*;q=0.1", "application/json"),
    ],
)
def test_the_client_chooses_the_form(accept, kind, running, scan):
    answer = running.ask(running.add(scan)["id"], headers={"Accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == kind


def test_the_same_question_is_answered_by_the_same_inference(start, gated, scan):
    network, gate = gated
    gate.open.set()
    running = start(network=network)
    ct = running.add(scan)["id"]
    both = [{"xyz": MIDDLE}, {"xyz": OTHER}]
    first = running.ask(ct, nodules=both)
    calls = gate.calls
    assert running.ask(ct, nodules=both).content == first.content
    assert "Scroll" in running.ask(ct, nodules=both, headers={"Accept": "text/html"}).text
    maps = running.client.post("/v1/maps", json={"ct": ct, "nodules": [{"xyz": OTHER}]})
    assert maps.status_code == 200
    assert gate.calls == calls
    running.ask(ct, nodules=both, k=2)
    assert gate.calls > calls


def test_maps_are_what_the_reports_viewer_draws(running, scan, diagnoser):
    ct = read_ct(scan)
    answer = running.client.post("/v1/maps", json={"ct": running.add(scan)["id"], "nodules": [{"xyz": MIDDLE}]})
    assert answer.status_code == 200, answer.text
    wanted = viewer_data(ct, diagnoser.predict(ct, [MIDDLE])[0])
    assert answer.json() == json.loads(json.dumps(wanted))


def test_kept_only_where_that_is_asked_for(start, scan, tmp_path):
    running = start(keep=tmp_path)
    answer = running.ask(running.add(scan)["id"])
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == answer.content


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "request-damaged"),
        (b"[1]", 400, "request-invalid"),
        ({"nodules": [{"xyz": MIDDLE}]}, 400, "ct-missing"),
        ({"ct": "ID"}, 400, "request-invalid"),
        ({"ct": "ID", "nodules": []}, 400, "request-invalid"),
        ({"ct": "ID", "nodules": [{"xyz": [1, 2]}]}, 400, "request-invalid"),
        ({"ct": "ID", "nodules": [{"xyz": ["1", 2, 3]}], "space": "mni"}, 400, "request-invalid"),
        ({"ct": "ID", "nodules": [{"xyz": MIDDLE}], "colour": 1}, 400, "request-invalid"),
        ({"ct": "ID", "nodules": [{"xyz": MIDDLE}] * 65}, 400, "too-many-nodules"),
        ({"ct": "ID", "nodules": [{"xyz": MIDDLE, "id": "a"}, {"xyz": OTHER, "id": "a"}]}, 400, "usage"),
        ({"ct": "ID", "nodules": [{"xyz": [0, 0, 0]}]}, 422, "coordinate-outside"),
        ({"ct": "ID", "nodules": [{"xyz": MIDDLE}], "prevalence": 2}, 400, "usage"),
        ({"ct": "ID", "nodules": [{"xyz": MIDDLE}], "where": "none ="}, 400, "where"),
        ({"ct": "ID", "nodules": [{"xyz": MIDDLE}], "symmetries": 3}, 400, "request-invalid"),
        ({"ct": {"path": "x.nii"}, "nodules": [{"xyz": MIDDLE}]}, 403, "no-root"),
    ],
)
def test_what_cannot_be_answered(body, status, code, running, scan):
    if isinstance(body, dict) and body.get("ct") == "ID":
        body = body | {"ct": running.add(scan)["id"]}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = running.client.post("/v1/predictions", content=data)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "hint", "request_id"}
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_nothing_else_is_acceptable(running, scan):
    answer = running.ask(running.add(scan)["id"], headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable")


@pytest.mark.parametrize("accept", ["application/json;q=0, */*", "*/*, application/json;q=0.0"])
def test_a_form_that_is_not_wanted_is_not_sent(accept):
    assert chosen_form(accept) == "text/html"
    with pytest.raises(ServiceError):
        chosen_form("text/html;q=0, text/html")


@pytest.mark.parametrize("accept", ["x text/html", "a" * 30_000, "text/html/" * 3000, ";q" * 15_000])
def test_a_form_is_looked_for_once_between_two_commas(accept):
    """A search from every letter of a long header took 17 s, in which no other client was answered."""
    with pytest.raises(ServiceError):
        chosen_form(accept)


def test_maps_are_of_one_nodule(running, scan):
    body = {"ct": running.add(scan)["id"], "nodules": [{"xyz": MIDDLE}, {"xyz": OTHER}]}
    answer = running.client.post("/v1/maps", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "one-nodule")


def test_about_docs_and_metrics(running, scan, diagnoser):
    about = running.client.get("/v1/about").json()
    assert about["bundle"]["sha256"] == diagnoser.bundle.sha256
    assert about["cases"]["count"] == len(diagnoser.cases)
    running.ask(running.add(scan)["id"])
    text = running.client.get("/metrics").text
    assert 'nodule_diag_requests_total{method="POST",route="/v1/predictions",status="200"}' in text
    assert "nodule_diag_nodules_total" in text
    docs = running.client.get("/docs")
    carried = files("fastapi_offline") / "static"
    assert "http://" not in docs.text
    assert "https://" not in docs.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/{name}" in docs.text
        assert running.client.get(f"/docs/{name}").content == (carried / name).read_bytes()
    paths = running.client.get("/openapi.json").json()["paths"]
    assert {"/v1/cts", "/v1/predictions", "/v1/maps", "/v1/jobs/{job_id}", "/v2/models/{model}/infer"} <= set(paths)


def test_pictures_of_similar_cases(running):
    answer = running.client.get("/v1/cases/case-0001/picture")
    assert (answer.status_code, answer.json()["code"]) == (404, "no-picture")
