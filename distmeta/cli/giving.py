"""What commands are given of a user: texts, labels, descriptions of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distmeta.errors import ConfigError, DataError
from distmeta.errors import suggest as nearest

if TYPE_CHECKING:
    from distmeta.config import DataConfig
    from distmeta.data.labelled import Source
    from distmeta.report.progress import Reporter

SETTINGS = ("data.text", "data.label", "data.subset", "data.copies")


def section(path: str, settings: list[str]) -> DataConfig:
    """The section `data` for a path and settings of the command line."""
    from distmeta.config.load import override, validate

    for setting in settings:
        if (key := setting.partition("=")[0]) not in SETTINGS:
            raise ConfigError(key, "no setting of this command", nearest(key, SETTINGS))
    return validate(override({"data": {"path": path}}, settings)).data


def _examples(data: DataConfig, reporter: Reporter) -> Source:
    """Labelled texts, with remarks on what stands out."""
    from distmeta.data.sources import read_source

    source = read_source(data)
    for remark in source.remarks:
        reporter.note(f"note: {remark}")
    if copies := sum(source.copies.values()):
        reporter.note(f"note: {copies} copies of other examples are left out")
    texts = source.texts.to_pylist()
    if (several := len(texts) - len(set(texts))) and not data.copies:
        reporter.note(f"note: {several} texts have more than one label; `--multi-label` lets a text have several")
    return source


def one_label(data: DataConfig, reporter: Reporter) -> tuple[list[str], list[str], list[str]]:
    """Texts, the label of each, and all labels."""
    source = _examples(data, reporter)
    return source.texts.to_pylist(), source.labels.to_pylist(), source.classes


def label_sets(data: DataConfig, reporter: Reporter) -> tuple[list[str], list[list[str]], list[str]]:
    """Texts, the labels of each, and all labels; with a remark on how many they have."""
    from distmeta.data.label_sets import read_label_sets

    found = read_label_sets(data)
    for remark in found.remarks:
        reporter.note(f"note: {remark}")
    several, none = (sum(fits(len(its)) for its in found.labels) for fits in (lambda n: n > 1, lambda n: not n))
    reporter.note(f"note: {several} of {len(found.texts)} texts have several labels, and {none} have none")
    return found.texts, found.labels, list(dict.fromkeys(label for its in found.labels for label in its))


def described_in(data: DataConfig, reporter: Reporter) -> dict[str, str]:
    """The description of each class.

    Raises:
        DataError: a class has several.
    """
    source = _examples(data, reporter)
    labels = source.labels.to_pylist()
    if len(source.classes) < len(labels):
        row = next(row for row, label in enumerate(labels) if label in labels[:row])
        raise DataError(source.names[row], f"a second description of {labels[row]!r}", "give one of each class")
    return dict(zip(labels, source.texts.to_pylist(), strict=True))


def unlabelled_texts(data: DataConfig, reporter: Reporter) -> list[str]:
    """Texts without labels; rows that have none are left out, with a remark."""
    from distmeta.data.texts import read_texts

    rows = [(text, name) for block in read_texts(data) for text, name in zip(block.texts, block.names, strict=True)]
    for text, name in rows:
        if text is None:
            reporter.note(f"{name}: no text, left out")
    return [text for text, _ in rows if text is not None]
