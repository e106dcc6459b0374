from pathlib import Path

from distmeta.tracking.outbox import Outbox


def entries(numbers: range) -> list[dict[str, int]]:
    return [{"n": n} for n in numbers]


def test_what_is_kept_is_there_for_the_next_process(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "unsent.jsonl")
    outbox.entries += entries(range(3))
    assert not outbox.path.exists()
    outbox.keep()
    outbox.entries += entries(range(3, 5))
    outbox.keep()
    assert Outbox(outbox.path).entries == entries(range(5))


def test_what_was_sent_is_gone(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "unsent.jsonl")
    outbox.entries += entries(range(4))
    outbox.keep()
    outbox.take(3)
    outbox.entries += entries(range(4, 6))
    assert Outbox(outbox.path).entries == entries(range(3, 4))
    outbox.keep()
    assert Outbox(outbox.path).entries == entries(range(3, 6))
    outbox.take(3)
    assert list(tmp_path.iterdir()) == []


def test_a_line_cut_short_does_not_count(tmp_path: Path) -> None:
    """The process was killed while it was written, so nothing was promised about it."""
    (tmp_path / "unsent.jsonl").write_text('{"n": 0}\n{"n": 1')
    outbox = Outbox(tmp_path / "unsent.jsonl")
    assert outbox.entries == entries(range(1))
    outbox.entries += entries(range(1, 2))
    outbox.keep()
    assert Outbox(outbox.path).entries == entries(range(2))


def test_a_kind_is_dropped_on_disk_too(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "unsent.jsonl")
    outbox.entries += [{"a": 1}, {"end": "KILLED"}]
    outbox.keep()
    outbox.drop("end")
    outbox.entries += [{"b": 2}]
    outbox.keep()
    assert Outbox(outbox.path).entries == [{"a": 1}, {"b": 2}]
