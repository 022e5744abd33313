"""Golden answers: the same nodules everywhere, and a file that is checked before it is believed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from golden_bundle import SEEDS, answers_in_numpy, make_golden_bundle
from nodule_diag.backends.golden import golden_bytes, golden_patches, read_golden
from nodule_diag.bundle.bundle import Bundle, write_bundle
from nodule_diag.bundle.manifest import Golden
from nodule_diag.errors import BundleError


def splitmix64(state: int) -> tuple[int, int]:
    """As its authors publish it, in whole numbers: the next state, and the output."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return state, z ^ (z >> 31)


def test_the_published_generator_gives_the_published_numbers() -> None:
    """The reference outputs for the seed 1234567, and ours by the same steps."""
    state, found = 1234567, []
    for _ in range(3):
        state, number = splitmix64(state)
        found.append(number)
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_numbers_are_of_that_generator() -> None:
    from nodule_diag.backends.golden import _uniform

    for seed, stream in ((0, 0), (3, 1), (2**31 - 1, 1)):
        start = (seed << 32) + (stream << 24)
        # Every number is mixed from its own counter, as a generator that begins there would give it.
        wanted = []
        for index in range(1, 6):
            z = ((start + index) * 0x9E3779B97F4A7C15) & (2**64 - 1)
            _, number = splitmix64(z - 0x9E3779B97F4A7C15)
            wanted.append((number >> 11) / 2**53)
        assert _uniform(seed, stream, 5).tolist() == wanted


def test_patches_are_nodules_and_differ() -> None:
    patches = golden_patches(SEEDS)
    assert patches.shape == (len(SEEDS), 2, 64, 64, 64)
    assert patches.dtype == np.float32
    assert patches.min() >= 0.0
    assert patches.max() <= 1.0
    centre = patches[:, 0, 31:33, 31:33, 31:33].mean(axis=(1, 2, 3))
    corner = patches[:, 0, :8, :8, :8].mean(axis=(1, 2, 3))
    assert (centre > corner + 0.2).all()
    assert len({patch.tobytes() for patch in patches}) == len(SEEDS)
    np.testing.assert_array_equal(patches[3], golden_patches([SEEDS[3]])[0])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = read_golden(make_golden_bundle(tmp_path / "b"))
    assert found is not None
    patches, answers = found
    np.testing.assert_array_equal(patches, golden_patches(SEEDS))
    for name, wanted in answers_in_numpy(patches).given().items():
        np.testing.assert_array_equal(getattr(answers, name), wanted)
    assert (answers.malignancy > 0.5).any()
    assert (answers.malignancy < 0.5).any()


def test_a_bundle_without(tiny_bundle: Path) -> None:
    assert read_golden(Bundle.open(tiny_bundle)) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:-4], "has 262236 bytes"),
        (lambda data: data + b"\0" * 4, "has 262244 bytes"),
        (lambda data: data[:100] + np.float32(np.nan).tobytes() + data[104:], "not a finite number"),
    ],
)
def test_a_file_that_is_no_answers(tmp_path: Path, change, why: str) -> None:
    bundle = make_golden_bundle(tmp_path / "b")
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files["golden.f32"] = change(files["golden.f32"])
    with pytest.raises(BundleError, match=why) as caught:
        read_golden(write_bundle(tmp_path / "c", manifest=bundle.manifest, files=files))
    assert caught.value.code == "bundle-golden"


def test_other_patches_are_not_compared(tmp_path: Path) -> None:
    bundle = make_golden_bundle(tmp_path / "b")
    other = bundle.manifest.golden.model_copy(update={"patches_sha256": "0" * 64})  # type: ignore[union-attr]
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    manifest = bundle.manifest.model_copy(update={"golden": other})
    with pytest.raises(BundleError, match="makes other patches") as caught:
        read_golden(write_bundle(tmp_path / "c", manifest=manifest, files=files))
    assert "export golden" in caught.value.hint


def test_the_packaged_bundle_has_telling_answers() -> None:
    bundle = Bundle.default()
    found = read_golden(bundle)
    assert found is not None
    _, answers = found
    assert ((answers.malignancy > 0.5).sum(), (answers.malignancy < 0.5).sum()) == (4, 4)
    assert np.abs(answers.logit).min() >= 0.1
    assert ((answers.expert_score > 1.01) & (answers.expert_score < 4.99)).all()
    assert len(bundle.read(bundle.manifest.golden.file)) < 300_000  # type: ignore[union-attr]
    np.testing.assert_allclose(answers.malignancy, 1 / (1 + np.exp(-answers.logit.astype(np.float64))), atol=1e-6)


def test_the_format_is_what_it_says() -> None:
    """Rows of P, S, score, segmentation, CAM as little-endian float32."""
    answers = answers_in_numpy(golden_patches(SEEDS[:2]))
    rows = np.frombuffer(golden_bytes(answers), "<f4").reshape(2, 3 + 2 * 4096)
    np.testing.assert_array_equal(rows[:, 1], answers.logit)
    np.testing.assert_array_equal(rows[1, 3 + 4096 :], answers.cam[1].ravel())
    digest = hashlib.sha256(golden_patches(SEEDS).tobytes()).hexdigest()
    assert Golden(file="golden.f32", seeds=SEEDS, patches_sha256=digest).seeds == SEEDS
