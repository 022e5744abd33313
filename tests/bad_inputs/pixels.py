"""DICOM slices whose pixels must be refused."""

import struct

from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

import ct_files as make
from bad_inputs.case import case
from bad_inputs.dicom import slices

HU = make.chest_hu((12, 40, 48))
"""OpenJPEG's encoder needs 32 pixels a side."""


def _with_frame(folder, syntax, change, **options):
    """Slices in some syntax, one with a changed frame."""
    items = make.encoded(make.dicom_slices(HU), syntax)
    items[4].PixelData = encapsulate([change(next(generate_frames(items[4].PixelData, number_of_frames=1)))], **options)
    return make.save_series(folder / "series", items)


@case("DICOM slice with more pixels than its header says", "ct-damaged", "004.dcm", "1,792 bytes", "1,992")
def dicom_long_pixels(folder):
    def lengthen(items):
        items[4].PixelData += b"\1" * 200
        return items

    return slices(folder, lengthen)


@case("DICOM slice whose pixels have moved", "ct-damaged", "004.dcm", "no element")
def dicom_moved_pixels(folder):
    series = slices(folder)
    data = (series / "004.dcm").read_bytes()
    (series / "004.dcm").write_bytes(data[:-900] + data[-940:])
    return series


@case("RLE slice without a segment", "ct-damaged", "004.dcm", "0 run length segments")
def rle_no_segments(folder):
    return _with_frame(folder, RLELossless, lambda frame: bytes(4) + frame[4:])


@case("RLE slice with a damaged run", "ct-damaged", "004.dcm", "less or more")
def rle_damaged(folder):
    return _with_frame(folder, RLELossless, lambda frame: frame[:64] + b"\x7f" + frame[65:])


@case("JPEG slice with lost bytes", "ct-damaged", "004.dcm", "Corrupt JPEG data")
def jpeg_lost_bytes(folder):
    return _with_frame(folder, JPEGLosslessSV1, lambda frame: frame[:900] + frame[1000:])


@case("JPEG slice of another size than its header says", "ct-damaged", "004.dcm", "48 x 40", "48 x 60000")
def jpeg_other_size(folder):
    def enlarge(frame):
        at = frame.index(b"\xff\xc3") + 5
        return frame[:at] + struct.pack(">H", 60000) + frame[at + 2 :]

    return _with_frame(folder, JPEGLosslessSV1, enlarge)


@case("JPEG-LS slice with damaged data", "ct-damaged", "004.dcm", "cannot be decoded")
def jpeg_ls_damaged(folder):
    return _with_frame(folder, JPEGLSLossless, lambda frame: frame[:500] + bytes(40) + frame[540:])


@case("JPEG 2000 slice that is cut off", "ct-damaged", "004.dcm", "cut off")
def jpeg_2000_cut(folder):
    return _with_frame(folder, JPEG2000Lossless, lambda frame: frame[:-300])


@case("JPEG 2000 slice of 1,920 tiles that are not there (4 GB in the decoder)", "ct-damaged", "004.dcm", "not whole")
def jpeg_2000_bomb(folder):
    return _with_frame(folder, JPEG2000Lossless, lambda frame: frame[:24] + struct.pack(">2L", 1, 1) + frame[32:])


@case("compressed slice whose table of offsets is of two frames", "ct-damaged", "004.dcm", "2 frames")
def offset_table(folder):
    series = _with_frame(folder, JPEGLSLossless, lambda frame: frame)
    path = series / "004.dcm"
    head, item, rest = path.read_bytes().partition(b"\xfe\xff\x00\xe0")
    length = int.from_bytes(rest[:4], "little")
    path.write_bytes(head + item + struct.pack("<3L", 8, 0, 40) + rest[4 + length :])
    return series


@case("DICOM slice in a transfer syntax of video", "ct-transfer-syntax", "000.dcm", "MPEG-4 AVC/H.264")
def video(folder):
    items = make.encoded(make.dicom_slices(HU), JPEGLSLossless)
    for item in items:
        item.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    return make.save_series(folder / "series", items)


@case("DICOM slice with 40,000 sequences in each other", "ct-truncated", "004.dcm")
def nested_sequences(folder):
    series = slices(folder)
    path = series / "004.dcm"
    data = path.read_bytes()
    at = data.index(b"\x10\x00\x20\x00LO")  # PatientID
    start, end = b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0"
    path.write_bytes(data[:at] + start * 40_000 + (end + b"\xfe\xff\xdd\xe0\0\0\0\0") * 40_000 + data[at:])
    return series
