"""Prints the lowest version of each runtime dependency that pyproject.toml allows, as constraints for pip.

Those of the base and of the extras that the runtime reads and computes with.
What tests and training need is not pinned.
"""

import re
import tomllib
from pathlib import Path

EXTRAS = ("cpu", "openvino", "dicom", "report")
AT_LEAST = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\d.]+)")


def lowest(project: dict) -> list[str]:
    """``name==version`` of each.

    Raises:
        ValueError: For a requirement that has no lower bound, or more than that.
    """
    extras = project["optional-dependencies"]
    constraints = []
    for requirement in [*project["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]:
        bound = AT_LEAST.fullmatch(requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} has not one lower bound and nothing else")
        constraints.append(f"{bound['name']}=={bound['version']}")
    return constraints


if __name__ == "__main__":
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    print("\n".join(lowest(tomllib.loads(pyproject.read_text())["project"])))
