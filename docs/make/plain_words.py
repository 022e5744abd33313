"""How long the sentences of a page are.

``python docs/make/plain_words.py [PAGE ...]`` prints, for each page of ``docs/`` and for the README, the number of its
sentences, their median and longest length in words, and with ``--longest N`` the N longest sentences themselves.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LEFT_OUT = ("#", "|", "!", "    ")  # headings, tables, pictures, indented code
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
SENTENCE_END = re.compile(r"(?<!\be\.g\.)(?<!\beq\.)(?<!\bal\.)(?<=[.!?])[)*_\"]*\s+(?=[\"`*_(\[A-Z0-9])")
ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")


def paragraphs(markdown: str) -> list[str]:
    """The running text of a page: paragraphs and list items, without code, tables, headings and pictures."""
    text = COMMENT.sub("", FENCE.sub("", markdown))
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if not line.strip() or line.startswith(LEFT_OUT):
            found.append([])
        elif ITEM.match(line):
            found.append([ITEM.sub("", line)])
        else:
            found[-1].append(line.strip())
    return [" ".join(lines) for lines in found if lines]


def sentences(markdown: str) -> list[str]:
    """The sentences of a page, in order; a list item without a full stop counts as one."""
    split = (sentence for paragraph in paragraphs(markdown) for sentence in SENTENCE_END.split(paragraph))
    return [LINK.sub(r"\1", sentence) for sentence in split if sentence.strip()]


def words(sentence: str) -> int:
    """How many words a reader meets; a stretch of code is one."""
    return len(re.sub(r"`[^`]*`", "code", sentence).split())


def median_words(markdown: str) -> float:
    """The median length of a page's sentences, in words; 0 for a page without any."""
    return statistics.median([words(sentence) for sentence in sentences(markdown)] or [0])


def main() -> None:
    """Print a line a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--longest", type=int, default=0, metavar="N")
    options = parser.parse_args()
    pages = options.pages or [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
    for page in pages:
        found = sentences(page.read_text(encoding="utf-8"))
        lengths = [words(sentence) for sentence in found]
        sys.stdout.write(
            f"{page.name:24} {len(found):4} sentences, median {statistics.median(lengths or [0]):4.1f} words,"
            f" longest {max(lengths or [0])}\n"
        )
        for sentence in sorted(found, key=words, reverse=True)[: options.longest]:
            sys.stdout.write(f"    {words(sentence):3} {sentence}\n")


if __name__ == "__main__":
    main()
