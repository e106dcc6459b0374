"""Runs in MLflow. MLflow is imported only when it is used, since the import takes seconds.

uri.py       the address of a store, and whether it answers
sqlite.py    whether a store in a file can be used
store.py     opens a store, and looks up runs
outbox.py    entries that wait while MLflow is away
private.py   the undocumented parts of MLflow that are used
tracker.py   logs one run
origin.py    user, source, git commit and data of a run
machine.py   figures of the driver's machine
models.py    logs and registers learners and tasks as models; served.py is their code
fetch.py     finds what was registered
late.py      sends what waited, and the end of a run whose process was lost
history.py   reads an ended run's metrics, and adds files to it
"""

from distmeta.tracking.fetch import fetch, run_of
from distmeta.tracking.history import History, attach, histories
from distmeta.tracking.late import end, sync
from distmeta.tracking.machine import check_system
from distmeta.tracking.models import PACKAGES, PREFIX, Content, Registered, check_names, register
from distmeta.tracking.origin import Dataset, origin
from distmeta.tracking.store import find_run_dir, serve, ui_command, wait
from distmeta.tracking.tracker import Ended, Tracker, flatten
from distmeta.tracking.uri import address, check_store, database, environment, mask, resolve_uri

__all__ = [
    "PACKAGES",
    "PREFIX",
    "Content",
    "Dataset",
    "Ended",
    "History",
    "Registered",
    "Tracker",
    "address",
    "attach",
    "check_names",
    "check_store",
    "check_system",
    "database",
    "end",
    "environment",
    "fetch",
    "find_run_dir",
    "flatten",
    "histories",
    "mask",
    "origin",
    "register",
    "resolve_uri",
    "run_of",
    "serve",
    "sync",
    "ui_command",
    "wait",
]
