"""Writes the software bill of materials of an environment: every distribution in it, with its licence (CycloneDX).

`make sbom` makes the environment, with the wheel's base and the extra ``cpu`` and nothing else. The list is
cyclonedx-py's own, checked against CycloneDX's schema. Licences that a distribution does not name in its metadata are
filled in here from the licence file that it carries. A distribution without a licence, or one whose licence asks
something of who passes it on and that is not named below, ends the command.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SCHEMA = SchemaVersion.V1_6
NAMED_IN_ITS_LICENCE_FILE = {
    "hnswlib": "Apache-2.0",
    "openvino": "Apache-2.0",
    "protobuf": "BSD-3-Clause",
    "simpleitk": "Apache-2.0",
    "pycuda": "MIT",
}
"""Distributions whose metadata names none, or in words that are no SPDX identifier."""
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|EPL|CDDL|EUPL|OSL)\b|Mozilla|GNU")
KNOWN_COPYLEFT: dict[str, str] = {}
"""Distributions of the base install under such a licence, and why that is not a hindrance: none today."""


def bill_of(environment: Path, *, pyproject: Path) -> dict[str, Any]:
    """The bill of an environment, with a licence for each distribution in it.

    Raises:
        SystemExit: When one has no licence, one is copyleft and not known to be, or CycloneDX's schema says no.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(environment)]
    command += ["--pyproject", str(pyproject), "--output-reproducible", "--sv", SCHEMA.to_version()]
    bill: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for component in bill["components"]:
        if not licences_of(component) and (licence := NAMED_IN_ITS_LICENCE_FILE.get(component["name"].lower())):
            component["licenses"] = [{"license": {"id": licence, "acknowledgement": "concluded"}}]
    faults = [f"{component['name']} names no licence" for component in bill["components"] if not licences_of(component)]
    faults += [
        f"{component['name']} is under {', '.join(licences_of(component))}"
        for component in bill["components"]
        if COPYLEFT.search(" ".join(licences_of(component))) and component["name"] not in KNOWN_COPYLEFT
    ]
    if faults:
        raise SystemExit("; ".join(faults))
    if wrong := JsonStrictValidator(SCHEMA).validate_str(json.dumps(bill)):
        raise SystemExit(f"not valid CycloneDX: {wrong}")
    return bill


def licences_of(component: dict[str, Any]) -> list[str]:
    """The licences of a component: SPDX identifiers, expressions, or the words of its metadata."""
    found = []
    for entry in component.get("licenses", []):
        named = entry.get("license", {})
        found.append(entry.get("expression") or named.get("id") or named.get("name"))
    return [licence for licence in found if licence]


def main() -> None:
    """Write the bill, and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    bill = bill_of(arguments.environment, pyproject=Path(__file__).parents[2] / "pyproject.toml")
    arguments.out.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    for component in bill["components"]:
        print(f"{component['name']} {component['version']}: {', '.join(licences_of(component))}")
    print(f"wrote {arguments.out}: {len(bill['components'])} distributions, none of them copyleft")


if __name__ == "__main__":
    main()
