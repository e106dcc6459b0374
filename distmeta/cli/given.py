"""What users give to the commands that use a learner: labelled texts, descriptions, texts without labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from distmeta.errors import ConfigError
from distmeta.errors import suggest as nearest

if TYPE_CHECKING:
    from distmeta.config import DataConfig
    from distmeta.data.labelled import Source
    from distmeta.protocols import Codec
    from distmeta.report.progress import Reporter

SETTINGS = ("data.text", "data.label", "data.subset", "data.copies")


def section(path: str, settings: list[str]) -> DataConfig:
    """The section `data` for a path and settings of the command line."""
    from distmeta.config.load import override, validate

    for setting in settings:
        if (key := setting.partition("=")[0]) not in SETTINGS:
            raise ConfigError(key, "no setting of this command", nearest(key, SETTINGS))
    return validate(override({"data": {"path": path}}, settings)).data


def read_examples(data: DataConfig, reporter: Reporter) -> Source:
    """Labelled texts, with remarks on what stands out."""
    from distmeta.data.sources import read_source

    source = read_source(data)
    for remark in source.remarks:
        reporter.note(f"note: {remark}")
    if copies := sum(source.copies.values()):
        reporter.note(f"note: {copies} copies of other examples are left out")
    texts = source.texts.to_pylist()
    if several := len(set(zip(texts, source.labels.to_pylist(), strict=True))) - len(set(texts)):
        reporter.note(f"note: {several} texts have more than one label; `--multi-label` lets a text have several")
    return source


def read_labels(data: DataConfig, reporter: Reporter) -> tuple[list[str], list[str], Iterable[str]]:
    """Texts, the label of each, and the names of their rows."""
    source = read_examples(data, reporter)
    return source.texts.to_pylist(), source.labels.to_pylist(), source.names


def read_label_sets(data: DataConfig, reporter: Reporter) -> tuple[list[str], list[list[str]], Iterable[str]]:
    """Texts, the labels of each, and the names of their first rows; with a remark on how many labels they have."""
    from distmeta.data.label_sets import read_label_sets as read

    found = read(data)
    for remark in found.remarks:
        reporter.note(f"note: {remark}")
    several, none = (sum(fits(len(its)) for its in found.labels) for fits in (lambda n: n > 1, lambda n: not n))
    reporter.note(f"note: {several} of {len(found.texts)} texts have several labels, and {none} have none")
    return found.texts, found.labels, found.names


def read_descriptions(data: DataConfig, reporter: Reporter) -> dict[str, str]:
    """The description of each class.

    Raises:
        DataError: a class has several.
    """
    from distmeta.data.further import one_each

    return one_each(read_examples(data, reporter))


def read_unlabelled(data: DataConfig, codec: Codec, reporter: Reporter) -> list[str]:
    """Texts without labels; rows that have none, or one that cannot be used, are left out, with a remark."""
    from distmeta.data.texts import read_texts
    from distmeta.use.examples import unusable

    found: list[str] = []
    for block in read_texts(data):
        for text, name in zip(block.texts, block.names, strict=True):
            reason = "no text" if text is None else unusable(codec, text)
            if text is None or reason:
                reporter.note(f"{name}: {reason}, left out")
            else:
                found.append(text)
    return found
