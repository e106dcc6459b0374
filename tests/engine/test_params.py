import hashlib

import numpy as np
import pytest
import torch
from arrays import f32

from distmeta.engine.params import LastParams, Layout, sha256
from distmeta.types import Params

PARAMS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(7.0)}


def test_flatten_and_back() -> None:
    layout = Layout.of(PARAMS)
    vector = layout.flatten(PARAMS)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert vector.dtype == np.float32
    assert vector.flags.c_contiguous
    back = layout.unflatten(vector)
    assert list(back) == ["b", "a"]
    assert all(torch.equal(back[name], PARAMS[name]) for name in PARAMS)


def test_unflatten_copies_what_is_read_only() -> None:
    vector = np.zeros(7, np.float32)
    vector.flags.writeable = False
    Layout.of(PARAMS).unflatten(vector)["a"].add_(1)
    assert not vector.any()


def test_a_vector_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="7 elements"):
        Layout.of(PARAMS).unflatten(np.zeros(8, np.float32))


def test_no_parameters_at_all() -> None:
    assert Layout.of({}).flatten({}).shape == (0,)


def test_sha256_is_of_the_bytes() -> None:
    assert sha256(f32(1.5)) == hashlib.sha256(b"\x00\x00\xc0\x3f").hexdigest()


def test_parameters_of_a_vector_that_cannot_change_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, made = Layout(("a", "b"), ((2,), ())), list[float]()
    unflatten = Layout.unflatten

    def unflattening(self: Layout, vector: np.ndarray, device: str = "cpu") -> Params:
        made.append(float(vector[0]))
        return unflatten(self, vector, device)

    monkeypatch.setattr(Layout, "unflatten", unflattening)
    last = LastParams(layout, "cpu")
    first, second, changing = (np.array([value, 2, 3], np.float32) for value in (1, 4, 6))
    for vector in (first, second):
        vector.setflags(write=False)
    for vector in (first, first.view(), second, second, first, changing):
        assert last.of(vector)["a"][0] == vector[0]
    changing[0] = 7
    assert last.of(changing)["a"][0] == 7
    assert made == [1, 4, 1, 6, 7]
