"""Code shared by models with random embeddings: a tokenizer built from meta-training texts, and masked means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from distmeta.errors import ConfigError
from distmeta.models.base import Architecture, ModelOptions
from distmeta.types import Params

PAD, UNK = "[PAD]", "[UNK]"
LONGEST = 1000  # letters of a word from which pieces are learned; those of more than 100 become [UNK] anyway


@dataclass(frozen=True, kw_only=True)
class TextOptions(ModelOptions):
    """Options of models that start from random embeddings."""

    vocabulary: Literal["words", "wordpieces"] = "words"
    vocab_size: Annotated[int, Field(ge=2)] = 10_000  # the most frequent tokens; others are [UNK]
    min_count: Annotated[int, Field(ge=1)] = 2  # above 1, [UNK] occurs in meta-training and is learned
    embedding_size: Annotated[int, Field(ge=1)] = 128

    def prepare(self, path: str | None, texts: Iterable[str]) -> tuple[Tokenizer, Architecture]:
        """Builds the tokenizer. The same texts give the same tokenizer on any machine.

        Raises:
            ConfigError: `path` is given.
        """
        if path is not None:
            remedy = "leave it out, or set model.name=hf"
            raise ConfigError("model.path", f"{path!r} given, but this model has no pretrained weights", remedy)
        tokenizer = build_tokenizer(list(texts), self.vocabulary, self.vocab_size, self.min_count)
        return tokenizer, {"vocab_size": tokenizer.get_vocab_size(), "pad_id": tokenizer.token_to_id(PAD)}

    def pretrained(self, path: str | None) -> Params | None:
        """None: these models start from random values."""
        return None


def build_tokenizer(texts: Sequence[str], vocabulary: str, vocab_size: int, min_count: int) -> Tokenizer:
    """A lower-casing tokenizer of words or of word pieces, with [PAD] as 0 and [UNK] as 1.

    Word pieces: Schuster and Nakajima, "Japanese and Korean Voice Search", ICASSP 2012.
    """
    trainer: trainers.Trainer
    if vocabulary == "words":
        learned = _tokenizer(models.WordLevel(unk_token=UNK))
        trainer = trainers.WordLevelTrainer(
            vocab_size=vocab_size, min_frequency=min_count, special_tokens=[PAD, UNK], show_progress=False
        )
    else:
        learned = _tokenizer(models.WordPiece(unk_token=UNK))
        letters = _letters(learned.normalizer, texts, vocab_size // 4)
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=min_count,
            # By default, the trainer numbers pieces of one letter in the random order of a hash map.
            special_tokens=[PAD, UNK, *letters, *(f"##{letter}" for letter in letters)],
            initial_alphabet=letters,
            limit_alphabet=len(letters),
            show_progress=False,
        )
        texts = [_without_long_words(learned, text) for text in texts]
    learned.train_from_iterator(texts, trainer)
    # A new tokenizer, so that no user text is read as a special token.
    return _tokenizer(type(learned.model)(learned.get_vocab(), unk_token=UNK))


def _tokenizer(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _without_long_words(tokenizer: Tokenizer, text: str) -> str:
    """Learning pieces takes more than linear time in the length of a word: minutes for a single one of a megabyte."""
    if not re.search(rf"\S{{{LONGEST + 1}}}", text):
        return text
    words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    return " ".join(word for word, _ in words if len(word) <= LONGEST)


def _letters(normalizer: normalizers.Normalizer, texts: Sequence[str], limit: int) -> list[str]:
    """The most frequent letters, ties in the order of their code points."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update("".join(normalizer.normalize_str(text).split()))
    return sorted(counts, key=lambda letter: (-counts[letter], letter))[:limit]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Means over each text's own tokens: (B, L, D) and (B, L) → (B, D). A text without tokens gives zeros."""
    weights = mask.to(values.dtype).unsqueeze(-1)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


def check_length(input_ids: Tensor, limit: int) -> None:
    """Refuses (B, L) tokens if L is more than the body's positions.

    Raises:
        ConfigError: texts are too long; the error names the key that cuts them.
    """
    if (length := input_ids.shape[-1]) > limit:
        raise ConfigError("data.max_length", f"a text of {length} tokens", f"this model takes at most {limit}")
