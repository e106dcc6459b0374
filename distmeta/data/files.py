"""Raw columns of the files that people have. Errors name the file and the row."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from distmeta.data.arrow import read_arrow, read_parquet
from distmeta.data.columns import Block, Columns
from distmeta.data.delimited import read_delimited
from distmeta.data.formats import refuse_other_formats
from distmeta.data.json_records import read_json
from distmeta.data.remote import RemoteFile, find_remote
from distmeta.errors import DataError

ABOUT = ("dataset_info.json", "dataset_dict.json", "state.json")  # beside the tables that `datasets` saves
HEAD = 4096  # bytes that tell the encoding
MOST = 100_000  # files that are looked at below a folder
MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def find_files(path: Path) -> list[Path]:
    """The file itself, or the data files of a folder, sorted by name.

    A folder that has none itself has those of its subfolders. JSON files beside files of another kind are no data:
    they may list splits, or describe the data.

    Raises:
        DataError: the path does not exist, has no file of a known kind, or has files of several kinds.
    """
    try:
        if not path.exists():
            raise DataError(str(path), _broken_link(path) or "no such file or folder", "check data.path")
        if path.is_dir():
            return _files_of(path)
    except OSError as error:
        remedy = "check data.path and its permissions"
        raise DataError(str(path), f"cannot be read ({error.strerror})", remedy) from error
    if not _is_stream(path):
        _require_kind(path, str(path))
    return [path]


def _require_kind(path: Path, where: str) -> None:
    if _kind(path)[0] not in KINDS:
        found = f"{''.join(path.suffixes[-2:]) or 'no ending'!r} is no known kind of file"
        raise DataError(where, found, f"save it as {_LISTED}, and name it so")


def _files_of(folder: Path) -> list[Path]:
    return _of_one_kind(_data_files(folder.iterdir()) or _data_files(_below(folder)), str(folder))


def _below(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is not hidden.

    Raises:
        DataError: it is too much to be a folder of data, such as a whole disk.
    """
    for number, path in enumerate(folder.rglob("*")):
        if number == MOST:
            raise DataError(str(folder), f"over {MOST:,} files below, and none beside", "name the folder of the data")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _of_one_kind(files: list[Path], where: str) -> list[Path]:
    """The data files of a folder without JSON files that stand beside others.

    Raises:
        DataError: there are none, or of several kinds.
    """
    if any(_kind(file)[0] != ".json" for file in files):
        files = [file for file in files if _kind(file)[0] != ".json"]
    if not files:
        raise DataError(where, "no data files in this folder", f"put {_LISTED} files there")
    if len(kinds := sorted({_kind(file)[0] for file in files})) > 1:
        raise DataError(where, f"files of several kinds ({', '.join(kinds)})", "keep one kind or name one file")
    return files


def _data_files(paths: Iterable[Path]) -> list[Path]:
    """The files that are named as data."""
    known = sorted(path for path in paths if _is_named_as_data(path) and not path.is_dir())
    for path in known:
        if found := _broken_link(path):
            raise DataError(str(path), found, "restore it, or remove the link")
    return known


def _is_named_as_data(path: Path) -> bool:
    """Whether a file is of a known kind, not hidden, and nothing that `datasets` has computed."""
    is_cache = path.name.startswith("cache-") and path.suffix == ".arrow"
    return _kind(path)[0] in KINDS and not path.name.startswith((".", *ABOUT)) and not is_cache


def _broken_link(path: Path) -> str | None:
    return f"a link to {path.readlink()}, which does not exist" if path.is_symlink() and not path.exists() else None


def _is_stream(path: Path) -> bool:
    """Whether it is a pipe or a device, the standard input, or a file that another process has opened."""
    return not path.is_file() or path.parts[:2] in (("/", "dev"), ("/", "proc"))


def _kind(path: Path) -> tuple[str, str]:
    """The ending that tells a file's kind, and that of its compression, in small letters; empty if it has none."""
    *_, before, last = ["", "", *map(str.lower, path.suffixes)]
    return (before, last) if last in COMPRESSION else (last, "")


