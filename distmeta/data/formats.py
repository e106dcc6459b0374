"""Files that are no text, by their first bytes: named for what they are, whatever their ending says."""

from __future__ import annotations

from distmeta.errors import DataError

TABLE = "save its table as CSV"
# What a file begins with, what it is then, and what to do.
FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a parquet file", "give it the ending .parquet"),
    (b"ARROW1", "an Arrow file", "give it the ending .arrow"),
    (b"\x1f\x8b", "compressed by gzip", "add .gz to its name"),
    (b"BZh", "compressed by bzip2", "add .bz2 to its name"),
    (b"\xfd7zXZ\0", "compressed by xz", "add .xz to its name"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "add .zst to its name"),
    (b"PK\x03\x04", "a workbook of Excel or a zip archive", f"{TABLE}, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel", TABLE),
    (b"%PDF", "a PDF", TABLE),
    (b"SQLite format 3\0", "a database of SQLite", TABLE),
    (b"\x93NUMPY", "an array of NumPy", TABLE),
    (b"\x80\x04\x95", "a pickle", TABLE),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file", "run `git lfs pull`"),
    (b"<!doctype html", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"<?xml", "XML", TABLE),
    (b"{\\rtf", "a document of Word", TABLE),
)


def refuse_other_formats(head: bytes, where: str) -> None:
    """Checks that the first bytes of a text are not those of another format.

    Raises:
        DataError: with the name of the format.
    """
    lowered = head.lstrip()[:32].lower()
    for mark, name, remedy in FORMATS:
        if head.startswith(mark) or (mark.startswith(b"<") and lowered.startswith(mark)):
            raise DataError(where, f"its content is {name}", remedy)
    if head and not head.strip(b"\0"):
        raise DataError(where, "its content is NUL bytes", "copy or download it again")
