"""The MLflow runs of trials are ended when the trials no longer run."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from toy import toy_config

from distmeta import tracking
from distmeta.report.progress import Reporter
from distmeta.runs import directory
from distmeta.tune.records import Records, Trial
from distmeta.tune.study import end_runs

FORMER = Path(__file__).parents[1] / "runs" / "former_run"


@pytest.mark.parametrize("answers", [True, False])
def test_an_end_that_mlflow_does_not_record_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    records, ended = Records(tmp_path / "trials"), list[tuple[str, str]]()
    for name, run_id in (("trial-0000", "a"), ("trial-0001", None)):  # the second was lost before MLflow knew of it
        records.write(Trial(name, {}, status="finished"))
        shutil.copytree(FORMER, records.run_dir(name))
        path = records.run_dir(name) / directory.RUN
        path.write_text(json.dumps({**json.loads(path.read_text()), "mlflow_run_id": run_id}))

    def end(uri: str, run_id: str, run_dir: Path, status: str, reason: str) -> bool:
        ended.append((run_id, status))
        return answers

    monkeypatch.setattr(tracking, "end", end)
    out = io.StringIO()
    end_runs(toy_config(tmp_path), records, Reporter(Console(file=out, width=200)))
    assert ended == [("a", "FINISHED")]
    assert ("MLflow is away; the end of trial-0000 waits on disk" in out.getvalue()) is not answers
