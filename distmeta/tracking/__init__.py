"""Runs in MLflow. MLflow is imported only when it is used, since the import takes seconds.

uri.py       the address of a store, and whether it answers
sqlite.py    whether a store in a file can be used
store.py     opens a store, and looks up runs
outbox.py    entries that wait while MLflow is away
private.py   the undocumented parts of MLflow that are used
tracker.py   logs one run
late.py      sends what waited, and the end of a run whose process was lost
history.py   reads an ended run's metrics, and adds files to it
"""

from distmeta.tracking.history import History, attach, histories
from distmeta.tracking.late import end, sync
from distmeta.tracking.store import find_run_dir, serve, ui_command, wait
from distmeta.tracking.tracker import Ended, Tracker, flatten
from distmeta.tracking.uri import address, check_store, database, environment, mask, resolve_uri

__all__ = [
    "Ended",
    "History",
    "Tracker",
    "address",
    "attach",
    "check_store",
    "database",
    "end",
    "environment",
    "find_run_dir",
    "flatten",
    "histories",
    "mask",
    "resolve_uri",
    "serve",
    "sync",
    "ui_command",
    "wait",
]
