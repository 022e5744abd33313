"""What a page with a viewer of its own needs of a nodule, beside the prediction document."""

from __future__ import annotations

from typing import Any

from nodule_diag.report import words
from nodule_diag.report.cube import evidence_for_viewer
from nodule_diag.results import Diagnosis


def nodule_view(diagnosis: Diagnosis) -> dict[str, Any]:
    """The evidence as the viewer draws it, and the report's sentences, so that every page says the same.

    Returns:
        Plain numbers and texts: ``evidence`` for ``evidence.js``, and ``words`` with ``prior``, ``score``,
        ``faithfulness`` and ``evidence_warning`` (None where there is no cause for one).
    """
    return {
        "evidence": evidence_for_viewer(diagnosis),
        "words": {
            "prior": words.prior(diagnosis.prevalence),
            "score": words.score(diagnosis.expert_score),
            "faithfulness": words.faithfulness(diagnosis),
            "evidence_warning": words.evidence_warning(diagnosis),
        },
    }
