"""What stands out in the data is shown before a run starts, and in the figures of `check`."""

import io
import json
from pathlib import Path

from rich.console import Console
from toy import toy_config

from distmeta.report.progress import Reporter
from distmeta.runs import train as driver
from distmeta.runs.check import check


def test_check_and_train_show_what_stands_out(tmp_path: Path) -> None:
    config = toy_config(tmp_path, outer__steps=1)
    lines = (tmp_path / "data.csv").read_text().splitlines()
    (tmp_path / "data.csv").write_text("\n".join([*lines, lines[1]]).replace(",", ";"))
    shown = [io.StringIO(), io.StringIO()]
    summary = check(config, Reporter(Console(file=shown[0])))
    driver.train(config, tmp_path / "run", Reporter(Console(file=shown[1])))
    for output in shown:
        text = output.getvalue()
        assert text.count("data: 128 rows in 16 classes of 8") == 1
        assert "the columns are separated by semicolons, not by commas" in text
        assert "1 more rows are copies of these" in text
    assert json.loads(json.dumps(summary))["data"]["copies"] == 1


def test_unknown_words_and_cut_texts_are_shown(tmp_path: Path) -> None:
    """Meta-validation and meta-test have two words of their own."""
    names = [f"c{number:02}" for number in range(12)]
    rows = [f"{name}x {name}y same,{name}" for name in names for _ in range(4)]
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *rows]))
    config = toy_config(tmp_path, data__max_length=4, data__copies=True)
    summary = check(config, Reporter(Console(file=(shown := io.StringIO()), width=999)))
    assert summary["data"]["unknown"] == {"meta_train": 0, "meta_validation": 2 / 3, "meta_test": 2 / 3}
    assert summary["data"]["longest"] == 0
    assert "67% of the words of meta_validation are unknown: model.vocabulary=wordpieces" in shown.getvalue()
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *rows]).replace("same", "the same words"))
    summary = check(config, Reporter(Console(file=(shown := io.StringIO()), width=999)))
    assert "100% of the texts have data.max_length tokens" in shown.getvalue()
    config = toy_config(tmp_path, model__vocabulary="wordpieces", data__copies=True)
    assert check(config, Reporter())["data"]["unknown"] == {}
