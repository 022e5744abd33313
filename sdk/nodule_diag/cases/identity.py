"""Columns that identify patients, which a case base must not hold unless the user insists; and keyed pseudonyms.

A column is recognised by its name or by its values. A column that looks harmless may still identify a patient: only
common mistakes in such tables are found.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from nodule_diag.errors import OutputError, UsageError

MIN_KEY_BYTES: Final = 16
PSEUDONYM_DIGITS: Final = 32
"""Hexadecimal digits of a pseudonym: 128 bits, which no two patients share."""

_NAMED = re.compile(
    r"(?:full|patients?|first|given|fore|middle|last|sur|family|maiden|nick)?names?|(?:vor|nach|familien|geburts)name"
    r"|nom|prenom|nombre|apellido|initials|dateofbirth|dob|geb(?:urts)?(?:datum|dat|tag)"
    r"|mrn|medicalrecordnumber|(?:patient|pat|hospital|insurance|nhs|accession|socialsecurity)(?:id|no|number)"
    r"|pid|ssn|(?:patienten|fall|versicherten)nummer|accession|address|adresse|street|strasse|phone|telephone|telefon"
    r"|mobile|email|zip|zipcode|postcode|plz|(?:study|series|sop)(?:instance)?uid|(?:study|scan|visit)date"
)
"""The whole name of a column, letters only."""
_WORDS = {
    "surname",
    "firstname",
    "lastname",
    "forename",
    "birth",
    "birthdate",
    "birthday",
    "dob",
    "mrn",
    "ssn",
    "email",
}
"""Any word of it."""
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_LOOKS: Final = {
    "a date": re.compile(
        rf"(?<!\d){_YEAR}([-./]){_MONTH}\1{_DAY}(?!\d)"
        rf"|(?<!\d)(?:{_DAY}([-./]){_MONTH}\2|{_MONTH}/{_DAY}/){_YEAR}(?!\d)"
        rf"|(?<![0-9A-Fa-f]){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![0-9A-Fa-f])"
    ),
    "a UID": re.compile(r"(?<![\w.])[0-2](?:\.\d+){5,}"),
    "an e-mail address": re.compile(r"[^\s@]+@[^\s@]+\.\w"),
    "a name": re.compile(r"[^\W\d_]\^+[^\W\d_]"),  # as DICOM writes it
    "a patient number": re.compile(r"\A(?:\d[ ./-]?){5,}\d\Z|\A[A-Z]\d{9}\Z"),
}
_NAME_ALONE = re.compile(r"(?=.{3})[^\W\d_]+(?:[ ,.'-]+[^\W\d_]+)*\.?")
"""Words without a digit, where a key belongs; taken for a name if the first letter is a capital."""


def identity_in_name(column: str) -> bool:
    """Whether a column's name suggests that it holds a name, a birth date, a patient number or the like."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column))
    folded = [word.casefold() for word in words]
    return bool(_NAMED.fullmatch("".join(folded))) or not _WORDS.isdisjoint(folded)


def identity_in_value(value: object, *, is_key: bool = False) -> str:
    """The kind of identity that a value looks like: "a date", "a name"; empty for none.

    Args:
        value: A cell.
        is_key: Whether the value is the key of a case or patient, which cannot be a plain word.
    """
    text = str(value) if isinstance(value, str | int) else ""
    for look, pattern in _LOOKS.items():
        if pattern.search(text):
            return look
    return "a name" if is_key and _NAME_ALONE.fullmatch(text) and text[0].isupper() else ""


def identity_faults(column: str, cells: Iterable[tuple[str, object]], *, is_key: bool = False) -> list[str]:
    """Why a column must not be taken over, in one line at most, without any value.

    Args:
        column: The column's name in the table.
        cells: Where each cell stands, and its value.
        is_key: As for :func:`identity_in_value`.
    """
    if not is_key and identity_in_name(column):
        return [f"column {column!r} is called like something that tells whose a case is"]
    found = [(where, look) for where, value in cells if (look := identity_in_value(value, is_key=is_key))]
    if not found:
        return []
    where, look = found[0]
    more = f", and {len(found) - 1} more of its cells tell whose they are" if len(found) > 1 else ""
    return [f"{where}: {column!r} looks like {look}{more}"]


def read_patient_key(path: Path) -> bytes:
    """Read the secret that :func:`pseudonym` needs, or make a new one where there is no file.

    Raises:
        OutputError: When the secret cannot be made.
        UsageError: When the secret cannot be read or is too short.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"the key {path} cannot be made: {why}", hint="name another file") from error
    else:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(32).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"the key {path} cannot be read: {error.strerror}", hint="check the path") from error
    if len(key) < MIN_KEY_BYTES:
        raise UsageError(
            f"the key {path} has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed",
            hint="name a file that does not exist yet: a key is made and written there",
        )
    return key


def pseudonym(patient: str, key: bytes) -> str:
    """A patient's pseudonym: the first 128 bits of HMAC-SHA256, in hexadecimal. Without the key nobody can guess it."""
    return hmac.new(key, patient.encode(), "sha256").hexdigest()[:PSEUDONYM_DIGITS]
