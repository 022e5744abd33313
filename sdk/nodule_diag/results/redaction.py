"""Removes from texts what may identify the patient: paths, file names, UIDs and everything in quotes.

This is for documents and messages to readers who must not know the patient. The texts keep their meaning: a warning
still says that a slice is missing, and where.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

REDACTED = "[redacted]"
MAX_NAMES = 100_000
"""The most names that are read below a folder or in a zip; a series has hundreds."""
LEAST_NAME, LEAST_NUMBER = 3, 5
"""Shorter names stay: they identify nobody, and occur in ordinary words. Shorter numbers are counts and sizes."""
_EXTENSIONS = "dcm|ima|dic|nii|gz|mha|mhd|raw|zraw|nrrd|nhdr|zip|hdr|img|csv|json|fcsv|sqlite|onnx"
_UID = r"(?<![\w.])[0-2](?:\.\d+){4,}(?!\.*\w)"  # a version has up to four numbers
_QUOTED = r"(?<!\w)'[^']*'(?!\w)|(?<!\w)\"[^\"]*\"(?!\w)"
_PATH = r"(?<![\w.])(?:[A-Za-z]:\\|~?/)[^\s,;:'\"()]+"
_FILE = rf"[^\s'\"()]*\.(?:{_EXTENSIONS})\b"
_WORD = r"(?<![^\s'\"()])"  # a file is sought once a word: from each of its characters, a long word takes seconds
_ALWAYS = re.compile(
    rf"{_WORD}(?:{_UID}|{_PATH})(?:{_FILE})?|{_UID}|{_QUOTED}|{_PATH}|{_WORD}{_FILE}",
    re.IGNORECASE,
)


class Redaction:
    """Removes names from texts.

    Args:
        named: Files and folders. Their names, and the names of everything in them, are removed.
        words: Other names, which are no files or folders.
    """

    def __init__(self, *named: str | os.PathLike[str], words: Iterable[str] = ()) -> None:
        self._named = tuple(str(name) for name in named if str(name))
        self._words = tuple(words)

    def text(self, text: str) -> str:
        """The text with ``[redacted]`` in the place of every name."""
        for name in sorted((name for name in self._known if name in text), key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", REDACTED, text)
        return _ALWAYS.sub(REDACTED, text)

    @cached_property
    def _known(self) -> frozenset[str]:
        """Every name that is long enough to say something."""
        below = (name for given in self._named for name in islice(_names(given), MAX_NAMES))
        names = chain(self._words, below)
        return frozenset(name for name in names if len(name) >= (LEAST_NUMBER if name.isdecimal() else LEAST_NAME))


def _names(given: str) -> Iterator[str]:
    """The names that a message may use for a file or folder, and the names of everything in it."""
    path = Path(given)
    yield from (given, str(path), path.name, path.name.partition(".")[0])
    try:
        yield from (str(path.absolute()), str(path.resolve()))
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                yield from (name, str(Path(folder, name)), str(Path(folder, name).relative_to(path)))
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    yield from (member, member.rpartition("/")[2])
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, NotImplementedError):
        return  # a damaged zip gives no names; the fixed patterns still apply
