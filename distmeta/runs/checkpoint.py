"""Checkpoints: hashed safetensors and JSON files, written aside and renamed, checked on load. Nothing is unpickled.

RUN/checkpoints/step-00000100/state.safetensors   θ and the optimiser's arrays
                              state.json          counters, and the run's identity
                              SHA256SUMS          hashes of both, as `sha256sum -c` reads it
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from distmeta.errors import CheckpointError
from distmeta.storage import check_sums, require_format, sync, write_sums
from distmeta.types import ServerState

FOLDER, TENSORS, DOCUMENT = "checkpoints", "state.safetensors", "state.json"
FORMAT = 2  # format 1 had no number; its identity was one hash of all settings


def save(run_dir: Path, state: ServerState, identity: dict[str, Any], keep: int) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`.

    Args:
        run_dir: the run's directory.
        state: what to keep.
        identity: the run's identity; `load` returns it.
        keep: how many checkpoints to leave.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: it cannot be written; earlier checkpoints are unchanged.
    """
    folder = run_dir / FOLDER
    try:
        return _save(folder, state, identity, keep)
    except (OSError, SafetensorError) as error:
        remedy = f"make room or allow writing, then `distmeta train --resume {run_dir}`"
        raise CheckpointError(str(folder), f"a checkpoint cannot be written ({error})", remedy) from error
    finally:
        for aside in folder.glob(".step-*"):  # also those that a killed process has left
            shutil.rmtree(aside, ignore_errors=True)


def _save(folder: Path, state: ServerState, identity: dict[str, Any], keep: int) -> Path:
    final = _folder(folder, state.counters["version"])
    aside = folder / f".{final.name}.{os.getpid()}"
    aside.mkdir(parents=True)
    save_file(state.arrays, aside / TENSORS)
    document = {"format": FORMAT, "counters": state.counters, "rejected": state.rejected, "identity": identity}
    (aside / DOCUMENT).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_sums(aside)
    if final.exists():  # from before the run went back to an earlier step
        final.rename(aside.with_suffix(".old"))
    aside.rename(final)
    sync(folder)
    for old in _folders(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def exists(run_dir: Path) -> bool:
    """Whether a run has a checkpoint. A run that was killed before its first checkpoint has none."""
    return bool(_folders(run_dir / FOLDER))


def load(run_dir: Path, step: int | None = None) -> tuple[ServerState, dict[str, Any]]:
    """Reads a checkpoint: the newest, or the one of an outer step.

    Raises:
        CheckpointError: there is none, or a file was altered.
    """
    folders = _folders(run_dir / FOLDER)
    if not folders:
        raise CheckpointError(str(run_dir), "has no checkpoint", f"train it with `distmeta train --resume {run_dir}`")
    folder = folders[-1] if step is None else _folder(run_dir / FOLDER, step)
    others = [other for other in folders if other != folder]
    if folder not in folders:
        steps = ", ".join(str(_step(other)) for other in others)
        raise CheckpointError("--step", f"{run_dir} has no checkpoint of outer step {step}", f"choose among {steps}")
    before = [other for other in others if other < folder]
    instead = f"take the one before with `--step {_step(before[-1])}`" if before else "start a new run"
    remedy = f"restore it from a backup, or {instead}"
    check_sums(folder, remedy)
    document: dict[str, Any] = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    require_format(document, folder, FORMAT)
    state = ServerState(load_file(folder / TENSORS), document["counters"], document["rejected"])
    return state, document["identity"]


def _folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _folders(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))
