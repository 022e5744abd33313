"""Prints the lowest version of each runtime dependency that pyproject.toml allows, as constraints for pip.

Those of the base and of the extras in ``EXTRAS``: one that is added to the product is added there. What only tests need
gets its lower bound as it stands in the extra ``dev``, or pip would try one old release after another.

``--extras`` prints the extras in pip's form instead, ``--tests`` the tests that touch dependencies: reading, backends,
DICOM objects, report, PACS, and a command of each kind. ``--tools`` prints what those tests need besides.
"""

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("cpu", "openvino", "dicom", "report", "pacs", "serve")
TOOLS = (
    *("pytest", "pytest-xdist", "httpx", "hypothesis", "onnx", "jsonschema"),
    *("scipy", "scikit-image", "nibabel", "grimp"),
    *("pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg"),  # the tests write with them
)
TESTS = (
    *("tests/sdk/bundle", "tests/sdk/backends/test_onnxruntime_binding.py", "tests/sdk/backends/test_openvino.py"),
    *("tests/sdk/backends/test_onnx_file.py", "tests/sdk/backends/test_answers.py", "tests/sdk/cases/test_base.py"),
    *("tests/sdk/ct/formats/test_nifti.py", "tests/sdk/ct/formats/test_byte_stream.py", "tests/sdk/ct/test_volume.py"),
    *("tests/sdk/ct/dicom/test_syntaxes.py", "tests/sdk/ct/dicom/test_pixels.py", "tests/sdk/test_diagnoser.py"),
    *("tests/sdk/exchange/test_dicom_objects.py", "tests/sdk/dicom_objects", "tests/sdk/report", "tests/sdk/pacs"),
    *("tests/sdk/service", "tests/cli/test_main.py", "tests/cli/test_terminal.py", "tests/cli/test_evidence.py"),
    *("tests/cli/test_leaves_nothing.py",),
)
"""Those that are there are run; the whole is run by ``make lowest TESTS="tests/sdk tests/cli"``."""
AT_LEAST = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\d.]+)")


def present(project: dict) -> list[str]:
    """The extras of `EXTRAS` that the project has."""
    return [extra for extra in EXTRAS if extra in project["optional-dependencies"]]


def lowest(project: dict) -> list[str]:
    """``name==version`` of each.

    Raises:
        ValueError: For a requirement that has no lower bound, or more than that.
    """
    extras = project["optional-dependencies"]
    constraints = [each for each in extras["dev"] if re.match(r"[\w-]+", each)[0] in TOOLS]
    for requirement in [*project["dependencies"], *(each for extra in present(project) for each in extras[extra])]:
        if requirement.startswith("nodule-diag["):  # an extra of our own, which is in `EXTRAS` itself
            continue
        bound = AT_LEAST.fullmatch(requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} has not one lower bound and nothing else")
        constraints.append(f"{bound['name']}=={bound['version']}")
    return constraints


if __name__ == "__main__":
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text())["project"]
    printed = {
        "--extras": lambda: ",".join(present(project)),
        "--tools": lambda: " ".join(TOOLS),
        "--tests": lambda: " ".join(each for each in TESTS if (pyproject.parent / each).exists()),
    }
    print(printed[sys.argv[1]]() if sys.argv[1:] else "\n".join(lowest(project)))
