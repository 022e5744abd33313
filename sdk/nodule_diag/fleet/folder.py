"""The folder of a batch: its plan, one answer per CT, and at the end one table.

- ``batch.json`` names the bundle, case base, runtime and options of all answers. Another batch is refused.
- ``cts/NAME.json`` is the answer for a CT, written atomically. It records the question, so that an answer to another
  question is computed again.
- ``results.csv`` is written last: if it exists, the batch is finished.

One process at a time writes here. Partly written files of a killed process are removed by the next process.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from nodule_diag.errors import OutputError
from nodule_diag.fleet.columns import RESULT_COLUMNS, result_cells
from nodule_diag.fleet.manifest import ListedCT, Manifest
from nodule_diag.fleet.summary import Failed
from nodule_diag.process import sole_writer, sweep_dead, write_bytes
from nodule_diag.results import REDACTED

PLAN, CTS, RESULTS, LOCK = "batch.json", "cts", "results.csv", ".lock"
PLAN_SCHEMA, CT_SCHEMA = "nodule-diag/batch/1", "nodule-diag/batch-ct/1"


class _Kept(NamedTuple):
    """The part of an answer that is kept in memory, a hundredth of its bytes: a study may have 20,000 answers."""

    cells: tuple[tuple[str, ...], ...]
    failed: tuple[Failed, ...]


class BatchFolder:
    """A folder that only this process writes; :func:`opened` makes it.

    Args:
        path: The folder.
        manifest: The batch's manifest.
        redact: Whether names are left out of the folder's files.
    """

    def __init__(self, path: Path, manifest: Manifest, *, redact: bool) -> None:
        self.path = path
        self._manifest, self._redact = manifest, redact
        self._kept: dict[ListedCT, _Kept] = {}
        self._places = {ct: path / CTS / self._name(number, ct) for number, ct in enumerate(manifest.cts, start=1)}

    def _name(self, number: int, ct: ListedCT) -> str:
        return f"ct-{number:06}.json" if self._redact else f"{ct.name}.json"

    def agree(self, plan: Mapping[str, Any]) -> None:
        """Write the plan, or compare it with the plan in the folder.

        Raises:
            OutputError: ``batch-other`` when the folder holds answers of another plan.
        """
        written = self.path / PLAN
        whole = {"schema": PLAN_SCHEMA, **plan}
        before = _read(written)
        if before is None:
            if written.exists() or any((self.path / CTS).glob("*.json")):
                raise self._of_another("no batch that can be gone on with")
            write_bytes(written, _text(whole))
            return
        if other := [name for name in {**before, **whole} if before.get(name) != whole.get(name)]:
            raise self._of_another(f"a batch that differs in its {' and '.join(other)}")

    def _of_another(self, what: str) -> OutputError:
        return OutputError(
            f"{self.path} holds {what}",
            hint="name another --out, or give the same bundle, cases and options as before",
            code="batch-other",
        )

    def keep(self, *, failed: bool) -> set[ListedCT]:
        """Keep the folder's answers to the current questions.

        Args:
            failed: Whether to keep answers with failures too.

        Returns:
            The CTs of the kept answers.

        Raises:
            OutputError: ``batch-other`` when the folder holds diagnoses of CTs that the manifest does not name.
        """
        by_place = {place: ct for ct, place in self._places.items()}
        strange: list[Path] = []
        for place in sorted((self.path / CTS).glob("*.json")):
            document = _read(place)
            if document is None or document.get("schema") != CT_SCHEMA:
                continue  # damaged: computed again
            if place not in by_place:
                strange.append(place)
            elif document.get("asked") == by_place[place].asked and (failed or not document.get("failed")):
                with suppress(KeyError, TypeError, IndexError, StopIteration):  # damaged too
                    self._keep(by_place[place], document)
        if held := [place.name for place in strange if _has_diagnoses(place)]:
            raise self._of_another(f"answers for {len(held)} CTs that the manifest does not name, as {held[0]}")
        for place in strange:  # a CT that failed, and whose row was corrected
            _remove(place)
        _remove(self.path / RESULTS)  # until it is written again
        return set(self._kept)

    def write(self, ct: ListedCT, told: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """Write the answer for a CT."""
        document = {
            "schema": CT_SCHEMA,
            "asked": ct.asked,
            "path": REDACTED if self._redact else ct.told,
            **{name: plan[name] for name in ("bundle", "cases", "runtime")},
            **told,
        }
        write_bytes(self._places[ct], _text(document))
        self._keep(ct, document)

    def _keep(self, ct: ListedCT, document: Mapping[str, Any]) -> None:
        result = f"{CTS}/{self._places[ct].name}"
        cells = (result_cells(document, result, name) for name in ct.ids)
        failed = (
            Failed(result, document["path"], tuple(one["ids"]), one["code"], one["message"], one["hint"])
            for one in document["failed"]
        )
        self._kept[ct] = _Kept(tuple(cells), tuple(failed))

    def failures(self) -> tuple[Failed, ...]:
        """The failures, in the order of the manifest."""
        return tuple(one for ct in self._manifest.cts if ct in self._kept for one in self._kept[ct].failed)

    def write_table(self) -> None:
        """Write the table: the manifest's rows and columns, followed by the columns of the results."""
        rows: dict[int, list[str]] = {}
        for ct, kept in self._kept.items():
            # With redaction, the manifest's own columns are redacted too.
            said = ct.redaction.text if self._redact else str
            hidden = ("path", "series") if self._redact else ()
            for row, cells in zip(ct.rows, kept.cells, strict=True):
                given = zip(self._manifest.columns, self._manifest.rows[row], strict=True)
                rows[row] = [REDACTED if name.lower() in hidden and cell else said(cell) for name, cell in given]
                rows[row] += cells
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self._manifest.columns, *RESULT_COLUMNS])
        writer.writerows(rows[row] for row in sorted(rows))
        write_bytes(self.path / RESULTS, text.getvalue().encode())


@contextmanager
def opened(path: Path, manifest: Manifest, *, redact: bool) -> Iterator[BatchFolder]:
    """Make the folder and lock it for this process.

    Raises:
        OutputError: The folder cannot be made; ``output-busy`` while another process writes in it.
    """
    try:
        (path / CTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}", hint="name another --out") from error
    with sole_writer(path / LOCK, of=path):
        for folder in (path, path / CTS):
            sweep_dead(folder)
        yield BatchFolder(path, manifest, redact=redact)


def _text(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, allow_nan=False, indent=2) + "\n").encode()


def _read(path: Path) -> dict[str, Any] | None:
    """A document; None if the file is missing or holds no JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _has_diagnoses(path: Path) -> bool:
    return bool((_read(path) or {}).get("nodules"))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed: {error.strerror}", hint="remove it by hand") from error
