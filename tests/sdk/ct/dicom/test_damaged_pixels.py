"""Damaged pixels: nothing kills this process, takes its memory or time, or gives voxels that nobody stored."""

import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.rle import _rle_decode_frame
from pydicom.pixels.encoders.native import _encode_frame

import ct_files as make
from nodule_diag.ct.dicom import bounds, run_lengths, series
from nodule_diag.ct.dicom.code_stream import code_stream
from nodule_diag.ct.reading import read_ct
from nodule_diag.errors import CTError
from nodule_diag.process import Children

SHAPE = (3, 40, 48)
HU = make.chest_hu(SHAPE)
STREAMS = (uid.JPEGLosslessSV1, uid.JPEG2000Lossless, uid.JPEGLSLossless)


def stream_of(syntax):
    (item,) = make.encoded(make.dicom_slices(HU[:1]), syntax)
    return next(generate_frames(item.PixelData, number_of_frames=1))


def holding(folder, syntax, *fragments, **options):
    """A series whose second slice holds some bytes instead of its own frame."""
    items = make.encoded(make.dicom_slices(HU), syntax)
    items[1].PixelData = encapsulate([*fragments], **options)
    return make.save_series(folder, items)


def refused(folder, code, *says, name="001.dcm"):
    with pytest.raises(CTError) as caught:
        read_ct(folder)
    assert caught.value.code == code
    for words in (name, *says):
        assert words in str(caught.value)
    return caught.value


@pytest.fixture
def work(monkeypatch):
    """Has another work than decoding done by the children of `read_ct`."""

    def use(name, **options):
        monkeypatch.setattr(series, "decoders", lambda *_, **__: Children(f"child_decoders:{name}", **options))

    return use


@pytest.mark.parametrize(
    ("name", "says"),
    [("crashing", "SIGSEGV"), ("dividing", "SIGFPE"), ("endless", "too long"), ("leaving", "status 7")],
)
def test_a_slice_that_ends_its_decoder_is_named(tmp_path, work, name, says):
    work(name, cpu_s=1)
    error = refused(
        holding(tmp_path / "series", STREAMS[0], stream_of(STREAMS[0])), "ct-decoder-died", says, name="000.dcm"
    )
    assert "JPEG Lossless" in str(error)
    assert "export the series again" in error.hint


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_slice_that_takes_all_memory_is_named(tmp_path, work):
    work("greedy")
    refused(
        holding(tmp_path / "series", STREAMS[0], stream_of(STREAMS[0])), "ct-damaged", "MemoryError", name="000.dcm"
    )


@pytest.mark.parametrize("name", ["short", "long", "talking"])
def test_what_a_decoder_answers_is_checked(tmp_path, work, name):
    work(name)
    code = "ct-decoder-died" if name == "long" else "ct-damaged"
    refused(holding(tmp_path / "series", STREAMS[0], stream_of(STREAMS[0])), code, name="000.dcm")


