"""Examples of what users give: texts and labels, texts alone, descriptions of classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any

from distmeta.errors import DataError
from distmeta.protocols import Codec, Example

CHUNK = 64  # examples that are predicted at once
SCORES = 200_000_000  # of examples by classes: adapting takes some 16 bytes for each
DESCRIBES = "description"  # the key of an example that describes a class


def examples_of(
    codec: Codec,
    inputs: Sequence[Any],
    answers: Sequence[Any],
    unlabelled: Sequence[Any] = (),
    descriptions: Mapping[str, Any] = MappingProxyType({}),
) -> list[Example]:
    """Examples from inputs and answers, one of each; from inputs without answers; and from descriptions by class.

    Raises:
        DataError: the numbers of inputs and answers differ.
    """
    if len(inputs) != len(answers):
        raise DataError("examples", f"{len(inputs)} inputs and {len(answers)} answers", "give one answer to each")
    return [
        *({**example_of(codec, value), codec.answer: answer} for value, answer in zip(inputs, answers, strict=True)),
        *({**example_of(codec, value), codec.answer: name, DESCRIBES: True} for name, value in descriptions.items()),
        *(example_of(codec, value) for value in unlabelled),
    ]


def example_of(codec: Codec, value: Any) -> Example:
    """An example of what a user gives: a mapping, or a value for each of the codec's keys."""
    if isinstance(value, Mapping):
        return value
    return dict(zip(codec.given, (value,) if len(codec.given) == 1 else value, strict=True))


def unusable(codec: Codec, value: Any) -> str | None:
    """Why an input cannot be used; None: it can."""
    try:
        codec.encode([example_of(codec, value)], ())
    except DataError as error:
        return error.found
    return None


def in_order(codec: Codec, examples: Iterable[Example]) -> list[Example]:
    """Examples with answers, then descriptions, then those without answers, unless they have one among the first."""
    ordered = sorted(examples, key=lambda example: (codec.answer not in example, DESCRIBES in example))
    known = {_given(codec, each) for each in ordered if codec.answer in each and DESCRIBES not in each}
    return [each for each in ordered if codec.answer in each or _given(codec, each) not in known]


def _given(codec: Codec, example: Example) -> str:
    return str([example.get(key) for key in codec.given])


def require_size(examples: int, classes: int) -> None:
    """Raises a `DataError` if a task is so large that learning it would not fit in the memory of a usual machine."""
    if examples * classes > SCORES:
        remedy = f"give fewer: examples times classes may be {SCORES:,} at most"
        raise DataError("examples", f"{examples:,} of {classes:,} classes", remedy)


def chunks(values: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """The values, `CHUNK` at a time."""
    rest = iter(values)
    return iter(lambda: tuple(islice(rest, CHUNK)), ())
