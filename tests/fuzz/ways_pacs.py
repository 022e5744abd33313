"""Ways to damage what a DICOMweb server answers: its status, its headers, its JSON, and the parts of its messages."""

from __future__ import annotations

from random import Random

from fuzz import damage, elements
from fuzz.seed import Files, Seed
from fuzz.ways_json import edited

STATUSES = (b"204 No Content", b"206 Partial", b"301 Moved", b"400 Bad", b"404 Not Found", b"409 Conflict")
STATUSES += (b"500 Error", b"503 Busy", b"507 Full", b"99 Odd", b"202 Accepted")
KINDS = (b"text/html", b"application/json", b"application/dicom+xml", b"application/dicom", b"multipart/related")
KINDS += (b'multipart/related; boundary=""', b"multipart/related; boundary=-", b"", b"application/dicom+json;;")
HEADERS = (b"Content-Encoding: gzip", b"Content-Encoding: deflate", b"Transfer-Encoding: chunked", b"Content-Length: 3")
HEADERS += (b"Location: http://127.0.0.1:9/else", b"Warning: 299 more", b"Content-Type: text/plain")
HEADERS += (b"X: " + b"a" * 70_000,)
PART = b"\r\n\r\n"


def answer(rng: Random, seed: Seed, others: list[bytes]) -> Files:
    """An answer that a server could give, and should not."""
    name = rng.choice(sorted(seed.files))
    head, _, body = seed.files[name].partition(b"\n\n")
    status, _, headers = head.partition(b"\n")
    kind = rng.randrange(8)
    if kind == 0:
        status = rng.choice(STATUSES)
    elif kind == 1:
        headers = b"Content-Type: " + rng.choice(KINDS)
    elif kind == 2:
        headers += b"\n" + rng.choice(HEADERS)
    elif kind == 3:
        headers = damage.damaged_text(rng, headers)
    elif body[:1] in b"[{":
        body = edited(rng, body)
    else:
        body = _parts(rng, body, others)
    return {**seed.files, name: status + b"\n" + headers + b"\n\n" + body}


def _parts(rng: Random, body: bytes, others: list[bytes]) -> bytes:
    """A part goes, comes twice, is exchanged with another, is cut off, or is another object."""
    mark = body.partition(b"\r\n")[0]
    pieces = body.split(mark)
    at = rng.randrange(1, len(pieces) - 1)
    to = rng.randrange(1, len(pieces) - 1)
    kind = rng.randrange(7)
    if kind == 0:
        del pieces[at]
    elif kind == 1:
        pieces.insert(to, pieces[at])
    elif kind == 2:
        pieces[at], pieces[to] = pieces[to], pieces[at]
    elif kind == 3:
        return body[: rng.randrange(len(body))]
    elif kind == 4:
        pieces[at] = damage.damaged(rng, pieces[at][:60]) + pieces[at][60:]
    else:
        head, sign, part = pieces[at].partition(PART)
        new = elements.edited(rng, part) if kind == 5 else damage.damaged(rng, part, head=800, others=others)
        pieces[at] = head + sign + new
    return mark.join(pieces)
