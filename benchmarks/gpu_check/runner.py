"""The parent: runs each step in a process of its own and writes the file after each step. Needs nothing but Python."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.plan import DEADLINE_S, SCHEMA, STEPS, Settings, Step, write_json

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("", "sdk", "cli", "training", "export")
"""Folders of the checkout that are imported from: a bare machine has nothing installed."""
LOG_CHARACTERS = 3000
"""Of a step's own output, the last characters are kept."""
TOLD_CHARACTERS = 300
"""Characters of a reason on the terminal; the file has the whole reason."""
LEAST_S = 5.0
"""A step does not begin with less time than this."""
CHILD = (sys.executable, "-m", "benchmarks.gpu_check.child")


def run_all(
    settings: Settings,
    *,
    out: Path,
    steps: Sequence[Step] = STEPS,
    deadline_s: float = DEADLINE_S,
    resume: bool = False,
    child: Sequence[str] = CHILD,
) -> dict[str, Any]:
    """Run the steps.

    Args:
        settings: What was asked for.
        out: The file; written after every step.
        steps: The steps, in this order.
        deadline_s: Limit for all steps together.
        resume: Keep the results of finished steps in ``out``.
        child: The command that runs a step, given its name and the settings.

    Returns:
        The document.
    """
    begin = time.monotonic()
    settings.work.mkdir(parents=True, exist_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    document = _begun(out, resume=resume)
    write_json(out, document)  # if it cannot be written, now is the time to know
    for step in steps:
        if document["steps"].get(step.name, {}).get("state") == "done":
            continue
        left = deadline_s - (time.monotonic() - begin)
        if left < min(LEAST_S, step.limit_s):
            entry: dict[str, Any] = {"state": "skipped", "reason": f"the {deadline_s:g} s for all steps are used up"}
        else:
            entry = run_step(step, settings, limit_s=min(step.limit_s, left), child=child)
        document["steps"][step.name] = entry
        document["wall_s"] = round(time.monotonic() - begin, 1)
        document["shares_of_ceiling"] = shares_of_ceiling(document["steps"])
        write_json(out, document)
        for line in told(step.name, entry):
            print(line, flush=True)
    return document


def _begun(out: Path, *, resume: bool) -> dict[str, Any]:
    fresh: dict[str, Any] = {"schema": SCHEMA, "date": datetime.now(UTC).isoformat(timespec="seconds"), "steps": {}}
    if not (resume and out.is_file()):
        return fresh
    document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return document if document.get("schema") == SCHEMA else fresh


def run_step(step: Step, settings: Settings, *, limit_s: float, child: Sequence[str] = CHILD) -> dict[str, Any]:
    """Run one step; its findings are kept even if it was killed or died.

    Returns:
        Its entry: ``state``, ``reason``, ``wall_s``, ``result`` and ``log``, the end of its output.
    """
    findings, log = settings.found(step.name), settings.work / f"{step.name}.log"
    findings.unlink(missing_ok=True)
    paths = [*(str(ROOT / name) for name in PACKAGES), str(settings.site), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*child, step.name, settings.to_json(), *step.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Compilers that a step has started would continue without the step.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    entry = _entry(findings, code, limit_s=limit_s)
    text = log.read_bytes()[-LOG_CHARACTERS:].decode(errors="replace")
    return {**entry, "wall_s": round(time.monotonic() - begin, 1), "log": text}


def _entry(findings: Path, code: int | None, *, limit_s: float) -> dict[str, Any]:
    """State, reason and result, from the exit code and from what the step wrote."""
    try:
        found: dict[str, Any] = json.loads(findings.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {"result": {}}
    doing = found.pop("doing", "")
    during = f", {doing}" if doing else ""
    if code is None:
        return {**found, "state": "timed-out", "reason": f"killed after {limit_s:.0f} s{during}"}
    if code != 0:
        died = (f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}") + during
        return {**found, "state": "failed", "reason": found.get("reason") or died}
    if "state" not in found:
        return {**found, "state": "failed", "reason": f"it ended without a word{during}"}
    return found


def told(name: str, entry: dict[str, Any]) -> list[str]:
    """A step as the terminal shows it: the reason in one line, and for each way the two ends of its range."""
    reason = " ".join(entry.get("reason", "").split())
    lines = [f"{name}: {entry['state']}{': ' + reason[:TOLD_CHARACTERS] if reason else ''}"]
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in entry.get("result", {}).get("latency", []):
        rows.setdefault((row["way"], row["precision"]), []).append(row)
    for (way, precision), measured in rows.items():
        least, best = measured[0], max(measured, key=lambda row: float(row["nodules_per_s"]))
        first = f"batch {least['batch']} in {least['p50_ms']:.2f} ms"
        most = f"at most {best['nodules_per_s']:.1f} nodules/s at batch {best['batch']}"
        lines.append(f"  {way} ({precision}): {first}, {most}")
    return lines


def shares_of_ceiling(steps: dict[str, Any]) -> list[dict[str, Any]]:
    """Each measured throughput as a share of the matrix products that were measured on the same device.

    The operations are those of the paper's network with every convolution direct, as torch counts them.
    """
    ceiling = steps.get("ceiling", {}).get("result", {})
    flops = ceiling.get("flops_per_nodule")
    rows = []
    for name, entry in steps.items():
        for row in entry.get("result", {}).get("latency", []):
            limit = ceiling.get("tflops", {}).get(row["precision"])
            if not flops or not limit:
                continue
            tflops = flops * row["nodules_per_s"] / 1e12
            rows.append(
                {"step": name, "way": row["way"], "batch": row["batch"], "tflops": tflops, "share": tflops / limit}
            )
    return rows
