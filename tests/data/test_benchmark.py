"""The script that measures how long data take to read: what it makes can be read, and its figures are of that."""

import importlib.util
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from source_helpers import labels, read, texts

SCRIPT = Path(__file__).parents[2] / "jobs" / "benchmark_data.py"


@pytest.mark.nightly
def test_the_three_files_hold_the_same_and_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_data", module)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PART", 700)
    paths = module.write(tmp_path, 2000)
    sources = [read(path) for path in paths]
    assert {source.fingerprint for source in sources} == {sources[0].fingerprint}
    assert (len(set(texts(sources[0]))), len(set(labels(sources[0])))) == (2000, 200)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        rows, seconds, peak = pool.submit(module.measure, paths[0]).result()
    assert rows == 2000
    assert len(seconds) == 3
    assert 50 < peak < 1500
