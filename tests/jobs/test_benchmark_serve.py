"""The script that puts the service under load: in small it shows that nothing is lost, not how fast it is."""

import importlib.util
import sys
from pathlib import Path

import pytest
from use_helpers import untrained

SCRIPT = Path(__file__).parents[2] / "jobs" / "benchmark_serve.py"


@pytest.mark.nightly
def test_under_load_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc_reflection", reason="needs the serve extra")
    spec = importlib.util.spec_from_file_location("benchmark_serve", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_serve", module)
    spec.loader.exec_module(module)
    untrained(tmp_path, "protonet").save(tmp_path / "learner")
    # It asserts for itself that no request is lost, also while a replica is killed, and that overload gets 429.
    result = module.measure(str(tmp_path), tasks=8, clients=8, seconds=8, alone=10, replicas="1")
    assert result["difference"] < 1e-4
    assert result["load"]["answers"]["200"] > 8
    assert result["killed"]["answers"]["200"] > 8
    assert set(result["overload"]["answers"]) == {"200", "429"}
    assert 100 < result["memory_mib"] < 10_000
