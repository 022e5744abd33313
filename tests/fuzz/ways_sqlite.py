"""Ways to damage a case base: its pages, and what SQLite itself lets anyone write into them."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from random import Random

from fuzz import damage
from fuzz.seed import Files, Seed

PAGE_BYTES = 4096


def pages(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """Pages of the database are zeroed, exchanged, or a big-endian number of the header or of a page's head changes."""
    data = bytearray(seed.files[seed.entry])
    pages = len(data) // PAGE_BYTES
    a, b = (rng.randrange(pages) * PAGE_BYTES for _ in range(2))
    kind = rng.randrange(4)
    if kind == 0:
        data[a : a + PAGE_BYTES] = bytes(PAGE_BYTES)
    elif kind == 1:
        data[a : a + PAGE_BYTES], data[b : b + PAGE_BYTES] = data[b : b + PAGE_BYTES], data[a : a + PAGE_BYTES]
    else:
        at = rng.randrange(16, 96, 4) if kind == 2 else a + (100 if a == 0 else 0) + rng.randrange(0, 60)
        size = rng.choice((1, 2, 4))
        data[at : at + size] = (rng.choice(damage.BOUNDARIES) % 2 ** (8 * size)).to_bytes(size, "big")
    return {seed.entry: bytes(data)}


def sql(rng: Random, seed: Seed, _: list[bytes]) -> Files:
    """A value that no constraint allows, or a change of the schema, in a database that is whole."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cases.sqlite")
        path.write_bytes(seed.files[seed.entry])
        base = sqlite3.connect(path, isolation_level=None)
        try:
            base.execute("PRAGMA ignore_check_constraints = ON")
            table = rng.choice(("base", "cases", "cases", "cases", "reader_scores"))
            columns = [row[1] for row in base.execute(f"PRAGMA table_info({table})")]
            value = rng.choice((None, "", "x" * 300, b"\xff", -1, 2, 0.5, 2**62, 1e308, float("inf"), "0", "\x1b[31m"))
            where = f" WHERE case_id = 'case-{rng.randrange(12):04}'" if table != "base" else ""
            base.execute(f"UPDATE OR IGNORE {table} SET {rng.choice(columns)} = ?{where}", (value,))
            if rng.random() < 0.3:
                base.execute(rng.choice(_SCHEMAS))
        except sqlite3.Error:
            base.execute(f"PRAGMA user_version = {rng.randrange(2**16)}")
        finally:
            base.close()
        return {seed.entry: path.read_bytes()}


_SCHEMAS = (
    "CREATE VIEW more AS SELECT * FROM cases",
    "CREATE TRIGGER t AFTER INSERT ON cases BEGIN DELETE FROM cases; END",
    "CREATE TABLE more (x)",
    "DROP TABLE pictures",
    "DELETE FROM cases",
    "DELETE FROM base",
    "PRAGMA user_version = 2",
    "PRAGMA application_id = 7",
)