def test_all_slices_share_decoders(tmp_path, work, monkeypatch):
    """As many as there are threads, but not for a few slices; and none at all for uncompressed ones."""
    started = []
    popen = subprocess.Popen

    def counted(*args, **options):
        started.append(args)
        return popen(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    hu = make.chest_hu((80, 32, 32))
    folder = make.save_series(tmp_path / "few", make.encoded(make.dicom_slices(hu[:20]), uid.JPEGLSLossless))
    np.testing.assert_array_equal(read_ct(folder, threads=4).hu, hu[:20])
    assert len(started) == 1
    folder = make.save_series(tmp_path / "many", make.encoded(make.dicom_slices(hu), uid.JPEGLSLossless))
    np.testing.assert_array_equal(read_ct(folder, threads=4).hu, hu)
    assert 2 <= len(started) <= 4
    del started[:]
    for syntax in (uid.ExplicitVRLittleEndian, uid.RLELossless):
        read_ct(make.save_series(tmp_path / syntax, make.encoded(make.dicom_slices(hu), syntax)))
    assert started == []


def test_where_no_decoder_can_be_started(tmp_path, monkeypatch):
    """A program that is not a Python interpreter still reads what needs none."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    for prefix in ("exec_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, prefix, str(tmp_path))
    folder = make.save_series(tmp_path / "rle", make.encoded(make.dicom_slices(HU), uid.RLELossless))
    np.testing.assert_array_equal(read_ct(folder).hu, HU)
    with pytest.raises(CTError, match=r"000\.dcm holds JPEG-LS Lossless Image Compression pixels") as caught:
        read_ct(make.save_series(tmp_path / "jls", make.encoded(make.dicom_slices(HU), uid.JPEGLSLossless)))
    assert caught.value.code == "ct-no-decoder"
    assert "NODULE_DIAG_PYTHON" in caught.value.hint


def test_a_host_without_a_guard_of_its_main_module(tmp_path):
    """With threads, in a read-only working directory without a temporary folder, under ``python -I``."""
    folder = make.save_series(tmp_path / "series", make.encoded(make.dicom_slices(HU), uid.JPEG2000Lossless))
    program = tmp_path / "host.py"
    program.write_text(
        textwrap.dedent(f"""
        import sys, threading
        sys.path[:] = {[entry for entry in sys.path if entry]!r}
        from nodule_diag.ct.reading import read_ct
        print("started")
        threads = [threading.Thread(target=lambda: print(read_ct({str(folder)!r}).hu.sum())) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """)
    )
    ran = subprocess.run(
        [sys.executable, "-I", program], env={"TMPDIR": "/nowhere"}, cwd="/proc", capture_output=True, text=True
    )
    assert (ran.stdout.split(), ran.stderr) == (["started", *[str(HU.sum())] * 3], "")


@pytest.mark.parametrize("syntax", STREAMS, ids=lambda known: known.keyword)
def test_streams_that_contradict_their_header_reach_no_decoder(tmp_path, syntax, work):
    work("crashing")
    items = make.encoded(make.dicom_slices(HU), syntax)
    items[0].Rows = items[1].Rows = items[2].Rows = SHAPE[1] - 1
    folder = make.save_series(tmp_path / "rows", items)
    with pytest.raises(CTError, match="promises 48 x 39 pixels, its code stream 48 x 40 of 1"):
        read_ct(folder)
    items = make.encoded(make.dicom_slices(HU), syntax)
    for item in items:
        item.BitsAllocated, item.BitsStored, item.HighBit = 8, 8, 7
    with pytest.raises(CTError, match=r"8 of 8 bits up to bit 7, its code stream (un)?signed ones of 16 bits"):
        read_ct(make.save_series(tmp_path / "bits", items))


@pytest.mark.parametrize("syntax", STREAMS, ids=lambda known: known.keyword)
@pytest.mark.parametrize("damage", ["cut", "joined", "no end", "short", "empty", "other"])
def test_a_stream_that_is_not_whole(tmp_path, syntax, damage):
    stream = stream_of(syntax)
    damaged = {
        "cut": stream[: len(stream) // 2] + b"\xff\xd9",
        "joined": stream.rstrip(b"\0") + stream,
        "no end": stream[: len(stream) // 2],
        "short": stream[:20],
        "empty": b"\0\0",
        "other": stream_of({*STREAMS}.difference({syntax}).pop()),
    }[damage]
    refused(holding(tmp_path / "series", syntax, damaged), "ct-damaged")


def test_what_libjpeg_prints_of_lost_data_is_an_error(tmp_path, capfd):
    """It goes on with pixels that nobody stored: bytes are missing within the stream, and its end is there."""
    stream = stream_of(uid.JPEGLosslessSV1)
    folder = holding(tmp_path / "series", uid.JPEGLosslessSV1, stream[:900] + stream[1000:])
    refused(folder, "ct-damaged", "decoded with faults", "Corrupt JPEG data")
    assert capfd.readouterr() == ("", "")


def test_a_stream_of_a_million_tiles(tmp_path):
    """OpenJPEG takes gigabytes for them, out of 8 kB."""
    stream = bytearray(stream_of(uid.JPEG2000Lossless))
    struct.pack_into(">2L", stream, 8 + 16, 1, 1)
    refused(holding(tmp_path / "series", uid.JPEG2000Lossless, bytes(stream)), "ct-damaged", "not whole")


@pytest.mark.parametrize(("pieces", "table"), [(1, True), (1, False), (3, True), (3, False), (50, True)], ids=str)
@pytest.mark.parametrize("syntax", [*STREAMS, uid.RLELossless], ids=lambda known: known.keyword)
def test_frames_in_fragments(tmp_path, syntax, pieces, table):
    items = make.encoded(make.dicom_slices(HU), syntax)
    for item in items:
        frame = next(generate_frames(item.PixelData, number_of_frames=1))
        item.PixelData = encapsulate([frame], fragments_per_frame=pieces, has_bot=table)
    np.testing.assert_array_equal(read_ct(make.save_series(tmp_path / "series", items)).hu, HU)


def test_a_missing_delimiter_is_no_damage(tmp_path):
    folder = make.save_series(tmp_path / "series", make.encoded(make.dicom_slices(HU), uid.JPEGLSLossless))
    for path in folder.iterdir():
        data = path.read_bytes()
        assert data.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
        path.write_bytes(data[:-8])
    np.testing.assert_array_equal(read_ct(folder).hu, HU)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (struct.pack("<2L", 0, 40), "its table of offsets holds 2 frames"),
        (b"\0\0\0\0\0\0", "its table of offsets holds no whole table"),
    ],
)
def test_an_offset_table_of_other_frames(tmp_path, table, says):
    folder = make.save_series(tmp_path / "series", make.encoded(make.dicom_slices(HU), uid.JPEGLSLossless))
    path = folder / "001.dcm"
    head, item, rest = path.read_bytes().partition(b"\xfe\xff\x00\xe0")
    length = int.from_bytes(rest[:4], "little")
    path.write_bytes(head + item + len(table).to_bytes(4, "little") + table + rest[4 + length :])
    refused(folder, "ct-damaged", says)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32 - 2, 2**32 - 1])
def test_an_item_of_another_length(tmp_path, length):
    folder = make.save_series(tmp_path / "series", make.encoded(make.dicom_slices(HU), uid.JPEGLSLossless))
    path = folder / "001.dcm"
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\xfe\xff\x00\xe0")
    struct.pack_into("<L", data, at + 4, length)
    path.write_bytes(data)
    with pytest.raises(CTError, match=r"001\.dcm") as caught:
        read_ct(folder)
    assert caught.value.code in ("ct-truncated", "ct-damaged")


@given(data=st.binary(max_size=400), runs=st.lists(st.tuples(st.integers(0, 255), st.integers(1, 300)), max_size=30))
@settings(max_examples=60)
def test_run_lengths_are_decoded_as_pydicom_does(data, runs):
    plain = data + b"".join(bytes([value]) * count for value, count in runs)
    plain += b"\0" * (-len(plain) % 8) or b""
    if not plain:
        return
    pixels = len(plain) // 2
    runner = type("Runner", (), {})()
    runner.columns, runner.rows, runner.samples_per_pixel, runner.bits_allocated = pixels, 1, 1, 16
    runner.get_option = lambda name, default=None: {"byteorder": "<"}.get(name, default)
    frame = _encode_frame(plain, runner)
    assert run_lengths.decode(frame, pixels, 2).tobytes() == bytes(_rle_decode_frame(frame, 1, pixels, 1, 16)) == plain


@given(
    at=st.integers(0, 200),
    value=st.integers(0, 255),
    cut=st.integers(0, 300),
    pixels=st.sampled_from([48, 47, 49, 200]),
)
@settings(max_examples=200)
def test_damaged_run_lengths_give_as_many_pixels_or_an_error(at, value, cut, pixels):
    segments = [bytes([253, 7, *([2, 1, 2, 3] * 11), 128]), bytes([209, 9])]
    table = struct.pack("<16L", 2, 64, 64 + len(segments[0]), *[0] * 13)
    frame = bytearray(b"".join([table, *segments]))
    if at < len(frame):
        frame[at] = value
    try:
        assert run_lengths.decode(bytes(frame[: len(frame) - cut]), pixels, 2).shape == (pixels, 2)
    except ValueError as error:
        assert "segment" in str(error)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    syntax=st.sampled_from(STREAMS),
    changes=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 200),
)
def test_a_damaged_stream_header_is_an_error_or_a_size(syntax, changes, cut):
    stream = bytearray(STREAM_OF[syntax])
    for at, value in changes:
        stream[at] = value
    try:
        found = code_stream(bytes(stream[: len(stream) - cut]), syntax)
    except ValueError as error:
        assert str(error)
        return
    assert 0 <= found.rows < 2**32
    assert found.data


STREAM_OF = {syntax: stream_of(syntax) for syntax in STREAMS}


@pytest.mark.parametrize("native", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize("more", [-2000, -2, 2, 64, 2000])
def test_pixel_data_of_another_length(tmp_path, native, more):
    """Less was filled with whatever lay in memory; more means that Rows or Columns is damaged."""
    items = make.encoded(make.dicom_slices(HU), native)
    data = items[1].PixelData
    items[1].PixelData = data[:more] if more < 0 else data + bytes([5]) * more
    folder = make.save_series(tmp_path / "series", items)
    refused(folder, "ct-truncated" if more < 0 else "ct-damaged", "3,840 bytes", f"{3840 + more:,}")


def test_a_padding_byte_is_allowed(tmp_path):
    items = make.dicom_slices(HU[:, :39, :47])
    for item in items:
        stored = np.clip((np.frombuffer(item.PixelData, "<i2") >> 4) + 64, 0, 255).astype(np.uint8)
        item.BitsAllocated = item.BitsStored = 8
        item.HighBit, item.PixelRepresentation, item.RescaleSlope, item.RescaleIntercept = 7, 0, 16, -2048
        item.PixelData = stored.tobytes() + b"\0"
        item["PixelData"].VR = "OB"
    assert read_ct(make.save_series(tmp_path / "series", items)).size_xyz == (47, 39, 3)


def test_bytes_that_moved_the_pixels(tmp_path):
    folder = make.save_series(tmp_path / "series", make.dicom_slices(HU))
    path = folder / "001.dcm"
    data = path.read_bytes()
    path.write_bytes(data[:-2000] + data[-2040:])
    refused(folder, "ct-damaged", "followed by bytes that are no element")


def test_what_may_follow_pixels(tmp_path):
    """Zeros, which fill blocks, and elements of a higher group."""
    items = make.dicom_slices(HU)
    for item in items:
        item.DataSetTrailingPadding = bytes(100)
    folder = make.save_series(tmp_path / "series", items)
    path = folder / "001.dcm"
    path.write_bytes(path.read_bytes()[:-112] + bytes(300))
    np.testing.assert_array_equal(read_ct(folder).hu, HU)


def nested(depth, little=True):
    """A private sequence of undefined length in one, ``depth`` times."""
    start = b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return start * depth + (b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0") * depth


@pytest.mark.parametrize("depth", [1, 60, 65, 40_000])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGLosslessSV1], ids=lambda known: known.keyword)
def test_sequences_in_sequences(tmp_path, depth, syntax):
    """40,000 overflow the stack of GDCM, and that of a host which has allowed Python as deep a recursion."""
    folder = make.save_series(tmp_path / "series", make.encoded(make.dicom_slices(HU), syntax))
    path = folder / "001.dcm"
    data = path.read_bytes()
    at = data.index(b"\x10\x00\x20\x00LO")  # PatientID
    path.write_bytes(data[:at] + nested(depth) + data[at:])
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        if depth <= 60:
            np.testing.assert_array_equal(read_ct(folder).hu, HU)
        else:
            refused(folder, "ct-truncated")
    finally:
        sys.setrecursionlimit(limit)


def test_headers_of_too_many_elements_together(tmp_path, monkeypatch):
    folder = make.save_series(tmp_path / "series", make.dicom_slices(HU))
    monkeypatch.setattr(bounds, "MAX_READS", 5000)
    read_ct(folder)
    path = folder / "001.dcm"
    data = path.read_bytes()
    at = data.index(b"\x10\x00\x20\x00LO")
    more = b"".join(struct.pack("<2H2sH", 0x0009, 0x1000 + number, b"LO", 0) for number in range(5000))
    path.write_bytes(data[:at] + more + data[at:])
    with pytest.raises(CTError, match="too many elements") as caught:
        read_ct(folder)
    assert caught.value.code == "ct-too-many-elements"


def test_a_deflated_bomb_is_not_inflated(tmp_path):
    """600 kB that hold 600 MB behind the pixels."""
    items = make.encoded(make.dicom_slices(HU), uid.DeflatedExplicitVRLittleEndian)
    items[1].DataSetTrailingPadding = bytes(2**26)
    folder = make.save_series(tmp_path / "series", items)
    assert (folder / "001.dcm").stat().st_size < 2**17
    started = time.process_time()
    refused(folder, "ct-damaged", "its end is not the end of the file")
    assert time.process_time() - started < 10


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors")
def test_refusals_leave_no_process_and_no_open_file(tmp_path, monkeypatch):
    folder = holding(tmp_path / "series", uid.JPEGLosslessSV1, stream_of(uid.JPEGLosslessSV1)[:900] + b"\xff\xd9")
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *line, **how: started.append(popen(*line, **how)) or started[-1])
    before = list(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        refused(folder, "ct-damaged")
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
    assert len(started) == 3
    assert None not in [process.returncode for process in started]
