"""Files of data that cannot be used, each with the words of its one line."""

import bz2
import gzip
import io
import json
import lzma
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [(f"word{n} topic{n % 16} x{n}", f"c{n % 16}") for n in range(128)]
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
LINES = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)


def parquet(**columns: Any) -> bytes:
    table = pa.table({"text": TEXTS, "label": LABELS, **columns})
    pq.write_table(table, file := io.BytesIO())
    return file.getvalue()


def line(text: Any = "a", label: Any = "c0") -> str:
    """The lines of a good file, and one more."""
    return LINES + json.dumps({"text": text, "label": label}) + "\n"


GOOD = parquet()
FILES: dict[str, tuple[str | bytes, str]] = {
    # The name, the content, and the words of the line.
    "empty.csv": ("", "empty.csv: no rows; give a header and at least one labelled text"),
    "blank.csv": ("\n\n\n", "blank.csv: no rows"),
    "header.csv": ("text,label\n", "header.csv: no rows; give at least one labelled text"),
    "no_header.csv": (
        CSV.partition("\n")[2],
        "no column 'text' among 'word0 topic0 x0', 'c0'; set data.text to one of",
    ),
    "capitals.csv": (
        CSV.replace("text,label", "Text,Label"),
        "no column 'text' among 'Text', 'Label'; set data.text=T",
    ),
    "comment.csv": ("# made by hand\n" + CSV, "no column 'text' among '# made by hand'"),
    "twice.csv": ("text,label,label\na,b,c\n", "2 columns are called 'label'; rename all but one"),
    "caret.csv": (CSV.replace(",", "^"), "no column 'text' among 'text^label'"),
    "declared.csv": (
        "sep=^\n" + CSV.replace(",", "^"),
        "declared.csv line 1: columns separated by '^'; separate them by",
    ),
    "long_row.csv": (CSV + "a,b,c\n", "long_row.csv line 130: 3 values where the header has 2; quote values that hold"),
    "short_row.csv": (CSV + "a\n", "short_row.csv line 130: 1 values where the header has 2"),
    "blank_columns.csv": (CSV + "a,b,,c\n", "blank_columns.csv line 130: 4 values where the header has 2"),
    "cut.csv": (CSV[:-5], "cut.csv line 129: 1 values where the header has 2"),
    "quote.csv": (CSV + '"a" b,c\n', "quote.csv line 130: malformed CSV"),
    "open_quote.csv": (CSV + '"a,b\n', "open_quote.csv line 130: a quote that opens here is never closed"),
    "no_text.csv": (CSV + ",c0\n", "no_text.csv line 130: the text is empty; fill it in or remove the row"),
    "blank_text.csv": (CSV + " \t,c0\n", "blank_text.csv line 130: the text is empty"),
    "no_label.csv": (CSV + "a,\n", "no_label.csv line 130: the label is empty; fill it in or remove the row"),
    "semicolons.csv": ("a;b\n1;2\n", "no column 'text' among 'a', 'b'"),
    "latin1.csv": (CSV.encode() + "café,c0\n".encode("latin-1"), "latin1.csv line 130: the text is not UTF-8"),
    "cp1252.csv": (CSV.encode() + "“a”,c0\n".encode("cp1252"), "cp1252.csv line 130: the text is not UTF-8"),
    "gb18030.csv": (CSV.encode() + "你好,c0\n".encode("gb18030"), "gb18030.csv line 130: the text is not UTF-8"),
    "shift_jis.csv": (
        CSV.encode() + "今日は,c0\n".encode("shift_jis"),
        "shift_jis.csv line 130: the text is not UTF-8",
    ),
    "label.csv": (CSV.encode() + "a,café\n".encode("latin-1"), "label.csv line 130: the label is not UTF-8"),
    "ebcdic.csv": (CSV.encode("cp500"), "ebcdic.csv: its first line is not text of UTF-8; save it as CSV in UTF-8"),
    "utf16.csv": (CSV.encode("utf-16")[:-1], "utf16.csv: not valid utf-16"),
    "control.csv": ("te\x07xt,label\na,b\n", "control.csv: its first line is not text of UTF-8"),
    "nul.csv": (b"\0" * 99, "nul.csv: its content is NUL bytes; copy or download it again"),
    "one_class.csv": ("text,label\n" + "".join(f"t{n},a\n" for n in range(30)), "use at least "),
    "ids.csv": (
        "text,label\n" + "".join(f"t{n},{n}\n" for n in range(30)),
        ": 1 examples, and episodes take 4 of each",
    ),
    "rare.csv": (CSV + "a,once\n", "class 'once' of "),
    "copies.csv": ("text,label\n" + "a,x\n" * 30, "use at least "),
    # Content of another kind.
    "parquet.csv": (GOOD, "parquet.csv: its content is a parquet file; give it the ending .parquet"),
    "arrow.csv": (b"ARROW1\0\0" + bytes(99), "its content is an Arrow file; give it the ending .arrow"),
    "gzip.csv": (gzip.compress(CSV.encode(), mtime=0), "its content is compressed by gzip; add .gz to its name"),
    "bzip2.jsonl": (bz2.compress(LINES.encode()), "its content is compressed by bzip2; add .bz2 to its name"),
    "xz.json": (lzma.compress(LINES.encode()), "its content is compressed by xz; add .xz to its name"),
    "zstd.csv": (b"\x28\xb5\x2f\xfd" + bytes(99), "its content is compressed by Zstandard; add .zst to its name"),
    "twice.csv.gz": (gzip.compress(gzip.compress(CSV.encode(), mtime=0), mtime=0), "its content is compressed by gzip"),
    "excel.csv": (
        b"PK\x03\x04" + bytes(99),
        "its content is a workbook of Excel or a zip archive; save its table as CSV",
    ),
    "old_excel.csv": (
        b"\xd0\xcf\x11\xe0" + bytes(99),
        "its content is a workbook of an old Excel; save its table as CSV",
    ),
    "pdf.csv": (b"%PDF-1.4\n", "its content is a PDF; save its table as CSV"),
    "sqlite.csv": (b"SQLite format 3\0", "its content is a database of SQLite; save its table as CSV"),
    "pickle.json": (b"\x80\x04\x95" + bytes(99), "its content is a pickle; save its table as CSV"),
    "numpy.csv": (b"\x93NUMPY", "its content is an array of NumPy; save its table as CSV"),
    "xml.csv": ("<?xml version='1.0'?>", "its content is XML; save its table as CSV"),
    "page.csv": (" <!DOCTYPE html><html>", "its content is a web page; download the file itself"),
    "page.jsonl": ("<html>", "its content is a web page; download the file itself"),
    "pointer.parquet.csv": (
        "version https://git-lfs.github.com/spec/v1\n",
        "a pointer of Git LFS, not the file; run `git",
    ),
    # Names.
    "data": (CSV, "data: 'no ending' is no known kind of file; save it as .parquet, .csv"),
    "data.txt": (CSV, "data.txt: '.txt' is no known kind of file; save it as .parquet, .csv"),
    "data.xlsx": (b"PK", "data.xlsx: '.xlsx' is no known kind of file"),
    "data.csv.zip": (b"PK", "data.csv.zip: '.csv.zip' is no known kind of file"),
    "data.tar.gz": (b"", "data.tar.gz: '.tar.gz' is no known kind of file"),
    "data.pkl": (b"", "data.pkl: '.pkl' is no known kind of file"),
    # Compression.
    "plain.csv.gz": (CSV, "plain.csv.gz: cannot be read (Not a gzipped file"),
    "plain.csv.xz": (CSV, "plain.csv.xz: cannot be read (Input format not supported"),
    "plain.csv.bz2": (CSV, "plain.csv.bz2: cannot be read (Invalid data stream"),
    "plain.csv.zst": (CSV, "plain.csv.zst: cannot be read"),
    "cut.csv.gz": (
        gzip.compress(CSV.encode(), mtime=0)[:-9],
        "cut.csv.gz: cannot be read (Compressed file ended before",
    ),
    "cut.csv.bz2": (bz2.compress(CSV.encode())[:-9], "cut.csv.bz2: cannot be read (Compressed file ended before"),
    "flip.csv.gz": (
        gzip.compress(CSV.encode(), mtime=0)[:-5] + b"x" * 5,
        "flip.csv.gz: cannot be read (CRC check failed",
    ),
    # JSON.
    "empty.jsonl": ("", "empty.jsonl: no rows"),
    "empty.json": ("[]", "empty.json: no rows"),
    "commas.jsonl": (LINES.replace("}\n", "},\n"), "commas.jsonl line 1: malformed JSON"),
    "quotes.jsonl": (LINES.replace('"', "'"), "quotes.jsonl line 1: malformed JSON"),
    "cut.jsonl": (LINES[:-9], "cut.jsonl line 128: malformed JSON"),
    "cut.json": (json.dumps([{"text": "a", "label": "b"}])[:-2], "cut.json line 1: malformed JSON"),
    "deep.jsonl": ("[" * 100_000, "deep.jsonl line 1: malformed JSON (nested too deeply)"),
    "list.jsonl": (LINES + '["a", "c0"]\n', "list.jsonl line 129: a JSON list, not an object; write lines such as"),
    "word.jsonl": (LINES + '"a"\n', "word.jsonl line 129: a JSON str, not an object"),
    "null.jsonl": (LINES + "null\n", "null.jsonl line 129: a JSON NoneType, not an object"),
    "key.jsonl": (LINES + '{"txt": "a", "label": "c0"}\n', "key.jsonl line 129: the text is empty"),
    "null_text.jsonl": (line(None), "null_text.jsonl line 129: the text is empty"),
    "null_label.jsonl": (line(label=None), "null_label.jsonl line 129: the label is empty"),
    "number_text.jsonl": (line(5), "number_text.jsonl line 129: the text is 5, a int; give a string"),
    "list_text.jsonl": (line(["a"]), "list_text.jsonl line 129: the text is ['a'], a list; give a string"),
    "object_text.jsonl": (
        line({"en": "a"}),
        "object_text.jsonl line 129: the text is an object with the keys ['en']; write each",
    ),
    "float_label.jsonl": (line(label=1.5), "line 129: the label is 1.5, a float; give a string or a whole number"),
    "true_label.jsonl": (line(label=True), "line 129: the label is True, a bool; give a string or a whole number"),
    "list_label.jsonl": (line(label=["c0"]), "line 129: the label is ['c0'], a list; give a string or a whole number"),
    "surrogate.jsonl": (line("\ud800"), "surrogate.jsonl line 129: the text is not UTF-8"),
    "digits.jsonl": (
        LINES + '{"text": "a", "label": ' + "9" * 5000 + "}",
        "digits.jsonl line 129: a number with too many",
    ),
    "columns.json": (
        json.dumps({"text": TEXTS, "label": LABELS}),
        "columns.json line 1: the text is ['word0 topic0 x0'",
    ),
    "by_label.json": (json.dumps({"a": ["x"], "b": ["y"]}), "a single JSON object, without data.text and data.label"),
    "pairs.json": (json.dumps(ROWS), "pairs.json item 1: a JSON list, not an object"),
    "comment.json": ("// data\n[]", "comment.json line 1: malformed JSON"),
    # Parquet and Arrow.
    "empty.parquet": (b"", "empty.parquet: not a readable parquet file"),
    "csv.parquet": (CSV, "csv.parquet: not a readable parquet file"),
    "cut.parquet": (GOOD[:-99], "cut.parquet: not a readable parquet file"),
    "csv.arrow": (CSV, "csv.arrow: not a readable Arrow file"),
    "null_label.parquet": (parquet(label=[*LABELS[:-1], None]), "null_label.parquet row 128: the label is empty"),
    "number_text.parquet": (
        parquet(text=list(range(128))),
        "number_text.parquet row 1: the text is 0, a int; give a st",
    ),
    "struct_text.parquet": (parquet(text=[{"a": text} for text in TEXTS]), "struct_text.parquet"),
    "bytes.parquet": (parquet(text=[b"\xff"] * 128), "bytes.parquet row 1: the text is not UTF-8"),
    "blank_bytes.parquet": (parquet(text=[b"\x1f"] * 128), "blank_bytes.parquet row 1: the text is empty"),
    "float_label.parquet": (parquet(label=[n % 16 + 0.5 for n in range(128)]), "row 1: the label is 0.5, a float"),
    "list_label.parquet": (parquet(label=[[label] for label in LABELS]), "row 1: the label is ['c0'], a list"),
    "date_label.parquet": (
        parquet(label=pa.array(range(128), pa.date32())),
        "row 1: the label is datetime.date(1970, 1",
    ),
}
