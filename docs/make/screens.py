"""Makes the screenshots of the pages that show a task: ``python docs/make/screens.py``, or ``make pages``.

Each task is done on a phantom, which is not a patient, by the commands of its page. What a terminal showed becomes an
SVG, and what the PACS shows a JPEG: for that, Orthanc, Playwright and Chromium are needed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import StringIO
from pathlib import Path

from pydicom import dcmread
from rich.console import Console
from rich.text import Text

from nodule_diag.ct import Phantom, chest_phantom
from nodule_diag_cli.demo import write_ct

ROOT = Path(__file__).resolve().parents[2]
PLOTS = ROOT / "docs" / "plots"
COLUMNS = 100
COARSE_ZYX_MM = (2.5, 2.0, 2.0)
WIDTH, HEIGHT = 1180, 760


def typed(folder: Path, *commands: str) -> str:
    """What a terminal shows when commands are typed in a folder, colours included."""
    shown = []
    known = os.environ | {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    for command in commands:
        words = shlex.split(command)
        program = [sys.executable, "-m", "nodule_diag_cli"] if words[0] == "nodule-diag" else words[:1]
        done = subprocess.run(
            [*program, *words[1:]], cwd=folder, env=known, check=False, text=True, capture_output=True
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        shown += [f"$ {command}", done.stdout.rstrip().replace(str(folder), "."), ""]
    return "\n".join(shown)


def draw(text: str, picture: Path, *, title: str) -> None:
    """A terminal as SVG that asks nobody for a font."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(text))
    svg = console.export_svg(title=title, unique_id=picture.stem)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    picture.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def positions(folder: Path, phantom: Phantom) -> None:
    """A detector's marks: what 3D Slicer writes goes in and comes back."""
    write_ct(folder / "scan.nii", phantom.ct)
    points = [
        {"label": f"mark {number}", "position": list(nodule.center_xyz_mm), "positionStatus": "defined"}
        for number, nodule in enumerate(phantom.nodules, start=1)
    ]
    markups = [{"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}]
    (folder / "F.mrk.json").write_text(json.dumps({"markups": markups}))
    text = typed(
        folder,
        "nodule-diag predict scan.nii --nodules F.mrk.json --positions-out answers.csv",
        "cut -d , -f 1-6,8 answers.csv",
    )
    draw(text, PLOTS / "positions.svg", title="A detector's marks")


def grand_challenge(folder: Path, phantom: Phantom) -> None:
    """One job of LUNA25."""
    job = folder / "job" / "input"
    (job / "images" / "chest-ct").mkdir(parents=True)
    write_ct(job / "images" / "chest-ct" / "1.mha", phantom.ct)
    points = [
        {"name": f"1_{number}_19990102", "point": list(nodule.center_xyz_mm)}
        for number, nodule in enumerate(phantom.nodules, start=1)
    ]
    document = {"name": "Points of interest", "type": "Multiple points", "points": points}
    (job / "nodule-locations.json").write_text(json.dumps(document | {"version": {"major": 1, "minor": 0}}))
    (job / "clinical-information-lung-ct.json").write_text("{}")
    text = typed(
        folder,
        "nodule-diag grand-challenge --input job/input --output job/output",
        "cat job/output/lung-nodule-malginancy-likelihoods.json",
    )
    draw(text, PLOTS / "grand-challenge.svg", title="A job of LUNA25")


def case_base(folder: Path) -> None:
    """A case base of a dozen phantoms."""
    lines = ["case_id,patient,label,method,age,sex,path,x,y,z"]
    for number in range(12):
        z, y, x = COARSE_ZYX_MM
        phantom = chest_phantom(spacing_zyx_mm=(z, y, x + number / 100))
        write_ct(folder / f"ct{number:02}.nii", phantom.ct)
        for which, nodule in enumerate(phantom.nodules[:2]):
            label, where = (number + which) % 2, ",".join(f"{value:.1f}" for value in nodule.center_xyz_mm)
            lines.append(
                f"n{number:02}-{which},p{number:02},{label},{('surgery', 'biopsy')[label]},{51 + 2 * number},"
                f"{'FM'[number % 2]},ct{number:02}.nii,{where}"
            )
    (folder / "hospital.csv").write_text("\n".join(lines) + "\n")
    text = typed(
        folder,
        "nodule-diag cases build hospital.csv --out hospital.sqlite --column age --column sex --pictures",
        "nodule-diag cases list hospital.sqlite --where \"age > 60 and sex = 'F'\"",
        "nodule-diag cases evaluate hospital.sqlite --k 5",
    )
    draw(text, PLOTS / "case-base.svg", title="A case base of phantoms")


def pacs(folder: Path, phantom: Phantom) -> None:
    """What Orthanc shows of a phantom's study once the objects are stored."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from playwright.sync_api import sync_playwright

    from benchmarks.part_dicom import write_series
    from nodule_diag.pacs import Pacs

    server = import_module("orthanc")  # of the tests
    write_series(folder / "ct", phantom.ct)
    slices = [dcmread(path) for path in sorted((folder / "ct").iterdir())]
    for item in slices:
        item.PatientName, item.StudyDescription, item.SeriesDescription = "Phantom", "Chest CT of a phantom", "Chest"
        item.SeriesNumber, item.StudyDate = 1, "20261126"
    os.environ |= {"NODULE_DIAG_DICOMWEB_USER": server.USER, "NODULE_DIAG_DICOMWEB_PASSWORD": server.PASSWORD}
    (folder / "orthanc").mkdir()
    with server.orthanc(folder / "orthanc") as url, sync_playwright() as running:
        Pacs(url).store(slices)
        study, series = slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID
        where = " ".join(f"--xyz {x:.2f} {y:.2f} {z:.2f}" for x, y, z in [phantom.nodules[1].center_xyz_mm])
        typed(folder, f"nodule-diag predict --dicomweb {url} --study {study} --series {series} {where} --store")
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT},
            http_credentials={"username": server.USER, "password": server.PASSWORD},
        )
        page = context.new_page()
        root = url.removesuffix("/dicom-web")
        (found,) = context.request.get(f"{root}/studies").json()
        page.goto(f"{root}/app/explorer.html#study?uuid={found}")
        page.get_by_text("Lung nodules: measurements").wait_for()
        page.screenshot(path=str(PLOTS / "pacs.jpg"), quality=85, animations="disabled")
        browser.close()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def main(names: Sequence[str]) -> None:
    """Make some of the screenshots, or all."""
    phantom = chest_phantom(spacing_zyx_mm=COARSE_ZYX_MM)
    for name, make in (("positions", positions), ("grand-challenge", grand_challenge), ("pacs", pacs)):
        if not names or name in names:
            with scratch() as folder:
                make(folder, phantom)
    if not names or "case-base" in names:
        with scratch() as folder:
            case_base(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
