"""Bundles: every fault has its own code, and nothing is parsed before its hash was checked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle_factory import make_tiny_bundle, tiny_cases, tiny_parts
from nodule_diag.bundle import bundle as bundle_module
from nodule_diag.bundle import files as bundle_files
from nodule_diag.bundle.bundle import Bundle, seal, write_bundle
from nodule_diag.bundle.manifest import Manifest
from nodule_diag.errors import BundleError, OutputError
from nodule_diag.process import sole_writer


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest as text, leaving every hash as it was."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def refused(path: Path, code: str, *words: str) -> BundleError:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert caught.value.code == code, caught.value.message
    assert caught.value.hint
    for word in words:
        assert word in caught.value.message
    return caught.value


def test_opens_directory_and_zip_alike(folder: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "same"), "zip", folder))
    opened, zipped = Bundle.open(folder), Bundle.open(archive)
    assert opened.sha256 == zipped.sha256 == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert opened.manifest == zipped.manifest
    for name in opened.manifest.files:
        assert opened.read(name) == zipped.read(name) == (folder / name).read_bytes()


def test_manifest_has_the_agreed_fields(folder: Path) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    assert document["schema_version"] == "nodule-diag/bundle/2"
    assert document["preprocessing"]["windows_hu"] == [[-1000, 400], [-160, 240]]
    assert document["model"]["input"] == {"name": "patch", "shape": ["B", 2, 64, 64, 64]}
    assert set(document["model"]["outputs"]) == {"malignancy", "logit", "expert_score", "segmentation", "cam"}
    assert document["expert_score_scale"] == {"min": 1, "max": 5}
    assert document["retrieval"] == {"k": 20, "cases": "index/cases.sqlite"}
    assert "MODEL_CARD.md" in document["files"]


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "bundle-missing", "absent")
    refused(Path("nul\0"), "bundle-missing")
    refused(tmp_path / ("long" * 500), "bundle-unreadable", "too long")


def test_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "bundle-not-a-bundle", "manifest.json")
    (tmp_path / "text.zip").write_text("no zip")
    refused(tmp_path / "text.zip", "bundle-not-a-bundle")
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.writestr("folder/manifest.json", "{}")
    refused(tmp_path / "nested.zip", "bundle-not-a-bundle")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.pop("name"), "name"),
        (lambda m: m["preprocessing"].update(masked_input="perhaps"), "preprocessing.masked_input"),
        (lambda m: m["preprocessing"].update(spacing_mm=1.0), "spacing_mm"),
        (lambda m: m["preprocessing"].update(windows_hu=[[-1000, 400], [-160, 250]]), "windows_hu"),
        (lambda m: m["model"]["outputs"]["cam"].update(shape=["B", 8, 8, 8]), "cam"),
        (lambda m: m["model"]["outputs"]["cam"].update(name="segmentation"), "model.outputs"),
        (lambda m: m["model"]["input"].update(shape=["B", 1, 64, 64, 64]), "patch"),
        (lambda m: m["retrieval"].update(spaces={}), "retrieval.spaces"),
        (lambda m: m["retrieval"].update(k=0), "retrieval.k"),
        (lambda m: m.update(threshold=0.5), "threshold"),
        (lambda m: m.update(presence={"scale": 0.0, "shift": 0.0, "warn_below": 0.5}), "presence.scale"),
        (lambda m: m.update(presence={"scale": 1.0, "shift": 0.0, "warn_below": 1.5}), "presence.warn_below"),
        (lambda m: m.update(presence={"scale": 1.0, "shift": 0.0}), "presence.warn_below"),
        (lambda m: m["retrieval"].update(k=float("nan")), "NaN"),
        (lambda m: m["files"].update({"model.onnx": "abc"}), "files.model.onnx"),
        (lambda m: m["files"].pop("MODEL_CARD.md"), "MODEL_CARD.md"),
    ],
)
def test_invalid_manifest_names_the_field(folder: Path, change: Callable[[dict], object], field: str) -> None:
    rewrite(folder, change)
    refused(folder, "bundle-manifest-invalid", field)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '"x"', "[" * 100_000, '{"schema_version": 1}', "\ud800".encode(errors="surrogatepass")]
)
def test_manifest_that_is_not_json_of_ours(folder: Path, text: str | bytes) -> None:
    (folder / "manifest.json").write_bytes(text.encode() if isinstance(text, str) else text)
    refused(folder, "bundle-manifest-invalid")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"training": {', '"training": {"a": ' + "[" * 100_000 + "]" * 100_000 + ",", "nested"),
        ('"training": {', '"training": {"a": ' + "9" * 1_000_000 + ",", ""),
        ('"k": 20', '"k": ' + "9" * 5000, ""),
        ('"training": {', '"training": {"a": NaN,', "NaN is not a finite number"),
        ('"training": {', '"training": {"a": -Infinity,', "-Infinity is not a finite number"),
        ('"training": {', '"training": {"a": 1e999,', "1e999 is not a finite number"),
        ('"training": {', '"training": {"\\ud800": 1,', ""),
        ('"name": "tiny"', '"name": "tiny", "name": "other"', "'name' stands twice"),
        ('"name": "tiny"', '"name": "ti\\ud800ny"', ""),
        ('"name": "tiny"', '"name": "ti\\u001b[31mny"', "at name"),
        ('"name": "tiny"', '"name": "ti\\u202eny"', "at name"),
        ('"name": "tiny"', '"name": "' + "x" * 201 + '"', "at name"),
        ('"intended_use": "', '"intended_use": "\\u0007', "at intended_use"),
        ('"k": 20', '"k": "20"', "at retrieval.k"),
        ('"k": 20', '"k": 20.0', "at retrieval.k"),
        ('"k": 20', '"k": true', "at retrieval.k"),
        ('"masked_input": false', '"masked_input": "no"', "at preprocessing.masked_input"),
        ('"masked_input": false', '"masked_input": 0', "at preprocessing.masked_input"),
        ('"spacing_mm": 0.5', '"spacing_mm": "0.5"', "at preprocessing.spacing_mm"),
        ('"opset": 17', '"opset": [17]', "at model.opset"),
    ],
)
def test_json_that_readers_understand_differently(folder: Path, old: str, new: str, says: str) -> None:
    """Nothing is converted, nothing stands twice, nothing is endless, and what is shown can be shown."""
    path = folder / "manifest.json"
    text = path.read_text()
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1))
    error = refused(folder, "bundle-manifest-invalid", says)
    assert len(error.message) < 700
    assert error.message.isprintable()


@pytest.mark.parametrize("twin", ["Model.onnx", "model_card.md", "ｍodel.onnx"])
def test_two_names_that_are_one_file_elsewhere(folder: Path, twin: str) -> None:
    """A system that does not tell upper from lower case would read one of them for both."""
    (folder / twin).write_bytes(b"x")
    rewrite(folder, lambda m: m["files"].update({twin: hashlib.sha256(b"x").hexdigest()}))
    refused(folder, "bundle-unsafe-path", "one file on some systems")


def test_unknown_schema_version(folder: Path) -> None:
    rewrite(folder, lambda m: m.update(schema_version="nodule-diag/bundle/3", new_field=1))
    refused(folder, "bundle-schema-unknown", "nodule-diag/bundle/3")


def test_the_first_schema_says_how_to_get_on(folder: Path) -> None:
    rewrite(folder, lambda m: m.update(schema_version="nodule-diag/bundle/1"))
    assert "nodule-diag export cases" in refused(folder, "bundle-schema-unknown", "nodule-diag/bundle/1").hint


@pytest.mark.parametrize("name", ["model.onnx", "MODEL_CARD.md", "index/cases.sqlite"])
def test_one_flipped_bit(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    refused(folder, "bundle-hash-mismatch", name)


def test_missing_and_unlisted_files(folder: Path) -> None:
    (folder / "index" / "extra.pkl").write_bytes(b"x")
    refused(folder, "bundle-file-unlisted", "index/extra.pkl")
    (folder / "index" / "extra.pkl").unlink()
    (folder / "model.onnx").unlink()
    refused(folder, "bundle-file-missing", "model.onnx")


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/../../b", "C:/x", "..\\x", "a//b", "./x", "a/", "nul\x00", ".."]
)
def test_path_that_leaves_the_bundle(folder: Path, tmp_path: Path, name: str) -> None:
    rewrite(folder, lambda m: m["files"].update({name: "0" * 64}))
    refused(folder, "bundle-unsafe-path")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("manifest.json", "{}")
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = entry.orig_filename = name  # ZipInfo itself would tidy the name
        archive.writestr(entry, b"x")
    if not name.endswith("/"):  # in an archive that is how a folder is written
        refused(tmp_path / "evil.zip", "bundle-unsafe-path")


def test_model_file_outside(folder: Path) -> None:
    rewrite(folder, lambda m: m["model"].update(file="../outside.onnx"))
    refused(folder, "bundle-unsafe-path", "model.file")


@pytest.mark.parametrize("link", ["model.onnx", "index"])
def test_symlinks_are_refused(folder: Path, tmp_path: Path, link: str) -> None:
    (folder / link).rename(tmp_path / "elsewhere")
    (folder / link).symlink_to(tmp_path / "elsewhere")
    refused(folder, "bundle-unsafe-path", link)


def test_a_link_to_the_bundle_itself_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert Bundle.open(tmp_path / "current").manifest.name == "tiny"


def test_pipe_is_refused_without_reading_it(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    refused(folder, "bundle-unsafe-path", "model.onnx")


def test_zip_with_link_twice_or_encrypted(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        link = zipfile.ZipInfo("model.onnx")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path / "link.zip", "bundle-unsafe-path", "link")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("manifest.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("manifest.json", "{ }")
    refused(tmp_path / "twice.zip", "bundle-unsafe-path", "twice")
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("manifest.json", "{}")
    refused(tmp_path / "lzma.zip", "bundle-unsafe-path")


def test_sizes_are_bounded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("manifest.json", " " * (bundle_files.MAX_MANIFEST_BYTES + 1))
    refused(archive, "bundle-too-large", "manifest.json")
    largest = max(path.stat().st_size for path in folder.rglob("*"))
    with monkeypatch.context() as bounds:
        bounds.setattr(bundle_files, "MAX_FILE_BYTES", largest - 1)
        refused(folder, "bundle-too-large", str(largest - 1))
        bounds.setattr(bundle_files, "MAX_FILE_BYTES", largest)
        Bundle.open(folder)
    monkeypatch.setattr(bundle_module, "MAX_TOTAL_BYTES", 1000)
    refused(folder, "bundle-too-large")
    monkeypatch.setattr(bundle_files, "MAX_FILES", 3)
    refused(folder, "bundle-too-large")
    monkeypatch.setattr(bundle_files, "MAX_FILE_BYTES", 10)
    refused(archive, "bundle-too-large")


def test_zip_that_lies_about_a_size(folder: Path, tmp_path: Path) -> None:
    """The declared size is small, the content is not: reading stops at the limit, not at the end of the bomb."""
    archive = tmp_path / "liar.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as liar:
        liar.writestr("manifest.json", b"x" * 100_000)
    data = bytearray(archive.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(BundleError):
        Bundle.open(archive)


def test_a_zip_whose_directory_points_before_its_beginning_is_none(tiny_bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "whole"), "zip", tiny_bundle))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x05\x06") + 18] ^= 0xFF
    path.write_bytes(data)
    refused(path, "bundle-not-a-bundle")


def test_damaged_zip_never_raises_anything_else(tiny_bundle: Path, tmp_path: Path) -> None:
    """Every 61st byte flipped in turn: a clean refusal, or the bundle as it was."""
    whole = Path(shutil.make_archive(str(tmp_path / "whole"), "zip", tiny_bundle)).read_bytes()
    wanted = Bundle.open(tiny_bundle).sha256
    outcomes = set()
    for position in range(0, len(whole), 61):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path = tmp_path / "damaged.zip"
        path.write_bytes(damaged)
        try:
            outcomes.add(Bundle.open(path).sha256)
        except BundleError as error:
            outcomes.add(error.code)
    assert "bundle-hash-mismatch" in outcomes
    assert {outcome for outcome in outcomes if not outcome.startswith("bundle-")} <= {wanted}
    for cut in range(0, len(whole), 997):
        (tmp_path / "cut.zip").write_bytes(whole[:cut])
        refused(tmp_path / "cut.zip", "bundle-not-a-bundle")


def test_nothing_is_parsed_before_its_hash_was_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening parses the manifest alone; what it hands out later are the bytes that were hashed."""
    opened = Bundle.open(folder)
    before = opened.read("model.onnx")
    (folder / "model.onnx").write_bytes(b"exchanged after the check")
    assert opened.read("model.onnx") == before
    with pytest.raises(BundleError) as caught:
        opened.read("secret.txt")
    assert caught.value.code == "bundle-file-missing"


