from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster.yaml"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """The file as Ray completes it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    validate_config(prepared)
    return prepared


def start(cluster: dict[str, Any], role: str) -> str:
    """The one command that starts Ray on the nodes of a role."""
    (command,) = [line for line in cluster[f"{role}_start_ray_commands"] if "ray start " in line]
    return str(command)


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_node_starts_ray_with_the_token(cluster: dict[str, Any], role: str) -> None:
    before = start(cluster, role).partition("ray start ")[0]
    assert "export " in before
    assert "RAY_AUTH_MODE=token" in before
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert cluster["auth"]["ssh_user"] == "ubuntu"  # whose home the mounts name
    assert any("chmod 600 ~/.ray/auth_token" in line for line in cluster[f"{role}_setup_commands"])


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_node_installs_the_project_and_runs_its_ray(cluster: dict[str, Any], role: str) -> None:
    assert cluster["file_mounts"]["/home/ubuntu/distmeta-src"] == "."
    installs = [line for line in cluster[f"{role}_setup_commands"] if "pip install" in line]
    assert installs[0] == '~/distmeta-env/bin/pip install "$HOME/distmeta-src[examples]"'
    assert 'PATH="$HOME/distmeta-env/bin:$PATH"' in start(cluster, role).partition("ray start ")[0]


def test_uploads_leave_runs_and_environments_behind(cluster: dict[str, Any]) -> None:
    assert {"**/.git", "**/.venv", "/runs", "/mlflow.db*"} <= set(cluster["rsync_exclude"])


def test_lost_nodes_are_noticed_in_seconds(cluster: dict[str, Any]) -> None:
    before = start(cluster, "head").partition("ray start ")[0]
    settings = dict(word.rstrip(";").split("=") for word in before.split() if word.startswith("RAY_health_check_"))
    period, timeout = (int(settings[f"RAY_health_check_{name}_ms"]) for name in ("period", "timeout"))
    assert int(settings["RAY_health_check_failure_threshold"]) * (period + timeout) == 4500


def test_gpu_workers_come_and_go(cluster: dict[str, Any]) -> None:
    head, worker = (cluster["available_node_types"][name] for name in ("head", "gpu_worker"))
    assert cluster["head_node_type"] == "head"
    assert (worker["min_workers"], worker["max_workers"]) == (0, 4)
    assert head["node_config"]["ImageId"] == worker["node_config"]["ImageId"]
    assert "--autoscaling-config" in start(cluster, "head")


def test_validation_sees_a_misspelt_key() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    content = yaml.safe_load(CLUSTER.read_text()) | {"setup_comands": []}
    with pytest.raises(Exception, match="setup_comands"):
        validate_config(prepare_config(content))
