"""Tokens of texts in which two entities are marked, and where the entities stand among the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Encoding, Tokenizer

from distmeta.data.marked import MARK, REMEDY, Pair, Span, pair_of
from distmeta.data.tokens import Rows, TextError

POINTS = (("@ ", " @"), ("# ", " #"))  # around head and tail


def with_points(pair: Pair) -> Pair:
    """A text with signs around its entities, and in place of the entities the signs before them.

    Wenxuan Zhou, Muhao Chen. An Improved Baseline for Sentence-level Relation Extraction. AACL 2022.
    https://arxiv.org/abs/2102.01373: signs that every tokenizer knows, for marks that it does not.
    """
    text, places = pair.text, [pair.head, pair.tail]
    for which in sorted((0, 1), key=lambda its: -places[its][0]):
        (start, end), (before, after) = places[which], POINTS[which]
        text = text[:start] + before + text[start:end] + after + text[end:]
        places[which] = (start, start + 1)
        if places[1 - which][0] > start:
            shift = len(before) + len(after)
            places[1 - which] = (places[1 - which][0] + shift, places[1 - which][1] + shift)
    return Pair(text, *places)


@dataclass(frozen=True)
class Pairs:
    """Reads texts with marks (see `distmeta.data.marked`; and `distmeta.data.tokens.Reading`).

    It adds `spans`: the first token of the head, the one behind its last, and the same of the tail. A text with too
    many tokens is cut to those around its entities. An entity that gives no token stands for the next one.
    """

    points: bool = False  # see `with_points`

    @property
    def name(self) -> str:
        """Its part of a corpus's fingerprint."""
        return "pairs with points" if self.points else "pairs"

    def plain(self, text: str) -> str:
        """The text without marks, however they stand; with `points`, their signs."""
        return MARK.sub(lambda mark: POINTS[int(mark[2]) - 1][bool(mark[1])] if self.points else "", text)

    def __call__(self, texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Rows, Mapping[str, Rows]]:
        """See `distmeta.data.tokens.Reading`."""
        pairs = [self._pair(text, number) for number, text in enumerate(texts)]
        ids, spans = list[list[int]](), list[list[int]]()
        assert tokenizer.truncation is not None, "a tokenizer that does not truncate"
        max_length = tokenizer.truncation["max_length"]
        for pair, encoding in zip(pairs, _whole(tokenizer).encode_batch([pair.text for pair in pairs]), strict=True):
            inner = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
            if not inner:
                ids.append([])
                spans.append([0, 0, 0, 0])
                continue
            both = [_tokens_at(encoding, inner, span) for span in (pair.head, pair.tail)]
            kept = _window(len(encoding.ids), inner[0], inner[-1] + 1, both, max_length)
            ids.append([encoding.ids[place] for place in kept])
            number_of = {place: number for number, place in enumerate(kept)}
            spans.append([end for span in both for end in _among(number_of, span)])
        return ids, {"spans": spans}

    def _pair(self, text: str, number: int) -> Pair:
        try:
            pair = pair_of(text)
        except ValueError as error:
            raise TextError(number, str(error), REMEDY) from error
        return with_points(pair) if self.points else pair


@lru_cache(maxsize=8)
def _whole(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that does not truncate."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    return copy


def _tokens_at(encoding: Encoding, inner: Sequence[int], span: Span) -> Span:
    """The tokens that hold some of the characters; or else the first one behind them, or the last one of the text."""
    offsets = encoding.offsets
    found = [place for place in inner if offsets[place][0] < span[1] and offsets[place][1] > span[0]]
    if not found:
        found = [next((place for place in inner if offsets[place][1] > span[0]), inner[-1])]
    return found[0], found[-1] + 1


def _window(count: int, first: int, end: int, both: Sequence[Span], max_length: int) -> list[int]:
    """The tokens that are kept: special ones, and those around the two spans."""
    if count <= max_length:
        return list(range(count))
    room = max_length - (count - (end - first))
    start, stop = min(span[0] for span in both), max(span[1] for span in both)
    windows = [(start, stop)] if stop - start <= room else sorted((span[0], span[0] + 1) for span in both)
    kept: set[int] = set()
    for number, (left, right) in enumerate(windows):
        size = room // len(windows) + (number < room % len(windows))
        begin = max(first, min(left - (size - (right - left)) // 2, end - size))
        kept.update(range(begin, begin + size))
    outside = [*range(first), *range(end, count)]
    return sorted([*kept, *outside])


def _among(number: dict[int, int], span: Span) -> Span:
    """A span in the numbers of the tokens that are kept; its first token is."""
    kept = [number[place] for place in range(*span) if place in number]
    return kept[0], kept[-1] + 1
