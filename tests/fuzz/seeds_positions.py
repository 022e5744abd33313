"""Positions of nodules as detectors and people write them, in text and in DICOM: seeds of the fuzzer."""

from __future__ import annotations

import json
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID

import ct_files as make
import marked_files
from fuzz.seed import Seed

HEAD_BYTES = 1000
"""Of a DICOM object: half of all damage to bytes goes there."""
FIXED = {"DA": "20260101", "TM": "120000", "DT": "20260101120000"}


def texts() -> list[Seed]:
    """Lists of points in every form of text."""
    rows = [("a", -20.5, 11.25, -130.0), ("b", 0.5, 20.0, -120.0), ("c", 3.0, 30.5, -1e2)]
    entries = [{"id": name, "x": x, "y": y, "z": z} for name, x, y, z in rows]
    control = [{"id": name, "label": name, "position": xyz, "positionStatus": "defined"} for name, *xyz in rows]
    slicer = {
        "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
        "markups-schema-v1.0.3.json#",
        "markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control}],
    }
    challenge = {
        "name": "nodules",
        "type": "Multiple points",
        "points": [{"name": name, "point": xyz} for name, *xyz in rows],
        "version": {"major": 1, "minor": 0},
    }
    fcsv = "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    fcsv += "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    fcsv += "".join(f"{name},{x},{y},{z},0,0,0,1,1,1,0,{name},,\n" for name, x, y, z in rows)
    made = {
        "nodules.csv": "id,x,y,z\n" + "".join(f"{name},{x},{y},{z}\n" for name, x, y, z in rows),
        "nodules.json": json.dumps(entries, indent=1),
        "nodules.mrk.json": json.dumps(slicer, indent=1),
        "nodules.fcsv": fcsv,
        "luna.csv": "seriesuid,coordX,coordY,coordZ\n" + "".join(f"1.2.3,{x},{y},{z}\n" for _, x, y, z in rows),
        "points.json": json.dumps(challenge, indent=1),
    }
    found = []
    for name, text in made.items():
        ways = ("bytes", "text", "text") + ("json", "json") * name.endswith("json")
        form = "Point file, JSON" if name.endswith("json") else "Point file, CSV"
        data = text.encode()
        found.append(Seed(f"points-{name}", form, "points", name, {name: data}, ways, "points", {name: len(data)}))
    return found


def marks(folder: Path) -> list[Seed]:
    """Objects that mark two nodules in space: they say where without their CT."""
    marked = marked_files.marked_series(folder / "marked")
    theirs = {str(one.value) for item in marked.slices for one in item if one.VR == "UI"}
    made = {
        "sr-point": marked_files.write_sr(folder / "point.dcm", marked, by="point"),
        "sr-polygon": marked_files.write_sr(folder / "polygon.dcm", marked, by="polygon"),
        "sr-ellipsoid": marked_files.write_sr(folder / "ellipsoid.dcm", marked, by="ellipsoid"),
        "seg-binary": marked_files.write_seg(folder / "binary.dcm", marked),
        "seg-fractional": marked_files.write_seg(folder / "fractional.dcm", marked, kind="FRACTIONAL"),
        "rtstruct": marked_files.write_rtstruct(folder / "rtstruct.dcm", marked),
    }
    ways = ("bytes", "elements", "elements", "elements")
    found = []
    for name, path in made.items():
        data = _settled(path, theirs).read_bytes()
        form = f"DICOM {name.partition('-')[0].upper()}"
        heads = {"marks.dcm": HEAD_BYTES}
        found.append(Seed(name, form, "points", "marks.dcm", {"marks.dcm": data}, ways, "points", heads))
    return found


def _settled(path: Path, theirs: set[str]) -> Path:
    """The object with UIDs and times that are the same each time that it is made; those of the CT stay."""
    known: dict[str, str] = {}

    def settle(data: Dataset) -> None:
        for one in data:
            if one.VR == "UI" and isinstance(one.value, str) and not one.value.startswith("1.2.840.10008."):
                if one.value not in theirs:
                    one.value = UID(known.setdefault(one.value, f"{make.UID_ROOT}.7.{len(known)}"))
            elif one.VR in FIXED and one.value:
                one.value = FIXED[one.VR]
            elif one.VR == "SQ":
                for item in one.value:
                    settle(item)

    item = dcmread(path)
    settle(item.file_meta)
    settle(item)
    item.save_as(path, enforce_file_format=True)
    return path
