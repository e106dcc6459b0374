"""Tasks that arrive in rounds: order, drift, memory and the graph, by hand."""

from dataclasses import replace

import numpy as np
import pytest
from streams import POINTS, schedule, settings

from distmeta.tasks.rounds import cosines, episode_sources, nearest, visit_order


def test_a_task_comes_back_after_its_gap_and_only_then() -> None:
    """Certain to come back, after a gap of 2: rounds 0 to 2 are new, and then each task is the one away longest."""
    assert visit_order(settings(tasks=7, recurrence=1.0), None, seed=0) == [0, 1, 2, 0, 1, 2, 0]
    assert visit_order(settings(tasks=7), None, seed=0) == [0, 1, 2, 3, 4, 5, 6]
    exhausted = visit_order(settings(tasks=7), 4, seed=0)
    assert exhausted[:4] == [0, 1, 2, 3]
    assert max(exhausted) == 3
    for seed in range(20):
        order = visit_order(settings(tasks=30, recurrence=0.5, gap=3), None, seed)
        assert all(order[t] not in order[max(0, t - 3) : t] for t in range(30))
        assert 2 < 30 - len(set(order)) < 28
        assert visit_order(settings(tasks=12, recurrence=0.5, gap=3), None, seed) == order[:12]


def test_the_buffer_holds_the_latest_rounds() -> None:
    its = schedule()
    assert [list(its.buffer(now)) for now in range(4)] == [[], [0], [0, 1], [1, 2]]


def test_edges_lead_to_the_nearest_remembered_rounds() -> None:
    """From round 2 (0°): 1 to round 0 and ½ to round 1; at temperature ½ the weights are ∝ e² and e¹."""
    first, second = schedule().edges(2, 2, 2)
    share = 1 / (1 + np.exp(-1.0))
    assert (first.round, second.round) == (0, 1)
    assert (first.weight, second.weight) == pytest.approx((share, 1 - share))
    assert [tuple(edge) for edge in schedule().edges(2, 2, 1)] == [(0, 1.0)]
    assert [edge.round for edge in schedule().edges(3, 3, 2)] == [1, 2]  # round 0 is remembered no more
    assert [edge.round for edge in schedule().edges(3, 1, 2)] == [2]  # a round is no neighbour of its own
    assert schedule().edges(0, 0, 2) == []
    # Within 45° of round 3 (90°) is round 1 (60°) alone, and of round 2 (0°) round 0.
    near = schedule(min_similarity=0.7)
    assert [near.edges(now, now, 2) for now in (3, 2)] == [[(1, 1.0)], [(0, 1.0)]]


def test_a_cosine_is_of_what_arrives_to_what_is_kept_whatever_the_lengths() -> None:
    """Of 0° and 60° to 90° and 0°."""
    similarity = cosines(2 * POINTS[:2], 3 * POINTS[[3, 0]])
    assert similarity.tolist() == [pytest.approx([0, 1], abs=1e-12), pytest.approx([0.75**0.5, 0.5])]


def test_weights_are_numbers_at_any_temperature() -> None:
    cold = nearest(np.array([0.5, 1.0]), [0, 1], settings(temperature=1e-4), None)
    assert [tuple(edge) for edge in cold] == [(1, 1.0), (0, 0.0)]


def test_what_comes_later_changes_nothing_earlier() -> None:
    """Rounds 2 and 3 bring other texts: what rounds 0 to 2 start from and replay stays, up to the end of round 1."""
    config = settings(replay=0.5, drift=0.5, buffer=3)
    changed = POINTS.copy()
    changed[2:] = [[-1.0, 0.2], [0.3, -1.0]]
    before, after = cosines(POINTS, POINTS), cosines(changed, changed)
    sources = [episode_sources(config, 4, similarity, seed=1) for similarity in (before, after)]
    assert np.array_equal(sources[0][:32], sources[1][:32])
    assert not np.array_equal(sources[0], sources[1])
    for now in range(2):
        assert nearest(before[now], range(now), config, 2) == nearest(after[now], range(now), config, 2)
    # Nor does the similarity of an earlier round to a later one, even where it is another.
    before[:2, 2:] = 0.123
    assert np.array_equal(episode_sources(config, 4, before, seed=1)[:48], sources[0][:48])


def test_replay_takes_its_share_of_every_meta_batch_from_the_buffer() -> None:
    similarity = cosines(POINTS, POINTS)
    sources = episode_sources(settings(replay=0.25, steps_per_task=500), 4, similarity, seed=3).reshape(4, 500, 4)
    assert (sources[0] == 0).all()
    for now in range(1, 4):
        assert (sources[now, :, :3] == now).all()
        assert set(sources[now, :, 3]) == set(range(max(0, now - 2), now))
    # Of 500 draws from round 2, e²/(e² + e) = 0.731 go to round 0; three standard deviations are 0.06.
    assert (sources[2, :, 3] == 0).mean() == pytest.approx(0.731, abs=0.06)


def test_drift_grows_from_nothing_to_its_share() -> None:
    """Step s of 5 takes s/4 · 0.8 of its episodes from the next round; the last round has no next."""
    sources = episode_sources(settings(drift=0.8, steps_per_task=5), 4000, np.zeros((4, 4)), seed=3).reshape(4, 5, 4000)
    for now in range(3):
        shares = (sources[now] == now + 1).mean(1)
        assert shares == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=0.03)
        assert ((sources[now] == now) | (sources[now] == now + 1)).all()
    assert (sources[3] == 3).all()


def test_a_class_is_shared_out_to_the_rounds_that_bring_it() -> None:
    """Class a is in rounds 0, 2 and 3: of 12 rows each has 4, of which a quarter is held out."""
    its, rows = schedule(held_out=0.25), np.arange(100, 112)
    parts = [its.share(round, "a", rows) for round in (0, 2, 3)]
    assert [(len(held), len(rest)) for held, rest in parts] == [(1, 3)] * 3
    assert sorted(np.concatenate([row for part in parts for row in part])) == list(range(100, 112))
    assert [len(part) for part in its.share(1, "c", rows)] == [3, 9]
    held = [set(replace(its, seed=seed).share(1, "c", rows)[0]) for seed in (0, 1)]
    assert held[0] != held[1]


def test_titles_are_what_people_call_a_task() -> None:
    its = replace(schedule(), tasks=(("books/0", "books/1"), ("a", "b"), ("a/x", "b/x")))
    assert [its.title(round) for round in range(3)] == ["books", "a, b", "a/x, b/x"]
