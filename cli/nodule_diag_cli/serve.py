"""``nodule-diag serve``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from nodule_diag.errors import MissingExtraError
from nodule_diag_cli import terminal
from nodule_diag_cli.browser import has_browser, open_when_up
from nodule_diag_cli.options import (
    BackendName,
    BackendOption,
    BundleOption,
    CasesOption,
    DeviceOption,
    PrecisionName,
    PrecisionOption,
)

MIB = 2**20
NEEDS = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "jinja2")
"""Modules that the extra brings."""


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but localhost needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Host name that a proxy passes on. Can be repeated."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File whose first line is the token that requests must send.")
    ] = None,
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Let requests name CTs below this folder.")] = None,
    dicomweb: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Let requests fetch CTs from this PACS. Can be repeated.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep every prediction in this folder; by default none is kept.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Load a phantom CT at the start.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page, if there is a browser.")] = False,
    bundle: BundleOption = None,
    cases: CasesOption = None,
    backend: BackendOption = BackendName.AUTO,
    device: DeviceOption = "auto",
    precision: PrecisionOption = PrecisionName.AUTO,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Requests worked on at a time; 1 on a CPU, 4 on a GPU.")
    ] = None,
    queue: Annotated[int, typer.Option(metavar="N", min=1, help="Requests that may wait; more get 429.")] = 32,
    max_upload: Annotated[int, typer.Option(metavar="MIB", min=1, help="Largest size of one request.")] = 2048,
    max_cts: Annotated[int, typer.Option(metavar="N", min=1, help="Largest number of held CTs.")] = 8,
    max_memory: Annotated[int, typer.Option(metavar="MIB", min=1, help="Memory for all held CTs.")] = 8192,
    max_voxels: Annotated[int, typer.Option(metavar="N", min=1, help="Largest number of voxels of one CT.")] = 2**30,
    expires: Annotated[float, typer.Option(metavar="S", min=1, help="Time for which an unused CT is held.")] = 1800.0,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Time limit for the work on one request.")
    ] = 300.0,
    patience: Annotated[float, typer.Option(metavar="S", min=0.1, help="Time for which a client may stall.")] = 20.0,
    stop_timeout: Annotated[float, typer.Option(metavar="S", min=0.1, help="Time for running work on exit.")] = 30.0,
) -> None:
    """Serve predictions over HTTP, with a web page. Needs the extra 'serve'.

    Example: nodule-diag serve --demo, and open http://127.0.0.1:8000
    """
    if missing := next((module for module in NEEDS if find_spec(module) is None), None):
        raise MissingExtraError(missing, "serve")
    from nodule_diag.diagnoser import Diagnoser
    from nodule_diag.service import Settings, read_token
    from nodule_diag.service import serve as run

    settings = Settings(
        host=host,
        port=port,
        names=tuple(name or ()),
        token=None if token_file is None else read_token(token_file),
        root=root,
        keep=keep,
        demo=demo,
        dicomweb=tuple(dicomweb or ()),
        upload_bytes=max_upload * MIB,
        uploads_bytes=2 * max_upload * MIB,
        ct_voxels=max_voxels,
        cts=max_cts,
        cts_bytes=max_memory * MIB,
        expires_s=expires,
        queue=queue,
        workers=workers,
        work_s=timeout,
        idle_s=patience,
        stop_s=stop_timeout,
    )
    with terminal.progress("loading the bundle"):
        diagnoser = Diagnoser.load(bundle, cases=cases, backend=backend.value, device=device, precision=precision.value)
        diagnoser.warm_up()
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}"
    terminal.complain(f"serving on {address} (Ctrl-C stops it)")
    if open_page and has_browser():
        open_when_up(host, port, address)
    run(settings, diagnoser, cases=cases)
