"""Decoders that do what damaged slices make real ones do, for tests/sdk/ct/dicom/test_damaged_pixels.py."""

import ctypes
import os
import signal

from nodule_diag.ct.dicom.decoding import REQUEST


def _size(request: bytes) -> int:
    _, rows, columns, bits, _ = REQUEST.unpack_from(request)
    return rows * columns * (1 if bits <= 8 else 2)


def crashing():
    return lambda _: ctypes.string_at(0)


def dividing():
    return lambda _: os.kill(os.getpid(), signal.SIGFPE)


def leaving():
    return lambda _: os._exit(7)


def endless():
    def decode(_: bytes) -> bytes:
        while True:
            pass

    return decode


def greedy():
    return lambda _: bytearray(2**32)


def short():
    return lambda request: bytes(_size(request) - 2)


def long():
    return lambda request: bytes(_size(request) + 2**20)


def talking():
    def decode(request: bytes) -> bytes:
        os.write(2, b"a warning\n")
        return bytes(_size(request))

    return decode
