"""Requests that are drawn from the service's own schema, right and wrong ones: none makes it fail."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from serve_helpers import LocalService

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]


@pytest.mark.nightly
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_request_that_the_schema_allows_or_forbids_makes_it_fail(tmp_path: Path, mode: str) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    service = LocalService(tmp_path)
    tasks = [service.make() for _ in range(2)]
    statuses: dict[str, set[int]] = {}
    with service.listening() as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        wanted = schemathesis.checks.CHECKS.get_by_names(CHECKS)
        for found in schema.get_all_operations():
            operation = found.ok()
            cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

            @settings(
                max_examples=150,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=cases, known=st.sampled_from([None, *tasks]))
            def send(case: Any, known: str | None) -> None:
                if known is not None and "id" in (case.path_parameters or {}) and case.method != "DELETE":
                    case.path_parameters["id"] = known
                answer = case.call_and_validate(checks=wanted)
                statuses.setdefault(case.operation.label, set()).add(answer.status_code)

            with contextlib.suppress(Unsatisfiable):  # some operations take nothing that could be wrong
                send()
    assert all(status < 500 for its in statuses.values() for status in its)
    wanted_status = 201 if mode == "positive" else 422
    assert wanted_status in statuses["POST /tasks"]
