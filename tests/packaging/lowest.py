"""Prints the lowest version of each runtime dependency that pyproject.toml allows, as constraints for pip.

Those of the base and of the extras in ``EXTRAS``: one that is added to the product is added there. What only tests need
gets its lower bound as it stands in the extra ``dev``, or pip would try one old release after another.

``--extras`` prints the extras in pip's form instead, ``--tests`` the tests that touch dependencies: reading, backends,
DICOM objects, report, PACS, service, and commands of each kind. ``--tools`` prints what those tests need besides.
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
    "tests/sdk/bundle",
    "tests/sdk/backends/test_onnxruntime_binding.py",
    "tests/sdk/backends/test_openvino.py",
    "tests/sdk/backends/test_onnx_file.py",
    "tests/sdk/backends/test_answers.py",
    "tests/sdk/cases/test_base.py",
    "tests/sdk/ct/formats/test_nifti.py",
    "tests/sdk/ct/formats/test_byte_stream.py",
    "tests/sdk/ct/test_volume.py",
    "tests/sdk/ct/dicom/test_syntaxes.py::test_it_gives_what_was_stored",
    "tests/sdk/ct/dicom/test_pixels.py::test_every_syntax_gives_what_was_stored",
    "tests/sdk/ct/dicom/test_pixels.py::test_neither_pydicom_nor_itk_says_anything",
    "tests/sdk/test_diagnoser.py",
    "tests/sdk/exchange/test_dicom_objects.py",
    "tests/sdk/dicom_objects",
    "tests/sdk/report/test_report.py",
    "tests/sdk/pacs",
    "tests/sdk/service/test_predictions.py",
    "tests/sdk/service/test_inference.py",
    "tests/sdk/service/test_cts.py",
    "tests/sdk/service/test_dicomweb.py",
    "tests/sdk/service/test_jobs.py",
    "tests/sdk/service/test_process.py",
    "tests/sdk/service/test_security.py::test_every_answer_is_protected_and_numbered",
    "tests/sdk/service/test_security.py::test_an_upload_that_is_too_large",
    "tests/sdk/service/test_security.py::test_a_client_that_stalls_in_the_head",
    "tests/sdk/service/test_security.py::test_a_client_that_stalls_in_the_body",
    "tests/sdk/service/test_security.py::test_a_client_that_reads_nothing_is_left",
    "tests/sdk/service/test_security.py::test_a_damaged_form",
    "tests/sdk/service/test_security.py::test_a_form_of_very_many_parts",
    "tests/sdk/service/test_security.py::test_nothing_is_written_anywhere",
    "tests/sdk/service/test_security.py::test_the_log_says_nothing_of_what_a_damaged_header_holds",
    "tests/cli/test_leaves_nothing.py",
    "tests/cli/test_evidence.py",
    "tests/cli/test_main.py::test_exit_codes_and_codes",
    "tests/cli/test_main.py::test_help_names_every_command",
    "tests/cli/test_main.py::test_info_is_a_screen",
    "tests/cli/test_main.py::test_doctor_names_every_backend",
    "tests/cli/test_terminal.py::test_names_that_are_commands",
    "tests/cli/test_terminal.py::test_warnings_are_one_line",
)
"""What a version can change. The rest of the same files says nothing of dependencies, and has cost minutes."""
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
        "--tests": lambda: " ".join(TESTS),
    }
    print(printed[sys.argv[1]]() if sys.argv[1:] else "\n".join(lowest(project)))
