"""The process of one step: ``python -m benchmarks.gpu_check.child STEP SETTINGS ...``.

A step's function takes the settings and its findings, and writes results as it finds them. The function and its
packages are imported when it runs: a missing package is then a finding of this step.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module

from benchmarks.gpu_check.findings import Findings, in_words, lacks
from benchmarks.gpu_check.plan import Settings

FUNCTIONS = {
    "wheels": "benchmarks.gpu_check.install:wheels",
    "machine": "benchmarks.gpu_check.machine:machine",
    "pycuda": "benchmarks.gpu_check.pycuda_build:pycuda",
    "reference": "benchmarks.gpu_check.networks:reference",
    "ceiling": "benchmarks.gpu_check.torch_peer:ceiling",
    "torch": "benchmarks.gpu_check.torch_peer:eager",
    "torch-compile": "benchmarks.gpu_check.torch_peer:compiled",
    "torch-compile-graphs": "benchmarks.gpu_check.torch_peer:compiled",
}
BACKEND = "benchmarks.gpu_check.networks:backend"
"""The function of every other step."""


def main() -> int:
    """Run one step."""
    step, settings, *arguments = sys.argv[1:]
    asked = Settings.of_json(settings)
    findings = Findings(asked, step)
    module, _, name = FUNCTIONS.get(step, BACKEND).partition(":")
    try:
        getattr(import_module(module), name)(asked, findings, *arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what this step found out
        traceback.print_exc()
        lacking = lacks(error)
        findings.end("unavailable" if lacking else "failed", in_words(error))
        return 0 if lacking else 1
    else:
        findings.end("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
