"""The service's addresses: what they answer, and how they refuse."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_helpers import EXAMPLES, JSON, LocalService
from use_helpers import NEW, untrained

from distmeta.serve.limits import Limits
from distmeta.use.learner import load

TOKEN = "a-token-of-sixteen-or-more"


@pytest.fixture
def service(tmp_path: Path) -> LocalService:
    return LocalService(tmp_path)


def test_a_task_is_learned_asked_grown_and_deleted(service: LocalService, tmp_path: Path) -> None:
    made = service("POST", "/tasks", {"examples": EXAMPLES, "name": "mine"})
    assert made.status == 201
    task = made.json["id"]
    assert made.headers["location"] == f"/tasks/{task}"
    alone = load(tmp_path / "learner").adapt([e["text"] for e in EXAMPLES], [e["label"] for e in EXAMPLES])
    assert alone.expected is not None
    assert made.json == service("GET", f"/tasks/{task}").json
    assert {key: made.json[key] for key in ("name", "classes", "examples", "version")} == {
        **{"name": "mine", "classes": list(alone.names), "examples": 6, "version": 1}
    }
    assert made.json["expected"]["right"] == alone.expected.right

    found = service("POST", f"/tasks/{task}/predict", {"inputs": NEW}).json["predictions"]
    shares = [[its["probabilities"][name] for name in alone.names] for its in found]
    assert np.allclose(shares, alone.predict_proba(NEW), atol=1e-5)
    assert [its["label"] for its in found] == alone.predict(NEW)

    more = {"examples": [{"text": "topic9 word1", "label": "a new class"}]}
    grown = service("POST", f"/tasks/{task}/examples", more)
    assert grown.status == 200
    assert (grown.json["version"], grown.json["examples"], len(grown.json["classes"])) == (2, 7, 4)
    assert grown.json["name"] == "mine"
    again = alone.grow(["topic9 word1"], ["a new class"])
    found = service("POST", f"/tasks/{task}/predict", {"inputs": NEW}).json["predictions"]
    shares = [[its["probabilities"][name] for name in again.names] for its in found]
    assert np.allclose(shares, again.predict_proba(NEW), atol=1e-5)

    deleted = service("DELETE", f"/tasks/{task}")
    assert (deleted.status, deleted.body) == (204, b"")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/predict"), ("POST", "/examples")):
        body = {"inputs": NEW} if path == "/predict" else more if path else None
        assert service(method, f"/tasks/{task}{path}", body).status == 404


def test_examples_that_are_cut_are_counted(service: LocalService) -> None:
    task = service.make([*EXAMPLES, {"text": "topic1 " * 65, "label": "class 1"}])
    assert service("GET", f"/tasks/{task}").json["cut"] == 1
    more = {"examples": [{"text": "topic1 " * 64, "label": "class 1"}, {"text": "word " * 99, "label": "class 1"}]}
    assert service("POST", f"/tasks/{task}/examples", more).json["cut"] == 2


def test_tasks_are_listed_by_pages(service: LocalService) -> None:
    ids = sorted(service.make() for _ in range(3))
    first = service("GET", "/tasks?limit=2").json
    assert ([task["id"] for task in first["tasks"]], first["total"], first["next"]) == (ids[:2], 3, ids[1])
    rest = service("GET", f"/tasks?limit=2&after={first['next']}").json
    assert ([task["id"] for task in rest["tasks"]], rest["next"]) == (ids[2:], None)
    (service.store.newest(ids[0]) / "task.json").write_text("[]")
    assert "holds no object" in service("GET", "/tasks").json["tasks"][0]["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("/tasks", {}, 422, "examples"),
        ("/tasks", [], 422, "body"),
        ("/tasks", {"examples": []}, 422, "examples"),
        ("/tasks", {"examples": [{"text": "a", "label": ""}]}, 422, "examples[0].label"),
        ("/tasks", {"examples": [EXAMPLES[0], {"text": 3, "label": "b"}]}, 422, "examples[1].text"),
        ("/tasks", {"examples": [EXAMPLES[0], {"text": " ", "label": "b"}]}, 422, "examples[1]"),
        ("/tasks", {"examples": [EXAMPLES[0], {"text": "a"}]}, 422, "examples[1].label"),
        ("/tasks", {"examples": [{"text": "a" * 10_001, "label": "b"}]}, 422, "examples[0].text"),
        ("/tasks", {"examples": EXAMPLES * 500}, 422, "examples"),
        ("/tasks", {"examples": [{"text": "a", "label": str(n)} for n in range(201)]}, 422, "examples"),
        ("/tasks", {"examples": EXAMPLES, "wrong": 0.3}, 422, "wrong"),
        ("/tasks", {"examples": EXAMPLES, "wrong": True}, 422, "wrong"),
        ("/tasks", {"examples": EXAMPLES, "family": "other"}, 422, "family"),
        ("/tasks", {"examples": EXAMPLES, "surprise": 1}, 422, "surprise"),
        ("/tasks", b"\xff\xfe", 400, "body"),
        ("/tasks", b'{"examples": [', 400, "body"),
        ("/tasks", b"[" * 100_000, 400, "body"),
        ("/tasks", b'{"examples": ' + b"9" * 5000 + b"}", 400, "body"),
        ("/tasks", b'{"examples": NaN}', 422, "examples"),
        ("/tasks", b'{"examples": [{"text": "\\ud800", "label": "a"}]}', 422, "examples[0].text"),
        ("/tasks", b'{"\\ud800": 1, "examples": []}', 422, "body"),
        ("/tasks/{id}/predict", {"inputs": ["a"] * 257}, 422, "inputs"),
        ("/tasks/{id}/predict", {"inputs": ["topic1", "  "]}, 422, "inputs[1]"),
        ("/tasks/{id}/predict", {"inputs": ["topic1"], "abstain": 1}, 422, "abstain"),
        ("/tasks/{id}/predict", {"inputs": "topic1"}, 422, "inputs"),
        ("/tasks/{id}/examples", {"examples": [EXAMPLES[0]] * 1995}, 422, "examples"),
        ("/tasks/{id}/examples", {"examples": [EXAMPLES[0], {"text": " ", "label": "b"}]}, 422, "examples[1]"),
        ("/tasks/" + "0" * 32 + "/predict", {"inputs": ["topic1"]}, 404, "task"),
        ("/tasks/..%2f..%2fetc/predict", {"inputs": ["topic1"]}, 404, "task"),
    ],
)
def test_a_mistake_is_refused_with_its_place(
    service: LocalService, path: str, body: Any, status: int, where: str
) -> None:
    answer = service("POST", path.replace("{id}", service.make()), body)
    assert (answer.status, answer.json["error"]["where"]) == (status, where), answer.json
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]["remedy"]


@pytest.mark.parametrize("text", ["\0", "a\0b", "\u2028.", "🙂" * 500, "\u202e", "<script>", "=1+1", "{}", "a" * 9990])
def test_any_text_can_be_learned_and_predicted(service: LocalService, text: str) -> None:
    task = service.make([*EXAMPLES, {"text": f"topic1 {text}", "label": text[:200]}])
    assert text[:200] in service("GET", f"/tasks/{task}").json["classes"]
    assert service("POST", f"/tasks/{task}/predict", {"inputs": [f"topic1 {text}"]}).status == 200


@pytest.mark.parametrize("task", ["..", ".", "A" * 32, "0" * 31, "0" * 33, "tasks.json", "%2e%2e", "\u0660" * 32])
def test_an_id_is_nothing_but_an_id(service: LocalService, task: str) -> None:
    assert service("GET", f"/tasks/{task}").status == 404
    assert service("DELETE", f"/tasks/{task}").status == 404
    assert service.store.folder.is_dir()


def test_a_long_body_is_refused_before_it_is_read(service: LocalService) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 2**16
            yield b"a" * 2**16

    declared = asyncio.run(service.raw("POST", "/tasks", endless(), {**JSON, "content-length": str(10**8)}))
    assert (declared.status, declared.json["error"]["where"]) == (413, "body")
    assert read <= 2**20 + 2**16, "a little is taken in, so that the client sees the answer"
    read = 0
    chunked = asyncio.run(service.raw("POST", "/tasks", endless(), {**JSON, "transfer-encoding": "chunked"}))
    assert chunked.status == 413
    assert read <= 5 * 2**20 + 2**17


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    service = LocalService(tmp_path, Limits(body_seconds=0.05))

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    assert asyncio.run(service.raw("POST", "/tasks", slow(), dict(JSON))).status == 408


def test_a_body_must_be_declared_as_json(service: LocalService) -> None:
    """A page of another site can send other kinds of bodies without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert service("POST", "/tasks", {"examples": EXAMPLES}, content_type=kind).status == 415


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"]
)
def test_without_the_token_there_is_nothing(tmp_path: Path, given: str) -> None:
    service = LocalService(tmp_path, token=TOKEN)
    closed = [("GET", "/tasks"), ("POST", "/tasks"), ("DELETE", "/tasks/x"), ("GET", "/metrics"), ("GET", "/x")]
    for method, path in closed:
        answer = service(method, path, **({"authorization": given} if given else {}))
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.body.decode()
    assert service("GET", "/tasks", authorization=f"Bearer {TOKEN}").status == 200
    assert service("GET", "/tasks", authorization=f"bearer {TOKEN}").status == 200
    assert [service("GET", path).status for path in ("/", "/docs", "/health", "/openapi.json")] == [200] * 4


