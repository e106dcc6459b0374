"""Classification on a small corpus whose texts can be told apart by their lengths."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from distmeta.data.corpus import build_corpus
from distmeta.data.labelled import Source
from distmeta.tasks.classification import Classification
from distmeta.tasks.drawing import Classes


def kind_in(folder: Path, extra_word: bool = False) -> Classification:
    """Twelve classes of nine texts, the first not used: text i of class c is i + 1 times the word c."""
    labels = [name for name in "abcdefghijkl" for _ in range(9)]
    texts = [" ".join([label] * (row % 9 + 1)) for row, label in enumerate(labels)]
    vocabulary = {word: number for number, word in enumerate("abcdefghijkl?!" if extra_word else "abcdefghijkl?")}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    splits = {"meta_train": list("bcde"), "meta_validation": list("fghi"), "meta_test": list("jkl")}
    corpus = build_corpus(Source.of(texts, labels), splits, tokenizer, 16, folder)
    return Classification(corpus, Classes(corpus))
