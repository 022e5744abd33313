"""The one network of a service, which answers the questions of all requests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from nodule_diag.cases import cases_where
from nodule_diag.ct import CTVolume, to_lps
from nodule_diag.diagnoser import Diagnoser
from nodule_diag.errors import UsageError
from nodule_diag.results import Diagnosis, Prediction
from nodule_diag.service.metrics import Metrics
from nodule_diag.service.requests import Question
from nodule_diag.service.store import HeldCT
from nodule_diag.service.work import Job

VARIANTS = 8
"""Combinations of case base filter and number of views that are kept ready."""


class Predictor:
    """Answers questions about CTs; any thread may use it.

    Args:
        diagnoser: The loaded network.
        metrics: Counts the nodules.
        cases: The file of its case base, where it is not the bundle's own; filters are applied to this file.
    """

    def __init__(self, diagnoser: Diagnoser, metrics: Metrics, *, cases: str | PathLike[str] | None = None) -> None:
        self.diagnoser, self._metrics = diagnoser, metrics
        self._cases = cases
        self._variants: OrderedDict[tuple[int, str | None], Diagnoser] = OrderedDict()
        self._lock = threading.Lock()

    def predict(self, held: HeldCT, question: Question, job: Job) -> Prediction:
        """Diagnose, or return the known prediction for the same question.

        Raises:
            NoduleDiagError: As :meth:`Diagnoser.predict`; UsageError ``where-needs-fp32``.
        """
        known = held.known().get(question.key())
        if known is not None:
            return known[1]
        made = self._predict(held.read.ct, question, job)
        held.remember(question, made)
        self._metrics.prediction(len(made.diagnoses), made.timing_ms)
        return made

    def diagnosis(self, held: HeldCT, question: Question, job: Job) -> Diagnosis:
        """The diagnosis of the one nodule of the question, from any prediction that has it; errors as above."""
        (wanted,) = question.nodules
        for asked, known in reversed(held.known().values()):
            if asked.apart_from_nodules() == question.apart_from_nodules():
                for nodule, diagnosis in zip(asked.nodules, known.diagnoses, strict=True):
                    if nodule.xyz == wanted.xyz:
                        return diagnosis
        return self.predict(held, question, job).diagnoses[0]

    def diagnoser_for(self, question: Question) -> Diagnoser:
        """The diagnoser for a question: the loaded network, with the requested views and cases."""
        wanted = question.symmetries, question.where
        if wanted == (self.diagnoser.symmetries, None):
            return self.diagnoser
        with self._lock:
            if wanted in self._variants:
                self._variants.move_to_end(wanted)
                return self._variants[wanted]
        made = self._variant(*wanted)
        with self._lock:
            self._variants[wanted] = made
            while len(self._variants) > VARIANTS:
                self._variants.popitem(last=False)
        return made

    def _variant(self, symmetries: int, where: str | None) -> Diagnoser:
        if where is None:
            return self.diagnoser.sharing(symmetries=symmetries)
        if self.diagnoser.runtime.precision != "fp32":  # the command line uses fp32 for other cases
            raise UsageError(
                f"cases are chosen in fp32 alone, and the service runs in {self.diagnoser.runtime.precision}",
                hint="start it with --precision fp32",
                code="where-needs-fp32",
            )
        cases = cases_where(where, self._cases, bundle=self.diagnoser.bundle)
        return self.diagnoser.sharing(symmetries=symmetries, cases=cases)

    def _predict(self, ct: CTVolume, question: Question, job: Job) -> Prediction:
        count, done = len(question.nodules), 0

        def watch(stage: str) -> None:
            nonlocal done
            job.at(stage, done / count)
            done += stage == "retrieval"

        positions: NDArray[np.float64] = to_lps(ct, [nodule.xyz for nodule in question.nodules], space=question.space)
        return self.diagnoser_for(question).predict_timed(
            ct,
            positions,
            k=question.k,
            ids=question.ids(),
            check_lung=not question.no_lung_check,
            prevalence=question.prevalence,
            watch=watch,
        )
