"""The nodules for training, evaluation and retrieval: LIDC's VOIs and cubes, or stores of ``train prepare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .case import PLACED, Preprocessing, StoreKind
from .lidc.diagnosed import COLLECTION, load_nodules
from .nodule import Nodule, TrainingDataError
from .store import StoredCase, read_description, read_store
from .voxels import NoduleVoxels, load_all

Voxels = Mapping[str, NoduleVoxels]
PREPARE = "nodule-diag train prepare"


@dataclass(frozen=True, kw_only=True)
class StoreFacts:
    """What a run reports about a store that it learned from.

    Attributes:
        name: Name of the store's folder, without the folders above it.
        kind: What ``train prepare`` made the store from.
        nodules: Number of nodules in the store.
    """

    name: str
    kind: StoreKind
    nodules: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@dataclass
class TrainingData:
    """Nodules, and their voxels on request: reading all of LIDC's voxels takes a minute and 1.5 GB.

    Attributes:
        nodules: All of them.
        load: Reads the voxels of given nodules.
        stores: Where the nodules come from; empty for LIDC's VOIs and cubes.
    """

    nodules: Sequence[Nodule]
    load: Callable[[Sequence[Nodule]], Voxels] = load_all
    stores: tuple[StoreFacts, ...] = ()
    _voxels: Voxels | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, root: Path, stores: Sequence[Path] = ()) -> TrainingData:
        """The nodules of the stores, or of the LIDC data folder where no store is given.

        Raises:
            TrainingDataError: If a table or a store is missing or damaged, a store is empty, or two hold the same case.
        """
        return _stored(stores) if stores else cls(load_nodules(root))

    @property
    def name(self) -> str:
        """In words."""
        if not self.stores:
            return COLLECTION
        names = [store.name for store in self.stores]
        return f"the store {names[0]}" if len(names) == 1 else f"the stores {', '.join(names)}"

    @property
    def voxels(self) -> Voxels:
        """The voxels of all nodules, by case_id.

        Raises:
            TrainingDataError: If one cannot be read.
        """
        if self._voxels is None:
            self._voxels = self.load(self.nodules)
        return self._voxels

    def voxels_of(self, nodules: Sequence[Nodule]) -> Voxels:
        """The voxels of some nodules. Only these are read, unless all were read before. Errors as ``voxels``."""
        if self._voxels is None:
            return self.load(nodules)
        return {nodule.case_id: self._voxels[nodule.case_id] for nodule in nodules}


def once(nodules: Sequence[Nodule]) -> list[Nodule]:
    """Every nodule once: as a cube, whose surroundings are real, where there is one."""
    return [nodule for nodule in nodules if nodule.is_cube or nodule.twin is None]


def diagnosed_once(nodules: Sequence[Nodule]) -> list[Nodule]:
    """The nodules of ``once`` that have a diagnosis."""
    return [nodule for nodule in once(nodules) if nodule.sure is not None]


def _stored(paths: Sequence[Path]) -> TrainingData:
    """All nodules of some stores, by case id, regardless of the order of stores and files; voxels are read on request.

    A nodule without a mask teaches CNet alone, and a nodule without scores teaches no score. A twin that is in none of
    the stores is dropped.
    """
    found: dict[str, StoredCase] = {}
    placed: dict[tuple[str, str, tuple[float, float, float]], str] = {}
    stores = []
    for path in paths:
        description = read_description(path)
        if description != Preprocessing(kind=description.kind):
            raise TrainingDataError(f"{path} was prepared with other parameters than this version's", hint=PREPARE)
        cases = list(read_store(path))
        for stored in cases:
            case = stored.case
            if case.case_id in found:
                other = found[case.case_id].folder.parents[1]
                raise TrainingDataError(f"{case.case_id} is in {other} and in {path}", hint="give each nodule once")
            found[case.case_id] = stored
            if case.kind in PLACED and case.center_xyz_mm is not None:
                same = placed.setdefault((case.patient_id, case.source, case.center_xyz_mm), case.case_id)
                if same != case.case_id:
                    raise TrainingDataError(
                        f"{case.case_id} and {same} are one nodule of {case.patient_id}", hint="remove one's folder"
                    )
        if not cases:
            raise TrainingDataError(f"{path} holds no nodule", hint=PREPARE)
        stores.append(StoreFacts(name=path.resolve().name, kind=description.kind, nodules=len(cases)))
    nodules = [stored.case.nodule() for _, stored in sorted(found.items())]
    whole = [replace(own, twin=own.twin if own.twin in found else None) for own in nodules]
    return TrainingData(
        whole, load=lambda some: {n.case_id: found[n.case_id].voxels() for n in some}, stores=tuple(stores)
    )