def test_a_name_that_points_here_is_not_answered(tmp_path: Path) -> None:
    service = LocalService(tmp_path, hosts=["localhost", "127.0.0.1", "::1"])
    for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:80", "[::1]:8000", "[::1]"):
        assert service("GET", "/tasks", host=host).status == 200, host
    for host in ("evil.example:8000", "evil.example", "", "127.0.0.1.evil.example"):
        assert service("GET", "/tasks", host=host).status == 403, host


def test_each_address_has_its_own_rate(tmp_path: Path) -> None:
    service = LocalService(tmp_path, Limits(rate=0.1, burst_seconds=20))

    async def ask(client: str) -> Any:
        async def nothing() -> AsyncIterator[bytes]:
            for _ in range(0):
                yield b""

        return await service.raw("GET", "/tasks", nothing(), {}, client)

    assert [asyncio.run(ask("10.0.0.1")).status for _ in range(3)] == [200, 200, 429]
    answer = asyncio.run(ask("10.0.0.1"))
    assert 1 <= int(answer.headers["retry-after"]) <= 10
    assert answer.json["error"]["where"] == "rate"
    assert asyncio.run(ask("10.0.0.2")).status == 200
    assert service("GET", "/health").status == 200


def test_too_many_at_once_are_told_to_come_again(tmp_path: Path) -> None:
    service = LocalService(tmp_path, Limits(adaptations=2, pending=5, rate=1e6))

    async def load() -> list[int]:
        service.replicas.lock = asyncio.Event()
        adapting = [asyncio.create_task(service.send("POST", "/tasks", {"examples": EXAMPLES})) for _ in range(3)]
        await asyncio.wait(adapting, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        refused = [task.result() for task in adapting if task.done()]
        others = [asyncio.create_task(service.send("POST", "/tasks", {"examples": EXAMPLES})) for _ in range(2)]
        await asyncio.gather(*others)
        service.replicas.lock.set()
        done = await asyncio.gather(*adapting)
        assert [answer.headers["retry-after"] for answer in refused] == ["2"]
        return sorted(answer.status for answer in [*done, *(task.result() for task in others)])

    assert asyncio.run(load()) == [201, 201, 429, 429, 429]
    assert "distmeta_pending_requests 1.0" in service("GET", "/metrics").body.decode(), "nothing stays counted"


def test_while_no_replica_runs_it_is_not_healthy(service: LocalService) -> None:
    assert service("GET", "/health").json == {"status": "ok", "replicas": 1, "tasks": 0}
    service.replicas.count = 0
    assert service("GET", "/health").status == 503


def test_it_holds_no_more_tasks_than_it_may(tmp_path: Path) -> None:
    service = LocalService(tmp_path, Limits(tasks=1, rate=1e6))
    task = service.make()
    assert service("POST", "/tasks", {"examples": EXAMPLES}).status == 409
    service("DELETE", f"/tasks/{task}")
    service.make()


def test_a_task_on_which_the_learner_diverges_is_refused(tmp_path: Path) -> None:
    untrained(tmp_path, "maml", inner={"lr": 1e30, "steps": 5}).save(tmp_path / "learner")
    answer = LocalService(tmp_path)("POST", "/tasks", {"examples": EXAMPLES})
    assert (answer.status, answer.json["error"]["found"]) == (422, "the learner diverged on them")


def test_metrics_hold_routes_and_no_text(service: LocalService) -> None:
    task = service.make()
    service("POST", f"/tasks/{task}/predict", {"inputs": NEW})
    service("GET", "/secret-in-a-path")
    text = service("GET", "/metrics").body.decode()
    assert 'distmeta_requests_total{method="POST",route="/tasks/{id}/predict",status="200"} 1.0' in text
    assert f"distmeta_predictions_total {len(NEW)}.0" in text
    assert "distmeta_tasks 1.0" in text
    assert "distmeta_replicas 1.0" in text
    assert "secret" not in text
    assert task not in text


def test_openapi_describes_every_address_with_examples_that_work(service: LocalService) -> None:
    schema = service("GET", "/openapi.json").json
    assert set(schema["paths"]) == {
        *("/tasks", "/tasks/{id}", "/tasks/{id}/predict", "/tasks/{id}/examples", "/health", "/metrics")
    }
    models = schema["components"]["schemas"]
    task = service("POST", "/tasks", models["NewTask"]["examples"][0]).json["id"]
    assert service("POST", f"/tasks/{task}/predict", models["Query"]["examples"][0]).status == 200
    assert service("POST", f"/tasks/{task}/examples", models["MoreExamples"]["examples"][0]).status == 200
    (example,) = (model for name, model in models.items() if name.startswith("Example"))
    assert example["properties"]["text"]["maxLength"] == 10_000
    docs = service("GET", "/docs").body.decode()
    assert all(path in docs for path in schema["paths"])


def test_pages_load_nothing_from_elsewhere_and_nothing_runs_but_their_script(service: LocalService) -> None:
    for path in ("/", "/docs"):
        answer = service("GET", path)
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
        text = answer.body.decode()
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
    assert service("GET", "/tasks").headers["content-security-policy"].startswith("default-src 'none'")


def test_a_fault_of_the_service_is_told_without_its_insides(
    service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(asked: Any) -> Any:
        raise RuntimeError("a text of a user")

    task = service.make()
    monkeypatch.setattr(service.desk, "predict", broken)
    with pytest.raises(RuntimeError):  # for the log
        service("POST", f"/tasks/{task}/predict", {"inputs": NEW})
    answer = service.last
    assert (answer.status, answer.json["error"]["found"]) == (500, "RuntimeError")


def test_what_a_user_typed_comes_back_as_it_was(service: LocalService) -> None:
    label = 'é\u2028"<b>\0\n'
    task = service.make([{"text": "topic1", "label": label}, {"text": "topic2", "label": "b"}], name=label)
    assert service("GET", f"/tasks/{task}").json["classes"] == sorted([label, "b"])
    found = service("POST", f"/tasks/{task}/predict", {"inputs": ["topic1"]})
    assert label in json.loads(found.body)["predictions"][0]["probabilities"]


def test_texts_may_have_several_labels(service: LocalService, tmp_path: Path) -> None:
    several: list[dict[str, Any]] = [
        *EXAMPLES,
        {"text": "topic0 topic1", "label": ["class 0", "class 1"]},
        {"text": "word9", "label": []},
    ]
    made = service("POST", "/tasks", {"examples": several}).json
    alone = load(tmp_path / "learner").adapt([e["text"] for e in several], [e["label"] for e in several])
    assert made["thresholds"] == pytest.approx(alone.limits)
    assert made["expected_f1"] == pytest.approx(alone.expected_f1 and alone.expected_f1._asdict())
    assert made["expected"] is None
    found = service("POST", f"/tasks/{made['id']}/predict", {"inputs": NEW}).json["predictions"]
    assert [its["label"] for its in found] == alone.predict(NEW)
    more = {"examples": [{"text": "topic9", "label": ["class 0", "another"]}]}
    assert "another" in service("POST", f"/tasks/{made['id']}/examples", more).json["classes"]
    wrong = service("POST", "/tasks", {"examples": several, "wrong": 0.05})
    assert (wrong.status, wrong.json["error"]["where"]) == (422, "wrong")
