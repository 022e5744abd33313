"""The Diagnoser: CT and points in, diagnoses out. It composes the modules and adds nothing of its own but warnings."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

import nodule_diag
from nodule_diag.backends import Backend, Outputs, SymmetricBackend, create_backend, require_views
from nodule_diag.batch import Scan, ScanResult, predict_batch, predict_batch_async
from nodule_diag.bundle import Bundle
from nodule_diag.cases import CaseBase, CaseIndex, mean_label
from nodule_diag.ct import CTVolume, Points, made_up_ct, require_inside, stored_voxel, to_lps
from nodule_diag.ct import Space as PointSpace
from nodule_diag.errors import UsageError
from nodule_diag.preprocessing import LungMask, extract_patches, lung_mask
from nodule_diag.process import Stopwatch, filter_threads, resolve_threads
from nodule_diag.results import (
    SPACES,
    BundleIdentity,
    Cam,
    Diagnosis,
    Faithfulness,
    Prediction,
    Runtime,
    Segmentation,
    SimilarCase,
    Space,
)

OFF_CENTRE_MM = 5.0
"""A nodule that begins further from the given position than this may not be the one that was meant: 3 mm, the
smallest nodule of the paper's range, and 2 mm, a cell of the segmentation's grid."""
STAGES = ("lung_mask", "patch", "inference", "retrieval")

OUTSIDE_LUNG = "the position is outside the lung mask"
NOTHING_SEGMENTED = "no nodule was segmented at the position: volume and diameter are 0"
TOUCHES_EDGE = "the segmented nodule reaches the edge of the 32 mm cube: volume and diameter are lower bounds"


class Diagnoser:
    """A bundle that is loaded and ready; safe to use from several threads, and to load more than once.

    Attributes:
        bundle: What is being run.
        cases: Its historical cases.
        threads: CPU threads a call uses.
        symmetries: Views of each patch that are averaged.
    """

    def __init__(self, bundle: Bundle, backend: Backend, cases: CaseIndex, *, symmetries: int = 1) -> None:
        self.bundle = bundle
        self.cases = cases
        self.threads = backend.threads
        self.symmetries = require_views(symmetries)
        self._backend = backend if symmetries == 1 else SymmetricBackend(backend, views=symmetries)

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        cases: str | os.PathLike[str] | CaseBase | None = None,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        symmetries: int = 1,
    ) -> Diagnoser:
        """Check a bundle and load it into a backend.

        Args:
            bundle: A bundle, or where one is (a directory or a zip); the packaged one when left out.
            cases: A case base of the bundle's model, or its file; the bundle's own when left out.
            backend: ``auto``, ``onnxruntime``, ``winograd``, ``openvino``, ``tensorrt`` or ``tensorrt-rtx``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
            threads: CPU threads a call may use; ``OMP_NUM_THREADS`` or every available core when left out.
            symmetries: 8 or 48 to average the answers over the flips or all symmetries of each patch
                (:mod:`nodule_diag.backends.symmetry`), at as many times the cost of inference.

        Returns:
            The diagnoser; what ``auto`` chose stands in :attr:`runtime`.

        Raises:
            BundleError: When the bundle is damaged, altered or of another schema.
            CaseBaseError: Likewise the case base; or it is empty, or of another model.
            BackendError: When what was asked for cannot serve.
            UsageError: For options that mean nothing.
        """
        count = resolve_threads(threads)
        require_views(symmetries)
        opened = _open(bundle)
        index = _index(opened, cases)
        return cls(
            opened,
            create_backend(opened, name=backend, device=device, precision=precision, threads=count),
            index,
            symmetries=symmetries,
        )

    @property
    def runtime(self) -> Runtime:
        """What runs the network, as it was settled by :meth:`load`."""
        return Runtime(
            sdk_version=nodule_diag.__version__,
            backend=self._backend.name,
            device=self._backend.device,
            precision=self._backend.precision,
            threads=self.threads,
            symmetries=self.symmetries,
        )

    def predict(
        self,
        ct: CTVolume,
        points: npt.ArrayLike,
        *,
        space: PointSpace = "lps",
        k: int | None = None,
        ids: Sequence[str] | None = None,
        exclude: Collection[str] = (),
    ) -> list[Diagnosis]:
        """Diagnose the nodules at the given positions.

        Args:
            ct: A chest CT.
            points: (N, 3) positions, N >= 1.
            space: What they are given in: ``lps`` or ``ras`` mm, or ``voxel`` indices x, y, z of the file as stored.
            k: How many similar cases to retrieve; the bundle's number (20) when left out.
            ids: A name for each nodule; "1", "2", ... when left out.
            exclude: Case ids and patient ids that retrieval must not return, such as this CT's own patient.

        Returns:
            One diagnosis a point, in the same order.

        Raises:
            CoordinateError: For a point that is not finite or not inside the CT.
            UsageError: For an empty list, ids that do not fit, or ``k`` below 1.
            BackendError: When the network fails.
        """
        return list(self.predict_timed(ct, points, space=space, k=k, ids=ids, exclude=exclude).diagnoses)

    def predict_timed(
        self,
        ct: CTVolume,
        points: npt.ArrayLike,
        *,
        space: PointSpace = "lps",
        k: int | None = None,
        ids: Sequence[str] | None = None,
        exclude: Collection[str] = (),
    ) -> Prediction:
        """:meth:`predict`, with the time that each stage took. Same arguments and errors."""
        stopwatch = Stopwatch(STAGES)
        wanted = self.bundle.manifest.retrieval.k if k is None else k
        if isinstance(wanted, bool) or wanted < 1:
            raise UsageError(f"k is {wanted}; it must be at least 1", hint="leave k out to use the bundle's")
        if np.size(points) == 0:
            raise UsageError("there are no points to diagnose", hint="give x, y and z for at least one nodule")
        centers_xyz_mm = to_lps(ct, points, space=space)
        names = _names(ids, len(centers_xyz_mm))

        @cache
        def lungs() -> LungMask:
            with stopwatch.time("lung_mask"), filter_threads.limited(self.threads):
                return lung_mask(ct)

        for center in centers_xyz_mm:
            require_inside(ct, center, in_lung=lambda point: lungs().contains(point))
        mask = lungs()
        diagnoses: list[Diagnosis] = []
        for start in range(0, len(centers_xyz_mm), self._backend.batch):
            chunk = slice(start, start + self._backend.batch)
            outputs = self._infer(ct, centers_xyz_mm[chunk], mask, stopwatch)
            for row, (name, center) in enumerate(zip(names[chunk], centers_xyz_mm[chunk], strict=True)):
                with stopwatch.time("retrieval"):
                    similar = self._similar(
                        float(outputs.malignancy[row]), float(outputs.expert_score[row]), wanted, exclude
                    )
                diagnoses.append(self._diagnosis(ct, mask, name, center, outputs, row, similar, wanted))
        return Prediction(
            tuple(diagnoses),
            bundle=BundleIdentity(self.bundle.manifest.name, self.bundle.manifest.version, self.bundle.sha256),
            cases=self.cases.identity,
            runtime=self.runtime,
            timing_ms=stopwatch.result(),
        )

    def predict_batch(self, scans: Iterable[Scan], *, prefetch: int = 1) -> Generator[ScanResult, None, None]:
        """Diagnose the nodules of several CTs; the next CT is read while the network looks at the current one.

        .. code-block:: python

            for result in diagnoser.predict_batch(nd.Scan(path, points) for path, points in worklist):
                if result.error is not None:
                    print(result.scan.ct, result.error)
                    continue
                store(result.diagnoses)

        A CT that fails with a :class:`NoduleDiagError` is delivered in its place, with the error, and stops no other.
        Leaving the loop, or ``close()``, ends the reading: after the CT that is being read, no other is opened.

        Args:
            scans: The CTs, in any number: they are taken one by one, at most ``prefetch`` in advance.
            prefetch: How many CTs are read in advance. So many, the current one, and those whose results the caller
                keeps are in memory at a time.

        Returns:
            One result a CT, in the order of ``scans``.

        Raises:
            UsageError: When ``prefetch`` is below 1.
        """
        return predict_batch(self, scans, prefetch=prefetch)

    def predict_batch_async(self, scans: Iterable[Scan], *, prefetch: int = 1) -> AsyncGenerator[ScanResult, None]:
        """:meth:`predict_batch` for ``async for``; same arguments, results and errors.

        All work is done in threads of its own, so that the event loop is never held up. Cancelled, it waits for the
        nodules that are being diagnosed and for the CT that is being read, and then stops.
        """
        return predict_batch_async(self, scans, prefetch=prefetch)

    def warm_up(self) -> None:
        """Diagnose a made-up CT, so that the first call of :meth:`predict` is as fast as the others.

        It loads what is loaded late (SimpleITK, the runtime's kernels) and takes the memory that a call needs.
        """
        self.predict(made_up_ct(), [(0.0, 0.0, 0.0)])

    def _infer(self, ct: CTVolume, centers_xyz_mm: Points, mask: LungMask, stopwatch: Stopwatch) -> Outputs:
        """Patches as the bundle wants them (paper 4.2, step 8 or not), through the network."""
        masked = self.bundle.manifest.preprocessing.masked_input
        with stopwatch.time("patch"):
            patches = extract_patches(ct, centers_xyz_mm, lung_mask=mask if masked else None)
        with stopwatch.time("inference"):
            return self._backend.infer(patches)

    def _similar(
        self, malignancy: float, expert_score: float, k: int, exclude: Collection[str]
    ) -> dict[Space, tuple[SimilarCase, ...]]:
        """Eq. 13 in each feature space."""
        return {
            space: self.cases.search(space, malignancy=malignancy, expert_score=expert_score, k=k, exclude=exclude)
            for space in SPACES
        }

    def _diagnosis(
        self,
        ct: CTVolume,
        mask: LungMask,
        name: str,
        center_xyz_mm: Points,
        outputs: Outputs,
        row: int,
        similar: Mapping[Space, tuple[SimilarCase, ...]],
        k: int,
    ) -> Diagnosis:
        """One row of the network's outputs as a result."""
        x, y, z = (float(value) for value in center_xyz_mm)
        column, line, section = (int(value) for value in stored_voxel(ct, center_xyz_mm[None])[0])
        in_lung = mask.contains(center_xyz_mm)
        segmentation = Segmentation(outputs.segmentation[row], (x, y, z), ct.direction)
        return Diagnosis(
            id=name,
            xyz_lps_mm=(x, y, z),
            voxel_xyz=(column, line, section),
            in_lung=in_lung,
            malignancy=float(outputs.malignancy[row]),
            logit=float(outputs.logit[row]),
            expert_score=float(outputs.expert_score[row]),
            diagnosis={space: mean_label(cases) for space, cases in similar.items()},
            similar=similar,
            base_rate=self.cases.base_rate,
            k=k,
            cases=len(self.cases),
            segmentation=segmentation,
            cam=Cam(outputs.cam[row], (x, y, z), ct.direction),
            faithfulness=Faithfulness.of(outputs.cam[row], outputs.segmentation[row]),
            warnings=(*ct.warnings, *mask.warnings, *_warnings(in_lung, segmentation)),
        )


def _open(bundle: str | os.PathLike[str] | Bundle | None) -> Bundle:
    if isinstance(bundle, Bundle):
        return bundle
    return Bundle.default() if bundle is None else Bundle.open(bundle)


def _index(bundle: Bundle, cases: str | os.PathLike[str] | CaseBase | None) -> CaseIndex:
    """The bundle's case base, or another of the same model."""
    if cases is None:
        return CaseIndex(bundle)
    base = cases if isinstance(cases, CaseBase) else CaseBase.open(cases)
    return CaseIndex(base.of_model(bundle))


def _names(ids: Sequence[str] | None, count: int) -> list[str]:
    """The caller's ids, or 1, 2, ...; they name files and rows, so each must be there once."""
    if ids is None:
        return [str(number) for number in range(1, count + 1)]
    names = [str(name) for name in ids]
    if len(names) != count or len(set(names)) != count or not all(names):
        raise UsageError(
            f"{count} points have the ids {', '.join(map(repr, names))}", hint="give each point one id of its own"
        )
    return names


def _warnings(in_lung: bool, segmentation: Segmentation) -> Iterator[str]:
    """What the reader of a diagnosis must know about this nodule."""
    if not in_lung:
        yield OUTSIDE_LUNG
    offset_mm = segmentation.offset_mm
    if offset_mm is None:
        yield NOTHING_SEGMENTED
        return
    if offset_mm > OFF_CENTRE_MM:
        yield f"the nearest segmented nodule begins {offset_mm:.1f} mm from the position: it may be another structure"
    if segmentation.touches_edge:
        yield TOUCHES_EDGE
