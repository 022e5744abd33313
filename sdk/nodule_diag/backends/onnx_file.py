"""Checks the content of a network's ONNX file before any runtime reads the file.

A file from outside can make a runtime do more than arithmetic. Tensors may lie in other files: OpenVINO opens any path
that a tensor names, and ONNX Runtime has a name that means an address in memory. Loops may never end, functions may
call themselves, and operators of other domains open files. This package's networks are a list of standard operators
over weights in the same file. Everything else is refused here, by walking the file's protobuf without an ONNX library.
Every backend loads its networks through this check.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from nodule_diag.bundle import Bundle
from nodule_diag.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES = 10
_MAX_TAG = 2**32
"""Runtimes read a field's number and type in 32 bits and drop higher bits, so higher bits are refused."""
MAX_FIELDS: Final = 500_000
"""The most fields that are checked, in half a second. The packaged network has 3,000."""
MAX_NODES: Final = 20_000
"""Runtimes walk a graph by recursion in places; the largest packaged graph has 512 nodes."""

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR = "ModelProto", "GraphProto", "NodeProto", "AttributeProto", "TensorProto"
FOLLOWED = MappingProxyType(
    {
        MODEL: {7: GRAPH},
        GRAPH: {1: NODE, 5: TENSOR},
        NODE: {5: ATTRIBUTE},
        ATTRIBUTE: {5: TENSOR, 10: TENSOR},
        TENSOR: {},
    }
)
"""By message of onnx.proto: the fields that are followed, and the message in each."""
REFUSED = MappingProxyType(
    {
        MODEL: {20: "training steps", 25: "functions of its own"},
        GRAPH: {15: "sparse weights"},
        NODE: {},
        ATTRIBUTE: {
            6: "a loop or a branch",
            11: "loops or branches",
            14: "types as values",
            15: "types as values",
            22: "sparse values",
            23: "sparse values",
        },
        TENSOR: {},
    }
)
"""Fields that a network of this package never has, in words."""
NODE_DOMAIN: Final = 7
STANDARD_DOMAINS: Final = (b"", b"ai.onnx")
"""Domains whose operators only compute on tensors."""
GIVEN: Final = b"given"
"""Location of weights that the winograd backend passes by name."""
TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14
"""Fields of a tensor: its name, the place of its data, and whether (1) its data are outside the file."""
ENTRY_KEY, ENTRY_VALUE = 1, 2
"""Fields of an entry of ``external_data``."""
MAX_ENTRY_BYTES: Final = 4096
MAX_DIGITS: Final = 19
"""Digits of an offset or a length in 64 bits."""


def read_network(bundle: Bundle, file: str, *, beside: Collection[str] = (), given: Collection[str] = ()) -> bytes:
    """The checked bytes of a network of a bundle; every backend reads its networks with this function.

    Args:
        bundle: A checked bundle.
        file: The network's name in the bundle.
        beside: Other files of the bundle that may hold weights.
        given: Names of weights that the backend itself passes.

    Raises:
        BundleError: As :func:`require_plain_network`.
    """
    model = bundle.read(file)
    sizes = {name: len(bundle.read(name)) for name in beside}
    require_plain_network(model, file=file, beside=sizes, given=given)
    return model


def require_plain_network(
    model: bytes, *, file: str, beside: Mapping[str, int] = MappingProxyType({}), given: Collection[str] = ()
) -> None:
    """Check that an ONNX file is a plain list of standard operators, and carries its weights.

    Args:
        model: The file's bytes.
        file: Its name, for the error.
        beside: Checked files that may hold weights, with their sizes in bytes.
        given: Names of weights that the backend passes; their location is :data:`GIVEN`.

    Raises:
        BundleError: ``bundle-model-unreadable`` for content that this package's networks never have, and when the file
            is not a protobuf.
    """
    waiting = [(MODEL, memoryview(model))]
    looked_at = nodes = 0
    while waiting:
        message, data = waiting.pop()
        nodes += message == NODE
        outside, entries, name = False, [], b""
        for number, wire, value in _fields(data, file):
            looked_at += 1
            if looked_at > MAX_FIELDS or nodes > MAX_NODES:
                raise _refused(file, f"more than {MAX_FIELDS} fields or {MAX_NODES} nodes")
            if number in REFUSED[message]:
                raise _refused(file, REFUSED[message][number])
            if message == NODE and number == NODE_DOMAIN and bytes(_text(value)) not in STANDARD_DOMAINS:
                raise _refused(file, f"an operator of {bytes(_text(value)[:60])!r}, which is not a standard one")
            if message == TENSOR and number == DATA_LOCATION:
                outside |= value != 0
            elif message == TENSOR and number == EXTERNAL_DATA:
                entries.append(_text(value))
            elif message == TENSOR and number == TENSOR_NAME:
                name = bytes(_text(value))
            elif wire == BYTES and number in FOLLOWED[message]:
                waiting.append((FOLLOWED[message][number], _text(value)))
        if outside or entries:
            place = _place(entries, file)
            if place != {b"location": GIVEN} or name.decode(errors="replace") not in given:
                _require_inside(place, beside, file)


def _place(entries: Sequence[memoryview], file: str) -> dict[bytes, bytes]:
    """The entries of a tensor's external data: ``location``, ``offset``, ``length``; empty when a key is repeated."""
    said: dict[bytes, bytes] = {}
    for entry in entries:
        pair = {number: bytes(_text(value)) for number, _, value in _fields(entry[:MAX_ENTRY_BYTES], file)}
        said[pair.get(ENTRY_KEY, b"")] = pair.get(ENTRY_VALUE, b"")
    return said if len(said) == len(entries) else {}


def _require_inside(place: Mapping[bytes, bytes], beside: Mapping[str, int], file: str) -> None:
    """Check that a tensor's data lie in a file of ``beside``."""
    size = beside.get(place.get(b"location", b"").decode(errors="replace"))
    numbers = [place.get(key, b"") for key in (b"offset", b"length")]
    if size is None or not all(number.isdigit() and len(number) < MAX_DIGITS for number in numbers):
        raise _refused(file, "weights in other files, where no hash of the bundle guards them")
    if sum(map(int, numbers)) > size:
        raise _refused(file, "weights behind the end of the file that they are said to lie in")


def _text(value: int | memoryview) -> memoryview:
    """The bytes of a field; empty for a wrong wire type, because runtimes skip the field."""
    return value if isinstance(value, memoryview) else memoryview(b"")


def _fields(data: memoryview, file: str) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of every field of a message; the value of a fixed-size field is its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at, file)
        number, wire = key >> 3, key & 7
        if key >= _MAX_TAG or number == 0:
            raise _malformed(file)
        if wire == VARINT:
            value, at = _varint(data, at, file)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, at = _varint(data, at, file)
        elif wire in _FIXED_SIZE:
            size = _FIXED_SIZE[wire]
        else:
            raise _malformed(file)
        if at + size > len(data):
            raise _malformed(file)
        yield number, wire, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int, file: str) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _malformed(file)


def _refused(file: str, what: str) -> BundleError:
    return BundleError(
        f"{file} in the bundle is refused: it holds {what}",
        hint="take the bundle from where it was made; networks of nodule-diag export hold nothing of the kind",
        code="bundle-model-unreadable",
    )


def _malformed(file: str) -> BundleError:
    return BundleError(
        f"{file} in the bundle is not an ONNX file: its protobuf is damaged",
        hint="take the bundle from where it was made",
        code="bundle-model-unreadable",
    )