def test_default_bundle_missing_or_good(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundle_module.resources, "files", lambda _package: tmp_path)
    with pytest.raises(BundleError) as caught:
        Bundle.default()
    assert caught.value.code == "bundle-missing"
    make_tiny_bundle(tmp_path / "bundles" / "default")
    assert Bundle.default().manifest.name == "tiny"


def test_writing_is_reproducible_and_replaces_only_bundles(tmp_path: Path) -> None:
    first, second = make_tiny_bundle(tmp_path / "a.zip"), make_tiny_bundle(tmp_path / "b.zip")
    assert first.path.read_bytes() == second.path.read_bytes()
    (tmp_path / "target").mkdir()
    make_tiny_bundle(tmp_path / "target")
    (tmp_path / "target" / "stale.txt").write_text("left over")
    make_tiny_bundle(tmp_path / "target")
    assert not (tmp_path / "target" / "stale.txt").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("keep")
    with pytest.raises(OutputError):
        make_tiny_bundle(tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "keep"
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


KILLED = """
import os, signal, sys
from pathlib import Path
from bundle_factory import make_tiny_bundle, tiny_cases
from nodule_diag.bundle import bundle
target, moment = sys.argv[1:]
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def rename(path, to, rename=Path.rename):
    if moment == ("away" if path == Path(target) else "there"):
        kill()
    return rename(path, to)
Path.rename = rename
if moment == "done":
    bundle.sync_folder = lambda folder: folder == Path(target).parent and kill()
make_tiny_bundle(Path(target), cases=tiny_cases(40))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["away", "there", "done"])
def test_a_killed_writer_loses_no_bundle(moment: str, tmp_path: Path) -> None:
    """Killed before the old one is moved away, before the new one is moved there, and before the old one is removed."""
    target = make_tiny_bundle(tmp_path / "mine").path
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    line = [sys.executable, "-c", KILLED, str(target), moment]
    assert subprocess.run(line, env=environment, check=False).returncode == -signal.SIGKILL
    if moment == "there":
        assert str(tmp_path / ".old.part.mine") in refused(target, "bundle-missing").hint

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OutputError, match="No space left"):
        patch.setattr(bundle_module, "write_bytes", full)
        make_tiny_bundle(target)
    cases = tiny_cases(40 if moment == "done" else 60)
    assert Bundle.open(target).sha256 == make_tiny_bundle(tmp_path / "wanted", cases=cases).sha256
    make_tiny_bundle(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "wanted"]


def test_two_writers_of_a_bundle_are_not_mixed(tmp_path: Path) -> None:
    with sole_writer(tmp_path / ".lock.part.mine", of=tmp_path), pytest.raises(OutputError) as busy:
        make_tiny_bundle(tmp_path / "mine")
    assert busy.value.code == "output-busy"
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_bundle_is_replaced(tmp_path: Path) -> None:
    real = make_tiny_bundle(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    make_tiny_bundle(tmp_path / "link", cases=tiny_cases(40))
    assert not (tmp_path / "link").is_symlink()
    assert Bundle.open(real.path).sha256 == real.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_sealing_refuses_what_opening_would(tmp_path: Path) -> None:
    manifest, files = tiny_parts()
    without_card = {name: data for name, data in files.items() if name != "MODEL_CARD.md"}
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md"):
        seal(manifest, without_card)
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "x", manifest=manifest, files={**files, "../x": b""})
    assert caught.value.code == "bundle-unsafe-path"
    assert isinstance(manifest, Manifest)
    assert not (tmp_path / "x").exists()
