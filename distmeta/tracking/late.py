"""What is sent to MLflow after a run's own process has ended."""

from __future__ import annotations

from pathlib import Path

from distmeta.errors import TrackingError
from distmeta.tracking.outbox import Outbox
from distmeta.tracking.store import connect, is_outage, outages, user_errors
from distmeta.tracking.tracker import REASON_TAG, UNSENT, Ended, Note, Tracker
from distmeta.tracking.uri import mask


def sync(uri: str, run_id: str, run_dir: Path, note: Note = print) -> int:
    """Sends the entries that an ended run could not send; returns their number.

    Raises:
        TrackingError: MLflow refuses them or does not answer.
    """
    outbox = Outbox(run_dir / UNSENT)
    count = len(outbox.entries)
    if not count:
        return 0
    with user_errors(uri):
        tracker = Tracker(uri, connect(uri), run_id, {}, outbox, note)
    tracker.flush(now=True)
    if outbox.entries:
        raise TrackingError(f"MLflow at {mask(uri)}", "is still away", "try again when it answers")
    return count


def end(uri: str, run_id: str, run_dir: Path, status: Ended, reason: str = "") -> bool:
    """Ends a run that its own process did not end: the process was lost, or the run paused and is not continued.

    Returns:
        Whether MLflow has recorded the end. If MLflow is away, the end waits in `run_dir` for `sync`.

    Raises:
        TrackingError: MLflow refuses it.
    """
    with user_errors(uri):
        try:
            client = connect(uri)
            info = client.get_run(run_id).info
            if info.status != status:
                if reason:
                    client.set_tag(run_id, REASON_TAG, reason)
                client.set_terminated(run_id, status, info.end_time)
        except outages() as error:
            if not is_outage(error):
                raise
            outbox = Outbox(run_dir / UNSENT)
            outbox.drop("end")
            outbox.entries += [{"tag": [REASON_TAG, reason]}] if reason else []
            outbox.entries.append({"end": status})
            outbox.keep()
            return False
    return True
