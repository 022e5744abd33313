"""Builds a new case base beside its place, one CT at a time, and moves it there when complete; resumes after a kill.

Unfinished work is in a folder, ``.NAME.building``. One process at a time works in this folder:

- ``plan.json`` says what each case is made from. It is written before any case is added.
- ``cases.sqlite`` grows by one transaction per CT.

The next run keeps the cases whose plan has not changed, and makes the others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nodule_diag.cases.base import CaseBase
from nodule_diag.cases.judging import Filled, Predicts, Progress, differences, fill
from nodule_diag.cases.table import Listed
from nodule_diag.errors import CaseBaseError, OutputError, UsageError
from nodule_diag.process import sole_writer, sync_folder, write_bytes

PLAN, PARTIAL, FINISHED, LOCK = "plan.json", "cases.sqlite", "finished.sqlite", "lock"


def build_case_base(
    path: Path,
    rows: Sequence[Listed],
    load: Callable[[], Predicts],
    *,
    name: str,
    model_sha256: str,
    pictures: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Filled:
    """Make a case base file. After a kill, the same call resumes the work.

    Args:
        path: A new file.
        rows: The rows from :func:`read_case_table`.
        load: Returns the model; called when the model is needed.
        name: The base's name.
        model_sha256: The model's hash.
        pictures: As for :func:`fill`.
        progress: As for :func:`fill`.

    Returns:
        What happened to the rows. Cases that could not be judged are not in the file.

    Raises:
        UsageError: When the file exists already.
        OutputError: When the file cannot be written; ``output-busy`` while another process builds it.
        NoduleDiagError: The error of the first case, when no case could be judged. Nothing is written then.
    """
    if path.exists() and not unfinished(path):
        raise _there(path)
    plan = _plan(rows, name=name, model_sha256=model_sha256, pictures=pictures)
    with _working(path) as work:
        if path.exists():  # an earlier run was killed, perhaps just before its clean-up
            there = _finished(path, rows, name=name, model_sha256=model_sha256)
            if not there:
                raise _there(path)
            _empty(work)
            return Filled(there=there)
        with _partial(work, plan, name=name, model_sha256=model_sha256) as base:
            try:
                filled = fill(base, rows, load, pictures=pictures, progress=progress)
                if not len(base) and filled.failed:
                    case_id, ct, error = filled.failed[0]
                    error.message = f"{ct}, case {case_id!r}: {error.message}"
                    raise error
            except BaseException:
                if not len(base):
                    base.close()
                    _empty(work)
                raise
            base.save(work / FINISHED)
        if path.exists():
            raise _there(path)
        try:
            (work / FINISHED).replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", hint="name another file") from error
        sync_folder(path.parent)
        _empty(work)
    return filled


def unfinished(path: Path) -> bool:
    """Whether a build of this file was begun and not finished."""
    return _work(path).is_dir()


def _there(path: Path) -> UsageError:
    return UsageError(f"{path} is there already", hint="name a new file, or add to that one: nodule-diag cases add")


def _finished(path: Path, rows: Sequence[Listed], *, name: str, model_sha256: str) -> int:
    """How many cases a file has, if all of them match the table; 0 for any other file."""
    with suppress(CaseBaseError):
        base, by_id = CaseBase.open(path), {row.case.case_id: row for row in rows}
        same = all(case.case_id in by_id and not differences(case, by_id[case.case_id]) for case in base)
        return len(base) if same and (base.name, base.model_sha256) == (name, model_sha256) else 0
    return 0


def _work(path: Path) -> Path:
    return path.with_name(f".{path.name}.building")


@contextmanager
def _working(path: Path) -> Iterator[Path]:
    """The folder for unfinished work, locked for this process; removed afterwards if it is empty."""
    work = _work(path)
    if work.is_symlink():  # everything in it is removed later
        raise OutputError(f"{work} is a link", hint="remove it, or name another file")
    try:
        work.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write in {path.parent}: {error.strerror}", hint="check that the folder exists and is writable"
        ) from error
    try:
        with sole_writer(work / LOCK, of=path):
            yield work
    finally:
        with suppress(OSError):  # it is not empty, or another process uses it
            work.rmdir()


def _plan(rows: Sequence[Listed], *, name: str, model_sha256: str, pictures: bool) -> dict[str, object]:
    """What every case is made from, as a hash by case id."""
    return {
        "name": name,
        "model_sha256": model_sha256,
        "cases": {row.case.case_id: _made_from(row, pictures) for row in rows},
    }


def _made_from(row: Listed, pictures: bool) -> str:
    place = None if row.path is None else [str(row.path.absolute()), row.xyz_lps_mm, pictures]
    ignored = set() if place is None else {"malignancy", "expert_score"}
    text = json.dumps([row.case.model_dump(exclude=ignored), place])
    return hashlib.sha256(text.encode()).hexdigest()


def _read(plan: Path) -> dict[str, object]:
    """A plan; empty where the file holds none."""
    try:
        found = json.loads(plan.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("cases"), dict) else {}


def _partial(work: Path, plan: dict[str, object], *, name: str, model_sha256: str) -> CaseBase:
    """The cases of a plan that an earlier run has made; an empty base without such a run of the same model."""
    _empty(work, but=(PLAN, PARTIAL, f"{PARTIAL}-journal"))
    before = _read(work / PLAN)
    base: CaseBase | None = None
    if before and all(before.get(key) == plan[key] for key in ("name", "model_sha256")):
        with suppress(CaseBaseError):  # it is damaged, or was not made yet
            base = CaseBase.edit(work / PARTIAL)
    if base is None:
        _empty(work)
        base = CaseBase.create(work / PARTIAL, name=name, model_sha256=model_sha256)
    else:
        old, new = before["cases"], plan["cases"]
        ids, _ = base.numbers()
        base.remove([one for one in ids if one not in new or old.get(one) != new[one]])  # type: ignore[attr-defined,operator,index]
    write_bytes(work / PLAN, json.dumps(plan).encode())
    return base


def _empty(work: Path, *, but: Sequence[str] = ()) -> None:
    """Remove everything in a work folder except the lock and the files in ``but``."""
    try:
        for path in work.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in {LOCK, *but}:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{work} cannot be emptied: {error.strerror}", hint="remove it by hand") from error
