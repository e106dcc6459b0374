"""Sentences with two marked entities: marks, tokens and numbers, and where the entities stand among the tokens."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from distmeta.config import DataConfig
from distmeta.data.marked import marked, pair_of, read_marked
from distmeta.data.pairs import Pairs
from distmeta.data.tokens import TextError, prepared, tokens_of
from distmeta.errors import DataError

LETTERS = {letter: number for number, letter in enumerate(["[CLS]", "[SEP]", "[UNK]", "@", "#", *list("abcdefgh")])}
WORD = st.text("abcdefgh", min_size=1, max_size=3)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda text: not set(text) & set("[]<>"))


def span(first: int, end: int) -> st.SearchStrategy[tuple[int, int]]:
    """A span that is not empty, from `first` to `end` at most."""
    return st.tuples(st.integers(first, end - 1), st.integers(first + 1, end)).filter(lambda its: its[0] < its[1])


def letters() -> Tokenizer:
    """A tokenizer with a token for each letter, and special ones around a text."""
    tokenizer = Tokenizer(models.WordLevel(LETTERS, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", LETTERS["[CLS]"]), ("[SEP]", LETTERS["[SEP]"])]
    )
    return tokenizer


def read(text: str, max_length: int = 64, points: bool = False) -> tuple[str, str, str]:
    """The tokens that are kept, those of the head and those of the tail."""
    (ids,), more = Pairs(points)([text], prepared(letters(), max_length)[0])
    names = {number: letter for letter, number in LETTERS.items()}
    start, end, first, last = more["spans"][0]
    parts = (ids, ids[start:end], ids[first:last])
    found = ["".join(names[number] for number in part) for part in parts]
    return found[0], found[1], found[2]


@pytest.mark.parametrize(
    ("text", "plain", "head", "tail"),
    [
        ("[E1]Ada[/E1] wrote to [E2]Babbage[/E2].", "Ada wrote to Babbage.", "Ada", "Babbage"),
        ("To <e2>Babbage</e2> <e1>Ada</e1> wrote", "To Babbage Ada wrote", "Ada", "Babbage"),
        ("[e1] Ada  [/e1]'s friend[E2]s[/E2]", " Ada  's friends", "Ada", "s"),
        ("[E1]אדה[/E1] כתבה ל[E2]בבג'[/E2]", "אדה כתבה לבבג'", "אדה", "בבג'"),
    ],
)
def test_marks_are_taken_out(text: str, plain: str, head: str, tail: str) -> None:
    pair = pair_of(text)
    assert (pair.text, pair.text[slice(*pair.head)], pair.text[slice(*pair.tail)]) == (plain, head, tail)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ada wrote", r"the mark [E1] is missing"),
        ("[E1]Ada[/E1] wrote", r"the mark [E2] is missing"),
        ("[E1]Ada wrote to [E2]B[/E2]", r"the mark [/E1] is missing"),
        ("[E1]A[/E1] [E2]B[/E2] [E1]C[/E1]", r"the mark [E1] stands 2 times"),
        ("[/E1]Ada[E1] [E2]B[/E2]", r"the mark [/E1] stands before [E1]"),
        ("[E1]Ada [E2]B[/E2][/E1]", "head and tail overlap"),
        ("[E1]Ada [E2]B[/E1] C[/E2]", "head and tail overlap"),
        ("[E1] [/E1] [E2]B[/E2]", "nothing stands between the marks of an entity"),
    ],
)
def test_what_is_not_marked_right_is_refused(text: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(found)):
        pair_of(text)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "[E1]a[/E1][E2]b[/E2]", "label": "x"}) + "\n")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps({"text": text, "label": "x"}) + "\n")
    with pytest.raises(DataError) as refused:
        read_marked(DataConfig(path=str(tmp_path / "a.jsonl")))
    assert str(refused.value).startswith(f"{tmp_path / 'a.jsonl'} line 2: {found}")
    with pytest.raises(DataError, match="example 7") as of_task:
        tokens_of(["[E1]a[/E1][E2]b[/E2]", text], letters(), 64, 6, Pairs())
    assert found in str(of_task.value)


@given(ANY, ANY.filter(str.strip), ANY, ANY.filter(str.strip), ANY, st.booleans())
def test_any_text_comes_back(before: str, first: str, between: str, second: str, after: str, swapped: bool) -> None:
    one, two = ("2", "1") if swapped else ("1", "2")
    pair = pair_of(f"{before}[E{one}]{first}[/E{one}]{between}[E{two}]{second}[/E{two}]{after}")
    assert pair.text == f"{before}{first}{between}{second}{after}"
    head, tail = (pair.text[slice(*span)] for span in (pair.head, pair.tail))
    assert ((tail, head) if swapped else (head, tail)) == (first.strip(), second.strip())


@given(st.lists(WORD, min_size=2, max_size=30), st.data(), st.integers(8, 40))
def test_entities_are_found_among_the_tokens_that_are_kept(words: list[str], data: Any, max_length: int) -> None:
    cut = data.draw(st.integers(1, len(words) - 1))
    head, tail = data.draw(span(0, cut)), data.draw(span(cut, len(words)))
    kept, its_head, its_tail = read(marked(words, head, tail), max_length)
    letters_of = ["".join(words[slice(*span)]) for span in (head, tail)]
    whole = f"[CLS]{''.join(words)}[SEP]"
    assert (kept == whole) == (len("".join(words)) + 2 <= max_length)
    assert kept.startswith("[CLS]")
    assert kept.endswith("[SEP]")
    assert len(kept) - 8 <= max_length  # the special tokens have 10 letters and count as 2
    for whole_entity, its in zip(letters_of, (its_head, its_tail), strict=True):
        assert its[0] == whole_entity[0]
        rest = iter(whole_entity)
        assert all(letter in rest for letter in its), "in the order of the entity"
    if kept == whole:
        assert (its_head, its_tail) == tuple(letters_of)


@given(ANY, ANY.filter(str.strip), ANY, ANY.filter(str.strip), ANY)
def test_what_a_tokenizer_sees_is_known_without_reading_the_marks(
    before: str, first: str, between: str, second: str, after: str
) -> None:
    text = f"{before}[E2]{first}[/E2]{between}[E1]{second}[/E1]{after}"
    assert Pairs().plain(text) == pair_of(text).text
    assert Pairs(points=True).plain("[E2]a[/E2]b[E1]c[/E1]") == "# a #b@ c @"
    assert Pairs().plain("[E1]a [/E2] b") == "a  b", "also where they are wrong"


def test_signs_stand_before_the_entities() -> None:
    assert read("ab [E2]cd[/E2] e [E1]f[/E1]", points=True) == ("[CLS]ab#cd#e@f@[SEP]", "@", "#")
    assert read("[E1]f[/E1][E2]cd[/E2]", points=True) == ("[CLS]@f@#cd#[SEP]", "@", "#")


def test_an_entity_without_tokens_stands_for_the_next_one() -> None:
    tokenizer = letters()
    tokenizer.normalizer = normalizers.Replace("x", "")
    (ids,), more = Pairs()(["a [E1]x[/E1] b [E2]x[/E2]"], prepared(tokenizer, 8)[0])
    assert more["spans"] == [[2, 3, 2, 3]]
    assert len(ids) == 4


def test_a_text_of_no_token_is_left_to_the_caller() -> None:
    tokenizer = letters()
    tokenizer.normalizer = normalizers.Replace("x", "")
    tokenizer.post_processor = processors.TemplateProcessing("$A", special_tokens=[])
    assert Pairs()(["[E1]x[/E1][E2]x[/E2]"], prepared(tokenizer, 8)[0])[0] == [[]]
    with pytest.raises(TextError):
        Pairs()(["x"], prepared(tokenizer, 8)[0])


TOKENS = {"tokens": ["Ada", "wrote", "to", "Charles", "B."], "head": [0], "tail": [3, 4], "label": "knows"}
MARKED = "[E1]Ada[/E1] wrote to [E2]Charles B.[/E2]"


def test_tokens_and_fewrel_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(TOKENS))
    its = {"tokens": TOKENS["tokens"], "h": ["ada", "Q1", [[0]]], "t": ["charles", "Q2", [[3, 4], [1]]]}
    (tmp_path / "b.json").write_text(json.dumps({"P1": [its], "P2": [{**its, "h": ["to", "Q3", [[2]]]}]}))
    for name, labels in (("a.jsonl", ["knows"]), ("b.json", ["P1", "P2"])):
        source = read_marked(DataConfig(path=str(tmp_path / name)))
        assert source.texts[0].as_py() == MARKED
        assert source.classes == labels


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"tail": [4, 5]}, "the tail has the tokens 4 to 5, and there are 5"),
        ({"head": [-1]}, "the head has the tokens -1 to -1, and there are 5"),
        ({"head": []}, "head is no list of token numbers"),
        ({"head": ["Ada"]}, "head is no list of token numbers"),
        ({"tail": [0]}, "head and tail overlap"),
        ({"tokens": "Ada wrote"}, "tokens is no list of strings"),
        ({"tokens": ["[E1]", "b", "c", "d", "e"]}, "a token looks like a mark of an entity"),
    ],
)
def test_wrong_tokens_and_numbers_are_refused(change: dict[str, Any], found: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(TOKENS)}\n{json.dumps({**TOKENS, **change})}\n")
    with pytest.raises(DataError) as caught:
        read_marked(DataConfig(path=str(path)))
    assert str(caught.value).startswith(f"{path} line 2: {found}")


def test_without_any_layout_the_first_one_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence,label\n[E1]a[/E1][E2]b[/E2],x\n")
    with pytest.raises(DataError, match="no column 'text'"):
        read_marked(DataConfig(path=str(tmp_path / "a.csv")))
