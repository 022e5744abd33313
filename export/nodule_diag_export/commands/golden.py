"""``nodule-diag export golden``: answers that reveal a runtime which computes wrongly."""

from __future__ import annotations

import typer

from nodule_diag.process import resolve_threads
from nodule_diag_export.commands.options import BundleArgument, BundleOut, Threads, open_bundle
from nodule_diag_export.parity import add_golden


def golden_command(out: BundleOut, source: BundleArgument = None, threads: Threads = 0) -> None:
    """Write a copy of a bundle with its network's answers to made-up nodules, for `doctor --selftest`."""
    written = add_golden(open_bundle(source), out=out, threads=resolve_threads(threads or None))
    golden = written.manifest.golden
    count, size = (0, 0) if golden is None else (len(golden.seeds), len(written.read(golden.file)))
    typer.echo(f"wrote {out}: golden answers to {count} nodules ({size / 1e3:.0f} kB), sha256 {written.sha256}")
