"""A case base in columns: a million cases are a dozen arrays, and only those that are looked at become objects."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from nodule_diag.cases.case import INDEX_FAULT, NO_CASES, Case
from nodule_diag.errors import BundleError
from nodule_diag.results import SimilarCase

NAME_BYTES = 4 * 200 + 1
"""Widest column of names: 200 characters of UTF-8 and the NUL that ends them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseTable(Sequence[Case]):
    """All cases, in the order of their ids: a case's row is its label in the indexes and settles ties.

    Reads as a sequence of :class:`Case`. Make one with :meth:`of` or, of many cases, :meth:`of_columns`; files are read
    and written by :mod:`nodule_diag.cases.files`. Names are UTF-8, padded with NULs; their byte order is the order of
    the strings.

    Attributes:
        case_ids: (N,) bytes, strictly ascending.
        patient_names: (P,) bytes, strictly ascending.
        patients: (N,) int32 places in ``patient_names``.
        source_names: (S,) bytes, strictly ascending: the ways of diagnosis that occur.
        sources: (N,) int32 places in ``source_names``.
        certain: (N,) bool, whether the diagnosis is of the nodule itself and not of its patient.
        labels: (N,) uint8, 0 benign, 1 malignant.
        malignancy: (N,) float64, the model's P.
        expert_score: (N,) float64, the model's score, 1..5.
        diameter_mm: (N,) float64; NaN when unknown.
        reader_starts: (N + 1,) int64: the scores of case i are ``reader_scores[starts[i]:starts[i + 1]]``.
        reader_scores: (R,) float64, 1..5.
    """

    case_ids: NDArray[np.bytes_]
    patient_names: NDArray[np.bytes_]
    patients: NDArray[np.int32]
    source_names: NDArray[np.bytes_]
    sources: NDArray[np.int32]
    certain: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    malignancy: NDArray[np.float64]
    expert_score: NDArray[np.float64]
    diameter_mm: NDArray[np.float64]
    reader_starts: NDArray[np.int64]
    reader_scores: NDArray[np.float64]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> CaseTable:
        """Sort cases by id and check that no two share one; a table is returned as it is.

        Raises:
            BundleError: ``bundle-no-cases`` or ``bundle-index-invalid``.
        """
        if isinstance(cases, CaseTable):
            return cases
        return cls.of_columns(
            case_id=[case.case_id for case in cases],
            patient_id=[case.patient_id for case in cases],
            label=[case.label for case in cases],
            label_source=[case.label_source for case in cases],
            certain=[case.label_certainty == "nodule" for case in cases],
            malignancy=[case.malignancy for case in cases],
            expert_score=[case.expert_score for case in cases],
            reader_scores=[case.reader_scores for case in cases],
            diameter_mm=[np.nan if case.diameter_mm is None else case.diameter_mm for case in cases],
        )

    @classmethod
    def of_columns(
        cls,
        *,
        case_id: Sequence[str],
        patient_id: Sequence[str],
        label: Sequence[int] | NDArray[np.integer],
        label_source: Sequence[str],
        certain: Sequence[bool] | NDArray[np.bool_],
        malignancy: Sequence[float] | NDArray[np.floating],
        expert_score: Sequence[float] | NDArray[np.floating],
        reader_scores: Sequence[Sequence[float]] | None = None,
        diameter_mm: Sequence[float] | NDArray[np.floating] | None = None,
    ) -> CaseTable:
        """Make a table of columns in any order of cases, without a Python object for each.

        Args:
            case_id: N unique identifiers.
            patient_id: Whose nodule each is.
            label: 0 benign, 1 malignant.
            label_source: How each was diagnosed.
            certain: Whether the diagnosis is of the nodule itself and not of its patient.
            malignancy: The model's P, 0..1.
            expert_score: The model's score, 1..5.
            reader_scores: The readers' own, 1..5; none when left out.
            diameter_mm: Diameters, NaN where unknown; all unknown when left out.

        Raises:
            BundleError: ``bundle-no-cases`` or ``bundle-index-invalid``, the latter also for columns of unequal length.
        """
        count = len(case_id)
        if reader_scores is None:
            reader_scores = [()] * count
        sizes = {count, *map(len, (patient_id, label, label_source, certain, malignancy, expert_score, reader_scores))}
        diameters = np.full(count, np.nan) if diameter_mm is None else np.asarray(diameter_mm, dtype=np.float64)
        if len(sizes | {len(diameters)}) != 1:
            raise _invalid("the case base", f"its columns have {sorted(sizes | {len(diameters)})} rows")
        ids = _encoded(case_id)
        order = np.argsort(ids, kind="stable")
        patient_names, patients = np.unique(_encoded(patient_id), return_inverse=True)
        source_names, sources = np.unique(_encoded(label_source), return_inverse=True)
        lengths = np.fromiter((len(reader_scores[i]) for i in order), dtype=np.int64, count=count)
        table = cls(
            case_ids=ids[order],
            patient_names=patient_names,
            patients=patients[order].astype(np.int32),
            source_names=source_names,
            sources=sources[order].astype(np.int32),
            certain=np.asarray(certain, dtype=np.bool_)[order],
            labels=_whole(label)[order],
            malignancy=np.asarray(malignancy, dtype=np.float64)[order],
            expert_score=np.asarray(expert_score, dtype=np.float64)[order],
            diameter_mm=diameters[order],
            reader_starts=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
            reader_scores=np.fromiter((score for i in order for score in reader_scores[i]), dtype=np.float64),
        )
        return table.checked("the case base")

    def checked(self, name: str) -> Self:
        """Return the table when every value is one that a :class:`Case` may have.

        Args:
            name: What it was read from, for messages.

        Raises:
            BundleError: ``bundle-no-cases`` or ``bundle-index-invalid``, naming the first case at fault.
        """
        count = len(self.case_ids)
        if count == 0:
            raise BundleError(
                f"{name} holds no cases, so there is nothing to retrieve from",
                hint="build the index of the bundle from at least one diagnosed nodule",
                code=NO_CASES,
            )
        for column in ("case_ids", "patient_names", "source_names"):
            _check_names(getattr(self, column), name=name, column=column)
        starts = self.reader_starts
        if starts[0] != 0 or starts[-1] != len(self.reader_scores) or (np.diff(starts) < 0).any():
            raise _invalid(name, "reader_starts does not divide reader_scores among the cases")
        if not ((self.reader_scores >= 1.0) & (self.reader_scores <= 5.0)).all():
            raise _invalid(name, "a reader's score is not within 1..5")
        valid = {
            "patient": (self.patients >= 0) & (self.patients < len(self.patient_names)),
            "label_source": (self.sources >= 0) & (self.sources < len(self.source_names)),
            "label": self.labels <= 1,
            "malignancy": (self.malignancy >= 0.0) & (self.malignancy <= 1.0),
            "expert_score": (self.expert_score >= 1.0) & (self.expert_score <= 5.0),
            "diameter_mm": np.isnan(self.diameter_mm) | ((self.diameter_mm > 0.0) & (self.diameter_mm < np.inf)),
        }
        for column, good in valid.items():
            if not good.all():
                raise _invalid(name, f"the {column} of case {_name(self.case_ids[int(np.argmin(good))])!r} is invalid")
        return self

    @property
    def base_rate(self) -> float:
        """Share of malignant cases."""
        return int(self.labels.sum(dtype=np.int64)) / len(self)

    def rows_named(self, names: Collection[str]) -> NDArray[np.intp]:
        """Rows of the cases that have, or whose patients have, one of these identifiers; ascending.

        Args:
            names: Case ids and patient ids; unknown ones match nothing.
        """
        wanted = np.array([name.encode() for name in names if "\0" not in name], dtype=np.bytes_)
        own = _places(self.case_ids, wanted)
        patients = _places(self.patient_names, wanted)
        if not len(patients):
            return own
        return np.union1d(own, np.flatnonzero(np.isin(self.patients, patients)))

    def similar(self, rows: NDArray[np.intp], distances: NDArray[np.float64]) -> tuple[SimilarCase, ...]:
        """What a search found: (K,) rows and (K,) distances, in their order."""
        readers = zip(self.reader_starts[rows].tolist(), self.reader_starts[rows + 1].tolist(), strict=True)
        columns = zip(
            map(_name, self.case_ids[rows].tolist()),
            map(_name, self.patient_names[self.patients[rows]].tolist()),
            distances.tolist(),
            self.labels[rows].tolist(),
            map(_name, self.source_names[self.sources[rows]].tolist()),
            ["nodule" if certain else "patient" for certain in self.certain[rows].tolist()],
            self.malignancy[rows].tolist(),
            self.expert_score[rows].tolist(),
            [tuple(self.reader_scores[start:stop].tolist()) for start, stop in readers],
            [None if isnan(diameter) else diameter for diameter in self.diameter_mm[rows].tolist()],
            strict=True,
        )
        return tuple(map(SimilarCase._make, columns))

    def __len__(self) -> int:
        return len(self.case_ids)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Case, ...]: ...
    def __getitem__(self, index: int | slice) -> Case | tuple[Case, ...]:
        """One case, or several as a tuple."""
        chosen = range(len(self))[index]
        rows = np.array([chosen] if isinstance(chosen, int) else chosen, dtype=np.intp)
        cases = tuple(_case(found) for found in self.similar(rows, np.zeros(len(rows))))
        return cases[0] if isinstance(chosen, int) else cases


