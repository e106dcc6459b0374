"""A corpus holds the tokens of the used classes, comes back from its file unchanged, and travels without copies."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from distmeta.config import DataConfig
from distmeta.data import corpus as module
from distmeta.data import tokens
from distmeta.data.corpus import Corpus, build_corpus
from distmeta.data.labelled import Source
from distmeta.data.sources import read_source
from distmeta.data.splits import split_classes
from distmeta.errors import DataError

VOCABULARY = {"[UNK]": 0, "one": 1, "two": 2, "three": 3, "four": 4, "[PAD]": 5, "[CLS]": 6}
TEXTS = ["one two three", "two", "four four four four four", "three one", "one", "two two"]
LABELS = ["b", "a", "unused", "c", "a", "b"]
SPLITS = {"meta_train": ["b"], "meta_validation": ["c"], "meta_test": ["a"]}


def words(**vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({**VOCABULARY, **vocabulary}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def source(texts: list[str] = TEXTS) -> Source:
    return Source.of(texts, LABELS)


def built(cache: Path, **changes: Any) -> Corpus:
    arguments: dict[str, Any] = {"source": source(), "splits": SPLITS, "tokenizer": words(), "max_length": 8}
    return build_corpus(**{**arguments, **changes}, cache_dir=cache)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return built(tmp_path)


def test_holds_the_rows_of_used_classes(corpus: Corpus) -> None:
    assert corpus.table.to_pydict() == {
        "input_ids": [[1, 2, 3], [2], [3, 1], [1], [2, 2]],
        "label": [1, 0, 2, 0, 1],
        "source_row": [0, 1, 3, 4, 5],
    }
    assert [str(field.type) for field in corpus.table.schema] == ["list<item: int32>", "int32", "int64"]
    assert (corpus.classes, corpus.pad_id) == (("a", "b", "c"), 5)
    assert corpus.splits == {"meta_train": ("b",), "meta_validation": ("c",), "meta_test": ("a",)}
    assert corpus.lengths.tolist() == [3, 1, 2, 1, 2]
    assert corpus.source_rows.tolist() == [0, 1, 3, 4, 5]


def test_rows_of_classes_and_splits(corpus: Corpus) -> None:
    assert [corpus.rows_of(name).tolist() for name in "abc"] == [[1, 3], [0, 4], [2]]
    assert corpus.rows("meta_train").tolist() == [4, 0]  # 2 tokens, then 3
    assert corpus.rows("meta_test").tolist() == [1, 3]


def test_rows_of_a_split_by_length_then_row(tmp_path: Path) -> None:
    splits = {"meta_train": ["c", "a", "b"], "meta_validation": [], "meta_test": []}
    corpus = built(tmp_path, splits=splits)
    assert corpus.rows("meta_train").tolist() == [1, 3, 2, 4, 0]
    assert corpus.rows("meta_test").tolist() == []


def test_tokens_are_padded_to_the_longest_asked_for(corpus: Corpus) -> None:
    tokens = corpus.tokens(np.array([[2, 1], [4, 3]]))
    assert tokens["input_ids"].tolist() == [[[3, 1], [2, 5]], [[2, 2], [1, 5]]]
    assert tokens["attention_mask"].tolist() == [[[1, 1], [1, 0]], [[1, 1], [1, 0]]]
    assert [str(value.dtype) for value in tokens.values()] == ["torch.int64", "torch.int64"]
    assert corpus.tokens(np.array([1]))["input_ids"].tolist() == [[2]]
    assert corpus.tokens(np.array(0))["input_ids"].tolist() == [1, 2, 3]
    assert corpus.tokens(np.empty((2, 0), dtype=np.int64))["input_ids"].shape == (2, 0, 0)


def test_long_texts_are_cut(tmp_path: Path) -> None:
    tokenizer = words()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 6)])
    # What the tokenizer does by itself is not what the corpus needs.
    tokenizer.enable_padding(pad_id=4, length=20)
    tokenizer.enable_truncation(1)
    corpus = built(tmp_path, tokenizer=tokenizer, max_length=3)
    assert corpus.table["input_ids"].to_pylist() == [[6, 1, 2], [6, 2], [6, 3, 1], [6, 1], [6, 2, 2]]
    assert corpus.pad_id == 4
    assert (tokenizer.truncation or {})["max_length"] == 1


def test_chunks_of_texts_join_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = built(tmp_path / "whole")
    monkeypatch.setattr("distmeta.data.tokens.CHUNK", 2)
    assert built(tmp_path / "chunks").table.equals(whole.table)


def test_text_without_tokens(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 4: no token in ' '"):
        built(tmp_path, source=source([*TEXTS[:3], " ", *TEXTS[4:]]))


def test_second_time_reads_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = built(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [f"{first.fingerprint}.arrow"]
    monkeypatch.setattr(module, "tokenise", None)  # not called again
    second = built(tmp_path)
    assert second.table.equals(first.table)
    assert (second.classes, second.splits, second.pad_id) == (first.classes, first.splits, first.pad_id)
    assert (second.fingerprint, second.source_fingerprint) == (first.fingerprint, source().fingerprint)


def test_all_that_goes_in_is_in_the_fingerprint(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"source": source([*TEXTS[:5], "two"])},
        {"splits": {**SPLITS, "meta_test": ["a", "unused"]}},
        {"splits": {**SPLITS, "meta_test": ["c"], "meta_validation": ["a"]}},
        {"tokenizer": words(five=7)},
        {"max_length": 2},
    ]
    padded = words()
    padded.enable_padding(pad_id=0)
    made = [built(tmp_path, **change) for change in [*changes, {"tokenizer": padded}]]
    assert len({corpus.fingerprint for corpus in made}) == 7
    assert made[3].splits["meta_test"] == ("c",)
    assert built(tmp_path, source=source()).fingerprint == made[0].fingerprint


def damages(content: bytes) -> list[bytes]:
    """Files that are empty, cut, of another kind, or one bit off in the token values."""
    values = np.array([1, 2, 3, 2, 3, 1, 1, 2, 2], dtype=np.int32).tobytes()
    at = content.index(values)
    flipped = content[:at] + bytes([content[at] ^ 2]) + content[at + 1 :]
    return [b"", content[: len(content) // 2], content[:-1], b"garbage" * 100, flipped]


@pytest.mark.parametrize("damage", range(5))
def test_damaged_file_is_made_again(tmp_path: Path, damage: int) -> None:
    path = tmp_path / f"{built(tmp_path).fingerprint}.arrow"
    content = path.read_bytes()
    path.write_bytes(damages(content)[damage])
    assert built(tmp_path).table["input_ids"].to_pylist() == [[1, 2, 3], [2], [3, 1], [1], [2, 2]]
    assert path.read_bytes() == content


def test_file_of_another_corpus_is_not_used(tmp_path: Path) -> None:
    other = tmp_path / f"{built(tmp_path, max_length=2).fingerprint}.arrow"
    other.rename(tmp_path / f"{built(tmp_path / 'elsewhere').fingerprint}.arrow")
    assert built(tmp_path).lengths.tolist() == [3, 1, 2, 1, 2]


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"data\.cache: cannot write .*set data\.cache"):
        built(tmp_path / "file")


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", full)
    with pytest.raises(DataError, match="No space left"):
        built(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4)
    tokenise = tokens.tokenise

    def waiting(*arguments: Any) -> pa.Table:
        table = tokenise(*arguments)
        together.wait(timeout=30)
        return table

    monkeypatch.setattr(module, "tokenise", waiting)
    with ThreadPoolExecutor(4) as pool:
        corpora = list(pool.map(built, [tmp_path] * 4))
    assert [corpus.lengths.tolist() for corpus in corpora] == [[3, 1, 2, 1, 2]] * 4
    assert len(list(tmp_path.iterdir())) == 1


def test_pickle_leaves_the_buffers_out_of_band(tmp_path: Path) -> None:
    long = source(["one " * 5000, "two " * 5000, *TEXTS[2:]])
    corpus = built(tmp_path, source=long, max_length=5000)
    corpus.rows("meta_train"), corpus.tokens(np.array([0]))  # derived arrays stay behind
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(corpus, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 4000  # against 40,000 bytes of tokens
    assert 4 * 10_006 <= sum(buffer.raw().nbytes for buffer in buffers) < 4 * 10_006 + 1000  # once each
    copy = pickle.loads(data, buffers=buffers)
    assert copy.table.equals(corpus.table)
    token_buffer = corpus.table["input_ids"].chunk(0).values.buffers()[1]
    assert copy.table["input_ids"].chunk(0).values.buffers()[1].address == token_buffer.address
    assert (copy.splits, copy.fingerprint, copy.pad_id) == (corpus.splits, corpus.fingerprint, corpus.pad_id)
    assert copy.rows("meta_train").tolist() == corpus.rows("meta_train").tolist()


@pytest.mark.data
def test_real_texts_with_a_real_tokenizer(real_data: Path, minilm: str, tmp_path: Path) -> None:
    splits = str(real_data / "banking77.splits.json")
    data = DataConfig(path=str(real_data / "banking77.parquet"), splits=splits, copies=True)
    texts = read_source(data)
    classes = split_classes(texts, data, ways={}, examples_per_class=10)
    tokenizer = Tokenizer.from_file(f"{minilm}/tokenizer.json")
    corpus = build_corpus(texts, classes, tokenizer, 32, tmp_path)
    assert (len(corpus.lengths), len(corpus.classes), int(corpus.lengths.max())) == (13083, 77, 32)
    rows = corpus.rows("meta_test")
    assert np.array_equal(np.sort(corpus.lengths[rows]), corpus.lengths[rows])
    # One text at a time, by the tokenizer itself.
    tokenizer.no_padding()
    tokenizer.enable_truncation(32)
    some = rows[:: len(rows) // 50]
    tokens = corpus.tokens(some)
    for row, ids, mask in zip(some, tokens["input_ids"], tokens["attention_mask"], strict=True):
        expected = tokenizer.encode(texts.texts[int(corpus.source_rows[row])].as_py()).ids
        assert ids[: len(expected)].tolist() == expected
        assert mask.tolist() == [1] * len(expected) + [0] * (len(ids) - len(expected))
