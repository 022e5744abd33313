"""``nodule-diag train distance``: what the network's features look like in training, and which distance is too far."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from nodule_diag.backends import infer_all
from nodule_diag.results import FeatureDistance
from nodule_diag_training.data import LungPlace, Nodule, TrainingData, TrainingDataError, load_lung, once, with_lung
from nodule_diag_training.engine import MODEL, load_model
from nodule_diag_training.options import DEFAULT_DATA, DataOption, StoreOption

from .commands import shown, shown_stores, write_report
from .crossval import HELD_OUT, HELD_OUT_LUNG
from .foreign import made_up, phantom, places
from .lung_command import CT
from .metrics import Statistic, auc, estimate, mean_value
from .presence import TorchBackend, whole_patches
from .rows import Row, Section

PATCHES = 120
"""Patches of training patients whose features are described."""
COMPONENTS = 8
HELD_OUT_PATCHES = 60
"""Held-out patches of each fold; nodules with their own surroundings come first."""
LUNG_PATCHES = 12
"""Places of lung of each fold's held-out lung patients."""
PASSING = 0.99
"""Share of held-out nodules that must get no warning."""
SEED = 0

Features = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How far a patch is from what a network was trained on.

    Attributes:
        case_id: Id of the nodule or place, or what the patch shows.
        patient_id: The patient of the nodule or place.
        kind: ``nodule``, ``lung``, or what else it shows.
        fold: Fold of the network, from 0.
        distance: ``FeatureDistance.raw``.
    """

    case_id: str
    patient_id: str
    kind: str
    fold: int
    distance: float


def some_of(nodules: Iterable[Nodule], count: int) -> list[Nodule]:
    """At most ``count``: nodules with their own surroundings first, otherwise at random, the same in every run."""
    ordered = sorted(nodules, key=lambda nodule: nodule.case_id)
    order = np.random.default_rng(SEED).permutation(len(ordered))
    shuffled = [ordered[i] for i in order]
    return sorted(shuffled, key=lambda nodule: not nodule.is_cube)[:count]


def features_of(network: TorchBackend, patches: Sequence[NDArray[np.float32]]) -> Features:
    """[N, 256], F_k of eq. 4."""
    found = infer_all(network, np.stack(patches)).features
    if found is None:  # for the type checker: training's own network has them
        raise TrainingDataError("the network gives no features")
    return found


class _Run:
    """A run's network, and the patients that were held out of it."""

    def __init__(self, folder: Path, data: TrainingData) -> None:
        model, _, facts = load_model(folder / MODEL)
        self.folder = folder
        self.network = TorchBackend(model)
        self.held_out = frozenset(facts.get(HELD_OUT, []))
        self.held_out_lung = frozenset(facts.get(HELD_OUT_LUNG, []))
        self._data = data

    def fit(self, patches: int, components: int) -> FeatureDistance:
        """Describe the features of the patients that the network learned from, each nodule in one form."""
        taught = some_of((n for n in self._nodules() if n.patient_id not in self.held_out), patches)
        if len(taught) <= components + 1:  # N points about their mean span N - 1 directions: no other would remain
            raise TrainingDataError(
                f"{len(taught)} nodules of training patients are too few for {components} principal components",
                hint="give --components a smaller number",
            )
        return FeatureDistance.fit(self._features(taught), components=components)

    def unseen(self, known: FeatureDistance, fold: int) -> list[Seen]:
        """The nodules and lung of patients that the network has not seen."""
        nodules = some_of((n for n in self._nodules() if n.patient_id in self.held_out), HELD_OUT_PATCHES)
        lung = [n for n in self._data.nodules if isinstance(n, LungPlace) and n.patient_id in self.held_out_lung]
        lung = lung[:: max(1, len(lung) // LUNG_PATCHES)]
        if not nodules:
            raise TrainingDataError(
                f"{self.folder} left no patient out", hint="judge runs that were trained with --fold"
            )
        asked = [*nodules, *lung]
        return [
            Seen(
                case_id=nodule.case_id,
                patient_id=nodule.patient_id,
                kind="lung" if isinstance(nodule, LungPlace) else "nodule",
                fold=fold,
                distance=known.raw(row),
            )
            for nodule, row in zip(asked, self._features(asked), strict=True)
        ]

    def foreign(
        self, known: FeatureDistance, patches: Sequence[tuple[str, NDArray[np.float32]]], fold: int
    ) -> list[Seen]:
        """The same for patches of other things."""
        rows = features_of(self.network, [patch for _, patch in patches])
        return [
            Seen(case_id=f"{kind} {number}", patient_id=kind, kind=kind, fold=fold, distance=known.raw(row))
            for number, ((kind, _), row) in enumerate(zip(patches, rows, strict=True))
        ]

    def _nodules(self) -> list[Nodule]:
        return [nodule for nodule in once(self._data.nodules) if not isinstance(nodule, LungPlace)]

    def _features(self, nodules: Sequence[Nodule]) -> Features:
        return features_of(self.network, whole_patches(nodules, self._data.voxels_of(nodules)))


def distance(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, one per fold.")],
    out: Annotated[Path, typer.Option("--out", help="JSON report.")],
    of: Annotated[
        Path | None,
        typer.Option("--of", help="Run whose model is packaged; the first if omitted.", show_default=False),
    ] = None,
    patches: Annotated[int, typer.Option("--patches", min=2, help="Number of training patches to describe.")] = PATCHES,
    components: Annotated[int, typer.Option("--components", min=1, max=128, help="Principal components.")] = COMPONENTS,
    data: DataOption = DEFAULT_DATA,
    store: StoreOption = None,
) -> None:
    """Describe the features of a model's training patches. Find the distance that 99 % of unseen nodules stay below.

    Each fold describes its own training patches and judges its held-out patients. `export bundle --distance` takes the
    report.
    """
    loaded = TrainingData.of(data, store or ())
    if not store:
        loaded = with_lung(loaded, load_lung(data))
    others = [*made_up(), *phantom(), *places(data / "ct" / f"{CT}.nii.gz")]
    ships = runs[0] if of is None else of
    seen: list[Seen] = []
    shipped: FeatureDistance | None = None
    for fold, folder in enumerate(runs):
        run = _Run(folder, loaded)
        known = run.fit(patches, components)
        seen += [*run.unseen(known, fold), *run.foreign(known, others, fold)]
        shipped = known if folder == ships else shipped
    if shipped is None:
        shipped = _Run(ships, loaded).fit(patches, components)
    limit = threshold([one.distance for one in seen if one.kind == "nodule"])
    section = distance_section(seen, limit)
    report: dict[str, object] = {
        "sections": [section.to_dict()],
        "command": f"nodule-diag train distance {' '.join(map(shown, runs))}{shown_stores(store)}"
        f"{'' if of is None else f' --of {shown(of)}'} --patches {patches} --components {components}"
        f" --out {shown(out)}",
        "feature_distance": {
            "components": components,
            "rest_variance": shipped.rest_variance,
            "warn_above": limit,
            "checkpoint_sha256": hashlib.sha256((ships / MODEL).read_bytes()).hexdigest(),
            "data": b64encode(shipped.to_bytes()).decode(),
        },
        "seen": [asdict(one) for one in seen],
    }
    write_report(out, report, [section])


def threshold(distances: Sequence[float]) -> float:
    """The distance that 99 % of them stay below."""
    return float(np.quantile(distances, PASSING, method="higher"))


def distance_section(seen: Sequence[Seen], limit: float) -> Section:
    """How many of each kind get a warning, and how well each kind is distinguished from nodules."""
    nodules = [one for one in seen if one.kind == "nodule"]

    def row(metric: str, statistic: Statistic, truth: Sequence[float], values: Sequence[float], of: list[Seen]) -> Row:
        found = estimate(statistic, truth, values, [one.patient_id if one in nodules else one.case_id for one in of])
        return Row(metric=metric, **asdict(found))

    rows = []
    for kind in dict.fromkeys(one.kind for one in seen):
        own = [one for one in seen if one.kind == kind]
        flagged = [float(one.distance > limit) for one in own]
        rows.append(row(f"Warned of: {kind}", mean_value, flagged, flagged, own))
        if kind != "nodule":
            both = [*nodules, *own]
            truth = [float(one.kind != "nodule") for one in both]
            rows.append(row("  told from nodules, AUC", auc, truth, [one.distance for one in both], both))
    return Section(title="Distance from what the model was trained on, of patients not trained on", rows=tuple(rows))
