"""Counts the inputs that are longer than a learner reads, so that they are not cut silently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distmeta.data.texts import Texts
from distmeta.protocols import Codec
from distmeta.use.examples import example_of


@dataclass
class Cut:
    """`cut` of `total` inputs have more tokens than the codec reads; `add` adds to both."""

    codec: Codec
    cut: int = 0
    total: int = 0

    def add(self, inputs: Sequence[Any]) -> Cut:
        """Counts inputs or examples that the codec takes."""
        self.cut += self.codec.cut([example_of(self.codec, value) for value in inputs])
        self.total += len(inputs)
        return self

    def counted(self, blocks: Iterable[Texts]) -> Iterator[Texts]:
        """The blocks, each counted as it passes."""
        for block in blocks:
            self.add([text for text in block.texts if text is not None])
            yield block

    def tell(self, note: Callable[[str], None]) -> None:
        """Notes in one line how many were cut, if any were."""
        if self.cut:
            longer = f"{self.cut} of {self.total} texts are longer than {self.codec.max_length} tokens"
            note(f"note: {longer} and were cut")
