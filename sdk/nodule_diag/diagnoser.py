"""The Diagnoser: CT and points in, diagnoses out. It composes the rooms and adds nothing of its own.

The file has over 300 lines. A third of them document the one class that callers use.
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
    CaseBaseIdentity,
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
    """What the nodules of one call share, once the call has been checked."""

    ct: CTVolume
    lungs: LungMask | None
    warnings: tuple[str, ...]
    check_lung: bool
    k: int
    exclude: Collection[str]
    known: CaseBaseIdentity
    prevalence: float | None
    stopwatch: Stopwatch


class Diagnoser:
    """A loaded bundle, ready to use. Several threads can use one diagnoser, and several diagnosers can be loaded.

    Attributes:
        bundle: The bundle that is run.
        identity: The bundle's name, version and hash.
        cases: The historical cases that retrieval searches.
        threads: CPU threads that a call uses.
        symmetries: How many views of each patch are averaged.
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
            bundle: A bundle, or its path (a directory or a zip); the packaged bundle when left out.
            cases: A case base of the bundle's model, or the path of its file; the bundle's own when left out.
            backend: ``auto``, ``onnxruntime``, ``winograd``, ``openvino``, ``tensorrt`` or ``tensorrt-rtx``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. With ``cases``, ``auto`` means fp32.
            threads: CPU threads a call may use; ``OMP_NUM_THREADS`` or every available core when left out.
            symmetries: 8 or 48 to average the answers over the flips or all symmetries of each patch
                (:mod:`nodule_diag.backends.symmetry`). Inference then costs 8 or 48 times as much.

        Returns:
            The diagnoser; its :attr:`runtime` says what ``auto`` chose.

        Raises:
            BundleError: When the bundle is damaged, altered or of another schema.
            CaseBaseError: When the case base is damaged, altered, empty, or of another schema or model.
            BackendError: When the requested backend, device or precision cannot be used.
            UsageError: For an option with an invalid value.
        """
        count = resolve_threads(threads)
        require_views(symmetries)
        if not isinstance(bundle, Bundle):
            bundle = Bundle.default() if bundle is None else Bundle.open(bundle)
        if cases is not None:
            cases = (cases if isinstance(cases, CaseBase) else CaseBase.open(cases)).of_model(bundle)
            # Whether a reduced precision finds the same similar cases was measured on the bundle's own cases. In a
            # larger case base the cases lie closer together, and a reduced precision may find others.
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
        """Make another diagnoser that shares the loaded network, so that the network is in memory only once.

        Args:
            cases: Another case base of the bundle's model.
            symmetries: How many views of each patch are averaged.
            through: Wraps the network for the new diagnoser, for example in a queue that several callers share.

        Raises:
            CaseBaseError: When the case base is empty, or of another model.
            UsageError: For a number of views other than 1, 8 or 48.
        """
        return Diagnoser(
            self.bundle,
            self._network if through is None else through(self._network),
            self.cases if cases is None else CaseIndex(cases.of_model(self.bundle)),
            symmetries=self.symmetries if symmetries is None else symmetries,
        )

    @property
    def network(self) -> Backend:
        """The backend that runs the network, one view at a time; safe to use from several threads."""
        return self._network

    @property
    def runtime(self) -> Runtime:
        """What runs the network, as :meth:`load` chose it."""
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
            space: The frame of the points: ``lps`` or ``ras`` mm, or ``voxel`` indices x, y, z of the file as stored.
            k: How many similar cases to retrieve; the bundle's number (20) when left out.
            ids: A name for each nodule; "1", "2", ... when left out.
            exclude: Case ids and patient ids that retrieval must not return, such as this CT's own patient.
            check_lung: Whether to find the lungs and report if each position lies in them. If False, ``in_lung`` is
                None and the time for the lung mask is saved (``timing_ms``: ``lung_mask``). A bundle whose input is
                masked (``preprocessing.masked_input``) needs the lung mask in either case.
            prevalence: Share of malignant nodules among the nodules asked about, 0 < p < 1. Bayes' rule moves
                ``malignancy`` from the prior of one half to this prior. No other figure changes.

        Returns:
            One diagnosis per point, in the same order.

        Raises:
            CoordinateError: For a point that is not finite, not inside the CT, or near missing slices.
            UsageError: For an empty list, ids that are empty, repeated or not one per point, a ``k`` that is not a
                whole number above 0, or a prevalence that is not a number between 0 and 1.
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
        """Diagnose as :meth:`predict` does, and time each stage. Same arguments and errors.

        ``watch`` is called with the name of a stage each time that this stage begins. An exception from ``watch`` ends
        the call.
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
            require_inside(ct, center, in_lung=(lambda point: lungs().contains(point) is True) if check_lung else None)
            require_no_gap(ct, center, half_cube_mm=PATCH_SIZE * PATCH_SPACING_MM / 2)
        mask = lungs() if check_lung or masked else None
        # Not timed as a stage. A caller without the mask is still warned if this is not a chest.
        warnings = (*ct.warnings, *(mask.warnings if mask else lung_warnings(ct)))
        known = self.cases.searched(exclude)
        call = _Call(ct, mask, warnings, check_lung, k, exclude, known, prevalence, stopwatch)
        diagnoses: list[Diagnosis] = []
        for start in range(0, len(names), self._backend.batch):  # the batch size that is fastest
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
            cases=known,
            runtime=self.runtime,
            timing_ms=timing_ms,
            prevalence=prevalence,
        )

    def predict_batch(self, scans: Iterable[Scan], *, prefetch: int = 1) -> Generator[ScanResult, None, None]:
        """Diagnose the nodules of several CTs; the next CT is read while the network works on the current one.

        .. code-block:: python

            for result in diagnoser.predict_batch(nd.Scan(path, points) for path, points in worklist):
                if result.error is not None:
                    print(result.scan.ct, result.error)
                    continue
                store(result.diagnoses)

        A CT that fails gives a result with the error, in its place. The other CTs go on. An exception from outside this
        package becomes a :class:`NoduleDiagError` with the code ``out-of-memory`` or ``unforeseen``. Leaving the loop,
        or ``close()``, ends the reading: no CT is opened after the one that is being read.

        Args:
            scans: The CTs, in any number. They are taken one at a time, at most ``prefetch`` in advance.
            prefetch: How many CTs are read in advance. These CTs, the current CT, and the CTs whose results the caller
                keeps are in memory together.

        Returns:
            One result per CT, in the order of ``scans``.

        Raises:
            UsageError: When ``prefetch`` is below 1.
        """
        return predict_batch(self, scans, prefetch=prefetch)

    def predict_batch_async(self, scans: Iterable[Scan], *, prefetch: int = 1) -> AsyncGenerator[ScanResult, None]:
        """:meth:`predict_batch` for ``async for``; same arguments, results and errors.

        All work is done in separate threads, so the event loop is never blocked. When cancelled, the generator waits
        for the nodules that are being diagnosed and for the CT that is being read, and then stops.
        """
        return predict_batch_async(self, scans, prefetch=prefetch)

    def warm_up(self) -> None:
        """Diagnose a made-up CT, so that the first call of :meth:`predict` is as fast as the others.

        This loads what is otherwise loaded at first use (SimpleITK, the runtime's kernels) and allocates memory.
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
        """The result of one nodule, which is one row of the network's outputs."""
        ct, mask, known = call.ct, call.lungs, call.known
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
            base_rate=known.malignant / known.count,
            k=call.k,
            cases=known.count,
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
    """The caller's ids, or 1, 2, ... The ids name files and rows, so each id must be unique."""
    if ids is None:
        return [str(number) for number in range(1, count + 1)]
    names = [str(name) for name in ids]
    if len(names) != count or len(set(names)) != count or not all(names):
        raise UsageError(
            f"{count} points have the ids {', '.join(map(repr, names))}", hint="give each point one id of its own"
        )
    return names
