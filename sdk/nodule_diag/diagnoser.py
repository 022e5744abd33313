"""The Diagnoser: CT and points in, diagnoses out. It composes the rooms and adds nothing of its own.

Over 300 lines, a third of which document the one class that callers meet.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import nodule_diag
from nodule_diag.backends import Backend, Numbers, Outputs, SymmetricBackend, create_backend, require_views
from nodule_diag.batch import Scan, ScanResult, predict_batch, predict_batch_async
from nodule_diag.bundle import Bundle
from nodule_diag.cases import CaseBase, CaseIndex, mean_label, require_k
from nodule_diag.ct import CTVolume, made_up_ct, require_inside, require_no_gap, stored_voxel, to_lps
from nodule_diag.ct import Space as PointSpace
from nodule_diag.errors import UsageError
from nodule_diag.preprocessing import (
    PATCH_SIZE,
    PATCH_SPACING_MM,
    LungMask,
    cube_outside,
    extract_patches,
    held_lung_mask,
    lung_warnings,
)
from nodule_diag.process import LOG, Stopwatch, filter_threads, resolve_threads
from nodule_diag.results import (
    SPACES,
    BundleIdentity,
    Cam,
    Diagnosis,
    Faithfulness,
    Prediction,
    Runtime,
    Segmentation,
    at_prevalence,
    balanced_share,
    ct_planes,
    nodule_warnings,
    require_prevalence,
)

STAGES = ("lung_mask", "patch", "inference", "retrieval")


class _Call(NamedTuple):
    """What the nodules of one call have in common, once it has been checked."""

    ct: CTVolume
    lungs: LungMask | None
    warnings: tuple[str, ...]
    check_lung: bool
    k: int
    exclude: Collection[str]
    prevalence: float | None
    stopwatch: Stopwatch


class Diagnoser:
    """A bundle that is loaded and ready; safe to use from several threads, and to load more than once.

    Attributes:
        bundle: What is being run.
        identity: Its name, version and hash.
        cases: Its historical cases.
        threads: CPU threads a call uses.
        symmetries: Views of each patch that are averaged.
    """

    def __init__(self, bundle: Bundle, backend: Backend, cases: CaseIndex, *, symmetries: int = 1) -> None:
        self.bundle = bundle
        self.cases = cases
        self.threads = backend.threads
        self.symmetries = require_views(symmetries)
        self._network = backend
        self._backend = backend if symmetries == 1 else SymmetricBackend(backend, views=symmetries)
        self._numbers = Numbers(bundle)
        self.identity = BundleIdentity(bundle.manifest.name, bundle.manifest.version, bundle.sha256)
        LOG.info("loaded %s: %s", self.identity.label, self.runtime.label)

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
            precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. Where ``cases`` are given, ``auto`` is fp32.
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
        if not isinstance(bundle, Bundle):
            bundle = Bundle.default() if bundle is None else Bundle.open(bundle)
        if cases is not None:
            cases = (cases if isinstance(cases, CaseBase) else CaseBase.open(cases)).of_model(bundle)
            # Whether a reduced precision finds the same similar cases was measured with the bundle's own: among more
            # cases, which lie closer together, it may not.
            precision = "fp32" if precision == "auto" else precision
        index = CaseIndex(bundle if cases is None else cases)
        loaded = create_backend(bundle, name=backend, device=device, precision=precision, threads=count)
        return cls(bundle, loaded, index, symmetries=symmetries)

    def sharing(
        self,
        *,
        cases: CaseBase | None = None,
        symmetries: int | None = None,
        through: Callable[[Backend], Backend] | None = None,
    ) -> Diagnoser:
        """Another diagnoser on the network that this one has loaded, which costs no memory of the network's size.

        Args:
            cases: Another case base of the bundle's model.
            symmetries: Views of each patch that are averaged.
            through: What stands before the network from now on, as a queue that several callers share.

        Raises:
            CaseBaseError: When the case base is empty, or of another model.
            UsageError: For a number of views that there is not.
        """
        return Diagnoser(
            self.bundle,
            self._network if through is None else through(self._network),
            self.cases if cases is None else CaseIndex(cases.of_model(self.bundle)),
            symmetries=self.symmetries if symmetries is None else symmetries,
        )

    @property
    def network(self) -> Backend:
        """What runs the network, one view at a time; safe to use from several threads."""
        return self._network

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
        check_lung: bool = True,
        prevalence: float | None = None,
    ) -> list[Diagnosis]:
        """Diagnose the nodules at the given positions.

        Args:
            ct: A chest CT.
            points: (N, 3) positions, N >= 1.
            space: What they are given in: ``lps`` or ``ras`` mm, or ``voxel`` indices x, y, z of the file as stored.
            k: How many similar cases to retrieve; the bundle's number (20) when left out.
            ids: A name for each nodule; "1", "2", ... when left out.
            exclude: Case ids and patient ids that retrieval must not return, such as this CT's own patient.
            check_lung: Whether to find the lungs and say if each position lies in them. Without it ``in_lung`` is None
                and that time is saved (``timing_ms``: ``lung_mask``), but for a bundle whose input is masked
                (``preprocessing.masked_input``): it needs the lungs for its input all the same.
            prevalence: Share of malignant nodules among those that are asked about, 0 < p < 1. It moves ``malignancy``
                from the prior of one half to this one by Bayes' rule, and nothing else.

        Returns:
            One diagnosis a point, in the same order.

        Raises:
            CoordinateError: For a point that is not finite, not inside the CT, or near a gap between its slices.
            UsageError: For an empty list, ids that do not fit, a ``k`` that is no whole number above 0, or a
                prevalence that is no number between 0 and 1.
            BackendError: When the network fails.
        """
        timed = self.predict_timed(
            ct, points, space=space, k=k, ids=ids, exclude=exclude, check_lung=check_lung, prevalence=prevalence
        )
        return list(timed.diagnoses)

    def predict_timed(
        self,
        ct: CTVolume,
        points: npt.ArrayLike,
        *,
        space: PointSpace = "lps",
        k: int | None = None,
        ids: Sequence[str] | None = None,
        exclude: Collection[str] = (),
        check_lung: bool = True,
        prevalence: float | None = None,
        watch: Callable[[str], None] | None = None,
    ) -> Prediction:
        """:meth:`predict`, with the time that each stage took. Same arguments and errors.

        ``watch``, where it is given, is called with the name of each stage when it begins, as often as it does. What it
        raises ends the call.
        """
        stopwatch = Stopwatch(STAGES, watch)
        k = require_k(self.bundle.manifest.retrieval.k if k is None else k)
        prevalence = require_prevalence(prevalence)
        if np.size(points) == 0:
            raise UsageError("there are no points to diagnose", hint="give x, y and z for at least one nodule")
        centers_xyz_mm = to_lps(ct, points, space=space)
        names = _names(ids, len(centers_xyz_mm))
        # Paper 4.2, step 8: a network that was trained on CT times lung mask must be given the same.
        masked = self.bundle.manifest.preprocessing.masked_input

        @cache
        def lungs() -> LungMask:
            with stopwatch.time("lung_mask"), filter_threads(self.threads):
                return held_lung_mask(ct)

        for center in centers_xyz_mm:
            require_inside(ct, center, in_lung=(lambda point: lungs().contains(point)) if check_lung else None)
            require_no_gap(ct, center, half_cube_mm=PATCH_SIZE * PATCH_SPACING_MM / 2)
        mask = lungs() if check_lung or masked else None
        # Not timed as a stage: whoever leaves the mask out is still told that this is no chest.
        warnings = (*ct.warnings, *(mask.warnings if mask else lung_warnings(ct)))
        call = _Call(ct, mask, warnings, check_lung, k, exclude, prevalence, stopwatch)
        diagnoses: list[Diagnosis] = []
        for start in range(0, len(names), self._backend.batch):  # as many at a time as the network is fastest with
            centers = centers_xyz_mm[start : start + self._backend.batch]
            with stopwatch.time("patch"):
                patches = extract_patches(ct, centers, lung_mask=mask if masked else None)
            with stopwatch.time("inference"):
                outputs = self._backend.infer(patches)
            for row, (name, center, patch) in enumerate(zip(names[start:], centers, patches, strict=False)):
                diagnosis = self._diagnosis(call, name, center, patch, outputs, row)
                for warning in diagnosis.warnings[len(ct.warnings) :]:
                    LOG.warning("nodule %d of %d: %s", start + row + 1, len(names), warning)
                diagnoses.append(diagnosis)
        timing_ms = stopwatch.result()
        LOG.info(
            "diagnosed %d nodules: %s ms",
            len(diagnoses),
            ", ".join(f"{stage} {value:.0f}" for stage, value in timing_ms.items()),
        )
        return Prediction(
            tuple(diagnoses),
            bundle=self.identity,
            cases=self.cases.identity,
            runtime=self.runtime,
            timing_ms=timing_ms,
            prevalence=prevalence,
        )

    def predict_batch(self, scans: Iterable[Scan], *, prefetch: int = 1) -> Generator[ScanResult, None, None]:
        """Diagnose the nodules of several CTs; the next CT is read while the network looks at the current one.

        .. code-block:: python

            for result in diagnoser.predict_batch(nd.Scan(path, points) for path, points in worklist):
                if result.error is not None:
                    print(result.scan.ct, result.error)
                    continue
                store(result.diagnoses)

        A CT that fails is delivered in its place, with the error, and stops no other. What is no error of this
        package comes as a :class:`NoduleDiagError` too, with the code ``out-of-memory`` or ``unforeseen``.
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

    def _diagnosis(
        self,
        call: _Call,
        name: str,
        center_xyz_mm: npt.NDArray[np.float64],
        patch: npt.NDArray[np.float32],
        outputs: Outputs,
        row: int,
    ) -> Diagnosis:
        """One nodule, which is one row of the network's outputs, as a result."""
        ct, mask, known = call.ct, call.lungs, self.cases.identity
        malignancy, expert_score = float(outputs.malignancy[row]), float(outputs.expert_score[row])
        with call.stopwatch.time("retrieval"):  # eq. 13 in each feature space
            search = partial(self.cases.search, malignancy=malignancy, expert_score=expert_score)
            similar = {space: search(space, k=call.k, exclude=call.exclude) for space in SPACES}
        x, y, z = center_xyz_mm.tolist()
        column, line, section = stored_voxel(ct, center_xyz_mm[None])[0].tolist()
        in_lung = mask.contains(center_xyz_mm) if mask is not None and call.check_lung else None
        segmentation = Segmentation(
            outputs.segmentation[row], (x, y, z), ct.direction, threshold=self._numbers.threshold
        )
        told = self._numbers.of(outputs, row)
        outside = cube_outside(ct, center_xyz_mm)
        doubts = nodule_warnings(
            in_lung, segmentation, outside=outside, absent=told.absent, unlike=told.unlike, spread=told.too_spread
        )
        return Diagnosis(
            id=name,
            xyz_lps_mm=(x, y, z),
            voxel_xyz=(column, line, section),
            in_lung=in_lung,
            malignancy=at_prevalence(told.malignancy, call.prevalence),
            logit=float(outputs.logit[row]),
            expert_score=expert_score,
            diagnosis={space: mean_label(cases) for space, cases in similar.items()},
            diagnosis_balanced={space: balanced_share(cases, of=known) for space, cases in similar.items()},
            similar=similar,
            base_rate=self.cases.base_rate,
            k=call.k,
            cases=len(self.cases),
            segmentation=segmentation,
            cam=Cam(outputs.cam[row], (x, y, z), ct.direction),
            faithfulness=Faithfulness.of(outputs.cam[row], outputs.segmentation[row]),
            prevalence=call.prevalence,
            calibrated=told.calibrated,
            malignancy_spread=told.malignancy_spread,
            presence=told.presence,
            feature_distance=told.feature_distance,
            raw_cam=None if outputs.raw_cam is None else outputs.raw_cam[row],
            ct_planes=ct_planes(patch),
            warnings=(*call.warnings, *doubts),
        )


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
