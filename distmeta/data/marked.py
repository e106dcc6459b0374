"""Texts in which two entities are marked: ``[E1]Ada[/E1] wrote to [E2]Charles[/E2].`` Also ``<e1>Ada</e1>``.

Rows with tokens, and the numbers of the tokens of head and tail, become such texts: those of FewRel's JSON too (Han
et al., EMNLP 2018, https://arxiv.org/abs/1810.10147).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from distmeta.config import DataConfig
from distmeta.data.checked import LABEL, TEXT, source_of
from distmeta.data.columns import Block, Columns
from distmeta.data.labelled import Source
from distmeta.data.sources import read_blocks
from distmeta.data.values import strings
from distmeta.errors import DataError

MARK = re.compile(r"(?:\[|<)(/?)[eE]([12])(?:\]|>)")
ORDERS = (["1", "/1", "2", "/2"], ["2", "/2", "1", "/1"])
TOKENS, HEAD, TAIL = "data.tokens", "data.head", "data.tail"
REMEDY = "mark both entities once, such as: [E1]Ada[/E1] wrote to [E2]Charles[/E2]"
Span = tuple[int, int]  # from the first, to behind the last


class Pair(NamedTuple):
    """A text without marks, and the characters of its head and its tail."""

    text: str
    head: Span
    tail: Span


def pair_of(marked: str) -> Pair:
    """Takes the marks out of a text.

    Raises:
        ValueError: a mark is missing, stands twice or inside of the other pair, or a pair holds nothing.
    """
    found = [slash + number for slash, number in MARK.findall(marked)]
    if found not in ORDERS:
        raise ValueError(_fault(found))
    pieces = MARK.split(marked)[::3]
    ends = list(accumulate(map(len, pieces)))
    spans = []
    for piece, start, end in zip(pieces[1::2], ends[0::2], ends[1::2], strict=False):
        if not piece.strip():
            raise ValueError("nothing stands between the marks of an entity")
        spans.append((start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())))
    first, second = spans
    return Pair("".join(pieces), *((first, second) if found[0] == "1" else (second, first)))


def _fault(found: Sequence[str]) -> str:
    """What is wrong with marks that are not in one of the orders."""
    for number in "12":
        for mark in (number, f"/{number}"):
            if (count := found.count(mark)) != 1:
                name = f"[{mark.replace(number, f'E{number}')}]"
                return f"the mark {name} {'is missing' if not count else f'stands {count} times'}"
        if found.index(number) > found.index(f"/{number}"):
            return f"the mark [/E{number}] stands before [E{number}]"
    return "head and tail overlap"


def marked(tokens: Sequence[str], head: Span, tail: Span) -> str:
    """A text of tokens, with marks around those of head and tail.

    Raises:
        ValueError: a span is empty or beyond the tokens, the spans overlap, or a token looks like a mark.
    """
    for name, (start, end) in (("head", head), ("tail", tail)):
        if not 0 <= start < end <= len(tokens):
            raise ValueError(f"the {name} has the tokens {start} to {end - 1}, and there are {len(tokens)}")
    if max(head[0], tail[0]) < min(head[1], tail[1]):
        raise ValueError("head and tail overlap")
    if any(MARK.search(token) for token in tokens):
        raise ValueError("a token looks like a mark of an entity")
    pieces = list(tokens)
    for (start, end), number in ((head, 1), (tail, 2)):
        pieces[start] = f"[E{number}]{pieces[start]}"
        pieces[end - 1] = f"{pieces[end - 1]}[/E{number}]"
    return " ".join(pieces)


def read_marked(data: DataConfig, enough: int = 0) -> Source:
    """The sentences that `data.path` names: with marks in the column `data.text`; or as tokens with `head` and `tail`.

    Copies are left out as in `distmeta.data.sources.read_source`.

    Raises:
        DataError: as `distmeta.data.sources.read_source`, or marks or spans cannot be used.
    """
    label = {LABEL: data.label}
    layouts: list[Columns] = [
        {TEXT: data.text, **label},
        {TOKENS: "tokens", HEAD: "head", TAIL: "tail", **label},
        {TOKENS: "tokens", HEAD: "h", TAIL: "t", **label},
    ]
    source = source_of(_as_texts(read_blocks(data, layouts)))
    for row, text in enumerate(text for part in strings(source.texts) for text in part):
        try:
            pair_of(text)
        except ValueError as error:
            raise DataError(source.names[row], str(error), REMEDY) from error
    return source if data.copies else source.without_copies(enough)


def _as_texts(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks of tokens as blocks of marked texts; others as they are."""
    for block in blocks:
        if TOKENS not in block.values:
            yield block
            continue
        texts, values = [], dict(block.values)
        rows = zip(*(values.pop(key) for key in (TOKENS, HEAD, TAIL)), strict=True)
        for number, (tokens, head, tail) in zip(block.numbers, rows, strict=True):
            try:
                texts.append(marked(_tokens(tokens), _span(head, "head"), _span(tail, "tail")))
            except ValueError as error:
                remedy = 'give tokens and the numbers of those of head and tail, such as "head": [0], "tail": [3, 4]'
                raise DataError(f"{block.where} {number}", str(error), remedy) from error
        yield block._replace(values={TEXT: texts, **values})


def _tokens(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(token, str) for token in value):
        raise ValueError("tokens is no list of strings")
    return value


def _span(value: Any, name: str) -> Span:
    """The span of token numbers; of FewRel's ``[name, id, [[numbers], …]]`` the first."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[2], list) and value[2]:
        value = value[2][0]
    if not isinstance(value, list) or not value or not all(type(number) is int for number in value):
        raise ValueError(f"{name} is no list of token numbers")
    return min(value), max(value) + 1