def read_remote(address: str, columns: Columns) -> Iterator[Block]:
    """The given columns of a file, or of the data files of a folder, at an address of fsspec.

    Raises:
        DataError: as in `find_files` and `read_file`; or nothing can be reached there.
    """
    files = find_remote(address)
    if len(files) == 1:
        _require_kind(files[0].path, address)
        chosen = [files[0].path]
    else:
        chosen = _of_one_kind(sorted(file.path for file in files if _is_named_as_data(file.path)), address)
    for file in files:
        if file.path in chosen:
            yield from read_file(file.path, columns, file)


def read_file(path: Path, columns: Columns, remote: RemoteFile | None = None) -> Iterator[Block]:
    """The given columns of one file, unchecked; of the remote one with this path if it is given.

    Raises:
        DataError: the file cannot be read or parsed, has no rows, or lacks a column.
    """
    where, is_empty = remote.where if remote else str(path), True
    try:
        with remote.open() if remote else path.open("rb") as raw:
            is_stream = remote is None and _is_stream(path)
            for block in read_stream(raw, columns, where) if is_stream else _read(raw, path, columns, where):
                is_empty = False
                yield block
    except UnicodeError as error:
        raise DataError(where, f"not valid {error.args[0]}", "save the file as UTF-8") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        found = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise DataError(where, found, "check the file and its permissions") from error
    if is_empty:
        raise DataError(where, "no rows", "give at least one labelled text")


def _read(raw: BinaryIO, path: Path, columns: Columns, where: str) -> Iterator[Block]:
    kind, compression = _kind(path)
    with COMPRESSION[compression](raw) if compression else raw as file:
        if reader := TABLES.get(kind):  # these jump to and fro in a file
            yield from reader(io.BytesIO(file.read()) if compression else file, columns, where)
        else:
            text, _ = _text(file, where)
            with text:
                yield from TEXTS[kind](text, columns, where)


def read_stream(raw: BinaryIO, columns: Columns, where: str) -> Iterator[Block]:
    """JSON if it begins like JSON, or else delimited text."""
    if raw.isatty():
        raise DataError(where, "a terminal", "name a file, or send its content through a pipe")
    file, head = _text(raw, where)
    with file:
        first = head.lstrip()[:1]
        if first and not first.isprintable():
            raise DataError(where, "neither JSON nor delimited text", f"save it as {_LISTED}, and name that file")
        remark = f"{where} can be read once: to resume or evaluate a run, give its data as a file"
        for block in (read_json if first in ("{", "[") else read_delimited)(file, columns, where):
            yield block._replace(remarks=(*block.remarks, remark))


def _text(file: BinaryIO, where: str) -> tuple[TextIO, str]:
    """The text of a file of UTF-8, or of UTF-16 or UTF-32 if its beginning says so; and that beginning.

    Bytes that are not UTF-8 become lone surrogates; the check of the values then names their line.

    Raises:
        DataError: its beginning is that of a format that is no text.
    """
    buffered = io.BufferedReader(cast(Any, file))
    head = buffered.peek(HEAD)[:HEAD]
    refuse_other_formats(head, where)
    encoding = _encoding(head)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    return io.TextIOWrapper(buffered, encoding, errors, newline=""), head.decode(encoding, "ignore")


def _encoding(head: bytes) -> str:
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return name
    line = head.split(b"\n", 1)[0]
    if b"\0" not in line:
        return "utf-8-sig"
    # Without a mark, the encoding with which the first line has most letters of ASCII, and no NUL.
    texts = {name: line.decode(name, "ignore") for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")}
    likely = {name: sum(map(str.isascii, text)) for name, text in texts.items() if "\0" not in text}
    best = max(likely, key=lambda name: likely[name], default="utf-8-sig")
    return best if likely.get(best) else "utf-8-sig"


def _zstandard(file: BinaryIO) -> BinaryIO:
    import pyarrow as pa

    return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))


Reader = Callable[[Any, Columns, str], Iterator[Block]]
TABLES: dict[str, Reader] = {".parquet": read_parquet, ".arrow": read_arrow, ".feather": read_arrow}
TEXTS: dict[str, Reader] = {
    ".csv": read_delimited,
    ".tsv": partial(read_delimited, usual="\t"),
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
}
COMPRESSION: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}
KINDS = [".parquet", *TEXTS, ".arrow", ".feather"]
_LISTED = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
