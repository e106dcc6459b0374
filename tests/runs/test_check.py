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
        assert text.count("data: 129 rows in 16 classes of 8 ('class 01') to 9 ('class 00')") == 1
        assert "the columns are separated by semicolons, not by commas" in text
        assert "1 rows are copies" in text
    assert json.loads(json.dumps(summary))["data"]["copies"] == 1
