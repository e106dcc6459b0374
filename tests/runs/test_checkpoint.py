import errno
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arrays import f32

from distmeta.errors import CheckpointError
from distmeta.runs import checkpoint
from distmeta.types import ServerState

IDENTITY = {"config": "c", "data": "d"}


def state(version: int) -> ServerState:
    arrays = {"meta_params": f32(version, 2.5), "optimizer.step": np.array(version, np.float32)}
    return ServerState(arrays, {"version": version}, [{"index": 1, "names": ["a"], "reason": "nan"}])


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(3), IDENTITY, keep=2)
    loaded, identity = checkpoint.load(tmp_path)
    assert identity == IDENTITY
    assert loaded.counters == {"version": 3}
    assert loaded.rejected == state(3).rejected
    assert loaded.arrays["meta_params"].tobytes() == f32(3, 2.5).tobytes()
    assert loaded.arrays["optimizer.step"].shape == ()


def test_the_newest_is_loaded_and_only_so_many_are_kept(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        checkpoint.save(tmp_path, state(version), IDENTITY, keep=2)
    assert checkpoint.load(tmp_path)[0].counters == {"version": 10}
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000010"]


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1), IDENTITY, keep=2)
    (tmp_path / "checkpoints" / ".step-00000002.77").mkdir()
    assert checkpoint.load(tmp_path)[0].counters == {"version": 1}


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "SHA256SUMS"])
def test_any_altered_byte_is_noticed(tmp_path: Path, name: str) -> None:
    folder = checkpoint.save(tmp_path, state(1), IDENTITY, keep=2)
    content = bytearray((folder / name).read_bytes())
    for position in range(len(content)):
        altered = bytearray(content)
        altered[position] ^= 1
        (folder / name).write_bytes(altered)
        with pytest.raises(CheckpointError, match="step-00000001"):
            checkpoint.load(tmp_path)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "SHA256SUMS"])
def test_a_file_cut_short_or_missing_is_noticed(tmp_path: Path, name: str) -> None:
    folder = checkpoint.save(tmp_path, state(1), IDENTITY, keep=2)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="start a new run"):
        checkpoint.load(tmp_path)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="start a new run"):
        checkpoint.load(tmp_path)


def test_the_one_before_is_offered_and_can_be_taken(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1), IDENTITY, keep=2)
    folder = checkpoint.save(tmp_path, state(2), IDENTITY, keep=2)
    (folder / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="take the one before with `--step 1`"):
        checkpoint.load(tmp_path)
    assert checkpoint.load(tmp_path, 1)[0].counters["version"] == 1
    checkpoint.save(tmp_path, state(2), IDENTITY, keep=2)  # the run comes by again
    assert checkpoint.load(tmp_path)[0].counters["version"] == 2


def test_a_step_without_a_checkpoint_is_refused_with_those_there_are(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1), IDENTITY, keep=2)
    checkpoint.save(tmp_path, state(10), IDENTITY, keep=2)
    with pytest.raises(CheckpointError, match="no checkpoint of outer step 7; choose among 1, 10"):
        checkpoint.load(tmp_path, 7)


@pytest.mark.parametrize("at", ["mkdir", "rename", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    checkpoint.save(tmp_path, state(1), IDENTITY, keep=2)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("distmeta.runs.checkpoint.save_file" if at == "replace" else f"pathlib.Path.{at}", full)
        with pytest.raises(CheckpointError, match=r"cannot be written .*No space left .*make room"):
            checkpoint.save(tmp_path, state(2), IDENTITY, keep=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert checkpoint.load(tmp_path)[0].counters["version"] == 1


def test_a_real_full_disk(tmp_path: Path) -> None:
    """A file system of 64 KiB, which only root can mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        checkpoint.save(disk, ServerState({"meta_params": f32(*range(1000))}, {"version": 1}), IDENTITY, keep=2)
        large = ServerState({"meta_params": f32(*range(100_000))}, {"version": 2})
        with pytest.raises(CheckpointError, match="cannot be written"):
            checkpoint.save(disk, large, IDENTITY, keep=2)
        assert checkpoint.load(disk)[0].counters["version"] == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        checkpoint.load(tmp_path)
