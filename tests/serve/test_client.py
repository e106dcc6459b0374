"""The client, against a server on this machine."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serve_helpers import EXAMPLES, LocalService
from use_helpers import NEW

from distmeta.client import Client, RefusedError
from distmeta.errors import ConfigError
from distmeta.serve.limits import Limits
from distmeta.use.learner import load

TEXTS, LABELS = [e["text"] for e in EXAMPLES], [e["label"] for e in EXAMPLES]
TOKEN = "a-token-of-sixteen-or-more"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("served")
    with LocalService(folder, token=TOKEN).listening() as address:
        yield folder, address


def test_it_does_what_a_task_does(served: tuple[Path, str]) -> None:
    folder, address = served
    client = Client(address, TOKEN, at_once=3)
    task, alone = client.adapt(TEXTS, LABELS, name="mine"), load(folder / "learner").adapt(TEXTS, LABELS)
    assert (task.names, task.about["name"]) == (alone.names, "mine")
    assert np.allclose(task.predict_proba(NEW), alone.predict_proba(NEW), atol=1e-5)
    assert task.predict(NEW) == alone.predict(NEW)
    task.grow(["topic9 word1"], ["new"])
    again = alone.grow(["topic9 word1"], ["new"])
    assert np.allclose(client.task(task.id).predict_proba(NEW), again.predict_proba(NEW), atol=1e-5)
    assert [each["id"] for each in client.tasks()] == [task.id]
    assert client.health()["status"] == "ok"
    task.delete()
    assert list(client.tasks()) == []


def test_a_refusal_says_what_is_wrong(served: tuple[Path, str]) -> None:
    client = Client(served[1], TOKEN)
    with pytest.raises(RefusedError, match=r"examples\[1\].label: String should have at least 1 character") as caught:
        client.adapt(["a", "b"], ["a", ""])
    assert caught.value.status == 422
    with pytest.raises(RefusedError, match="Not Found"):
        client.task("../../etc/passwd")
    with pytest.raises(RefusedError, match="the token is wrong") as caught:
        list(Client(served[1], "wrong").tasks())
    assert caught.value.status == 401
    with pytest.raises(ConfigError, match="2 texts and 1 labels"):
        client.adapt(["a", "b"], ["a"])


def test_a_body_of_100_mb_is_refused_while_it_is_sent(served: tuple[Path, str]) -> None:
    with pytest.raises(RefusedError, match="more than 4194304 bytes") as caught:
        Client(served[1], TOKEN).call("POST", "/tasks", "a" * 100_000_000)
    assert caught.value.status == 413


def test_it_comes_again_when_it_is_told_to(tmp_path: Path) -> None:
    service = LocalService(tmp_path, Limits(rate=2, burst_seconds=0.5))
    with service.listening() as address:
        for _ in range(2):
            assert list(Client(address).tasks()) == []
        impatient = Client(address, patience=0)
        with pytest.raises(RefusedError, match="more than 2 requests a second") as caught:
            _ = [impatient.call("GET", "/tasks") for _ in range(20)]
    assert caught.value.status == 429


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://x", "", "http://", "http://me:secret@host"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(address)
    assert "secret" not in str(caught.value)


def test_a_service_that_is_not_there() -> None:
    with pytest.raises(OSError, match="refused"):
        Client("http://127.0.0.1:9").health()


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, distmeta.client; print(*{name.split('.')[0] for name in sys.modules})"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    extra = set(found.stdout.split()) - sys.stdlib_module_names
    assert extra <= {"distmeta", "__main__"}