def _case(found: SimilarCase) -> Case:
    """The stored part of a search's answer."""
    return Case(**{field: getattr(found, field) for field in Case.model_fields})


def _encoded(names: Sequence[str]) -> NDArray[np.bytes_]:
    """(N,) UTF-8 with at least one NUL behind each name, so that a column can be checked as one text."""
    for name in names:
        if "\0" in name:
            raise _invalid("the case base", f"the name {name!r} holds a NUL character")
    encoded = [name.encode() for name in names]
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=0) + 1}")


def _whole(labels: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
    """Labels as bytes, none of which became a valid one by being cut to eight bits."""
    return np.where(np.isin(labels, (0, 1)), labels, 255).astype(np.uint8)


def _name(encoded: bytes) -> str:
    return encoded.decode()


def _places(names: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> NDArray[np.intp]:
    """Places of those of ``wanted`` that occur in the ascending ``names``; ascending."""
    places = np.unique(np.searchsorted(names, wanted))
    places = places[places < len(names)]
    return places[np.isin(names[places], wanted)]


def _check_names(names: NDArray[np.bytes_], *, name: str, column: str) -> None:
    """Ascending, not empty, and UTF-8: as every name ends in a NUL, the column is UTF-8 only if each of them is."""
    if names.dtype.itemsize > NAME_BYTES:
        raise _invalid(name, f"{column} is wider than {NAME_BYTES} bytes")
    text = np.ascontiguousarray(names).view(np.uint8).reshape(len(names), -1)
    try:
        text.tobytes().decode()
    except UnicodeDecodeError as error:
        raise _invalid(name, f"{column} is not UTF-8: {error}") from error
    if text[:, -1].any():
        raise _invalid(name, f"{column} holds names that are not ended")
    if (names == b"").any():
        raise _invalid(name, f"{column} holds an empty name")
    ascending = names[1:] > names[:-1]
    if not ascending.all():
        at = int(np.argmin(ascending))
        fault = "appears twice" if names[at] == names[at + 1] else "comes before its turn"
        raise _invalid(name, f"{column} must ascend, and {_name(names[at + 1])!r} {fault}")


def _invalid(name: str, why: str) -> BundleError:
    return BundleError(f"{name} is invalid: {why}", hint="build the index of the bundle again", code=INDEX_FAULT)
