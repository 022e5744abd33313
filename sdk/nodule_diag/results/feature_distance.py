"""Does a patch look like anything that the network was trained on? A distance in the space of its features.

The features are F_k of eq. 4, the 256 numbers that CNet and RNet read. A few principal components of the training
patches' features span the differences between nodules. The distance is Mahalanobis' along these components. Along all
other directions together it is the distance from their span, in units of its usual size: the likelihood of
probabilistic principal component analysis (Tipping and Bishop 1999). Unusual inputs have a large Mahalanobis distance
(Lee et al. 2018), often along the directions that vary least (Kamoi and Kobayashi 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureDistance:
    """The distribution of the training patches' features.

    Attributes:
        mean: (D,).
        variances: (K,), along each component, above 0.
        components: (K, D), of length 1 and at right angles to each other.
        rest_variance: Mean variance along each of the other D - K directions, above 0.
        warn_above: 99 % of the nodules that the distance was evaluated on stay below this value.
    """

    mean: Float
    variances: Float
    components: Float
    rest_variance: float
    warn_above: float

    @classmethod
    def fit(cls, features: NDArray[np.floating], *, components: int) -> FeatureDistance:
        """Fit principal components to (N, D) features of N > ``components`` + 1 patches; ``warn_above`` stays 1."""
        rows = np.asarray(features, dtype=np.float64)
        mean = rows.mean(axis=0)
        _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
        variances = singular**2 / (len(rows) - 1)
        rest = float(variances[components:].sum()) / (rows.shape[1] - components)
        return cls(
            mean=mean,
            variances=variances[:components],
            components=axes[:components],
            rest_variance=rest,
            warn_above=1.0,
        )

    def raw(self, features: NDArray[np.floating]) -> float:
        """The distance of one patch's (D,) features. The mean of its square over the training patches is D."""
        away = np.asarray(features, dtype=np.float64) - self.mean
        along = self.components @ away
        rest = max(float(away @ away) - float(along @ along), 0.0)  # rounding may put it below 0
        return float(np.sqrt((along**2 / self.variances).sum() + rest / self.rest_variance))

    def of(self, features: NDArray[np.floating]) -> float:
        """The distance as a multiple of ``warn_above``: 99 % of nodules are below 1."""
        return self.raw(features) / self.warn_above

    def to_bytes(self) -> bytes:
        """Mean, variances and components, one after the other, as little-endian float32."""
        return b"".join(part.astype("<f4").tobytes() for part in (self.mean, self.variances, self.components))

    @classmethod
    def from_bytes(
        cls, data: bytes, *, size: int, components: int, rest_variance: float, warn_above: float
    ) -> FeatureDistance:
        """Read what :meth:`to_bytes` wrote.

        Args:
            data: The bytes.
            size: D.
            components: K.
            rest_variance: As the attribute.
            warn_above: As the attribute.

        Raises:
            ValueError: If there are more or fewer bytes, a number is not finite, or a variance not above 0.
        """
        wanted = 4 * (size + components + components * size)
        if len(data) != wanted:
            raise ValueError(f"it has {len(data)} bytes; {components} components of {size} features take {wanted}")
        numbers = np.frombuffer(data, "<f4").astype(np.float64)
        mean, variances, axes = np.split(numbers, [size, size + components])
        if not np.isfinite(numbers).all() or variances.min() <= 0.0:
            raise ValueError("it holds what is not a finite number, or no variance above 0")
        return cls(
            mean=mean,
            variances=variances,
            components=axes.reshape(components, size),
            rest_variance=rest_variance,
            warn_above=warn_above,
        )
