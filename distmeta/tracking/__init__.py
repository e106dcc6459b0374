"""Runs in MLflow. Nothing here imports MLflow, which takes seconds, before it is used.

uri.py       the address of a store, and whether it answers
store.py     opening it, and looking runs up
outbox.py    what waits while it is away
private.py   what is needed of it that its documentation does not promise
tracker.py   one run that is being logged
"""

from distmeta.tracking.store import find_run_dir, ui_command, wait
from distmeta.tracking.tracker import Ended, Tracker, end, flatten, sync
from distmeta.tracking.uri import check_store, environment, mask, resolve_uri

__all__ = [
    "Ended",
    "Tracker",
    "check_store",
    "end",
    "environment",
    "find_run_dir",
    "flatten",
    "mask",
    "resolve_uri",
    "sync",
    "ui_command",
    "wait",
]
