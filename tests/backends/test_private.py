"""The parts of Ray that `distmeta.backends.private` needs: a new version that lacks one fails here, by name."""

import importlib.util
import subprocess
from types import SimpleNamespace

import pytest

from distmeta.backends import private


def test_ray_listens_on_loopback_if_a_constant_says_so() -> None:
    from ray._private import ray_constants

    def is_on() -> bool:
        return bool(ray_constants.ENABLE_RAY_CLUSTER)

    assert is_on()
    with private.private_processes():
        assert not is_on()
    assert is_on()


def test_ray_under_uv_uses_this_environment_if_a_constant_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would copy the working directory, up to 512 MB, and build another environment."""
    from ray._private import ray_constants, worker

    hook = "ray._private.runtime_env.uv_runtime_env_hook"
    monkeypatch.setattr(f"{hook}._get_uv_run_cmdline", lambda: ["uv", "run", "distmeta"])
    monkeypatch.setattr(f"{hook}.hook", lambda env: {"working_dir": "copied"})
    assert worker._maybe_modify_runtime_env({}, False) == {"working_dir": "copied"}
    with private.private_processes():
        assert not ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
        assert worker._maybe_modify_runtime_env({}, False) == {}
    assert ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV


def test_ray_starts_its_processes_with_a_class_that_can_be_given_options() -> None:
    from ray._private import services

    usual = services.ConsolePopen
    assert issubclass(usual, subprocess.Popen)
    with private.private_processes():
        process = services.ConsolePopen(["true"])
        assert process.wait() == 0
        assert services.ConsolePopen.keywords == {"process_group": 0}
    assert services.ConsolePopen is usual


def test_the_state_of_ray_knows_the_limits_of_a_cluster(ray_session: None) -> None:
    from ray._private.state import state

    assert callable(state.get_max_resources_from_cluster_config)
    assert private.resource_limits() == {}  # a private Ray does not scale itself


def test_a_trial_of_ray_tune_has_a_file_for_its_error() -> None:
    from ray.tune.experiment import Trial

    assert isinstance(Trial.error_file, property)
    assert private.error_text(SimpleNamespace(error_file=None)) == ""


@pytest.mark.parametrize("module", [private.HEALTH_CHECK[2], *private.LOGGERS])
def test_modules_of_ray_have_their_names(module: str) -> None:
    assert importlib.util.find_spec(module)


def test_ray_checks_a_cluster_by_a_command() -> None:
    result = subprocess.run([*private.HEALTH_CHECK, "--help"], capture_output=True, text=True, check=True)
    assert "--address" in result.stdout
