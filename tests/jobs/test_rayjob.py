"""The manifest for Kubernetes, held to what is documented of KubeRay's RayJob; no cluster is needed."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distmeta.config.cluster import Workers
from distmeta.config.load import load_config

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "jobs" / "rayjob.yaml"
IN_THE_IMAGE = "/opt/distmeta"  # where its Dockerfile puts the repository

# Of https://ray-project.github.io/kuberay/reference/api and of Kubernetes' pods, the fields that the manifest may use.
# A key that ends with ! is required. A value is a type, a pattern of a string, a list of one such, or a mapping; in a
# mapping "*" stands for any key.
QUANTITY = r"\d+(\.\d+)?(m|k|Ki|Mi|Gi|Ti)?"  # numbers too: see `problems`
NAME = r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?"
SECRET = {"secretKeyRef!": {"name!": NAME, "key!": str}}
CONTAINER = {
    **{"name!": NAME, "image!": str, "imagePullPolicy": "Always|IfNotPresent|Never", "command": [str], "args": [str]},
    "env": [{"name!": r"[A-Za-z_]\w*", "value": str, "valueFrom": SECRET}],
    "resources": {"requests": {"*": QUANTITY}, "limits": {"*": QUANTITY}},
    "securityContext": {"allowPrivilegeEscalation": bool, "capabilities": {"drop": [str], "add": [str]}},
    "volumeMounts": [{"name!": NAME, "mountPath!": "/.*", "readOnly": bool}],
}
VOLUME = {
    "name!": NAME,
    "emptyDir": {"medium": "Memory", "sizeLimit": QUANTITY},
    "persistentVolumeClaim": {"claimName!": NAME},
}
POD = {"metadata": {"labels": {"*": str}}, "spec!": {"containers!": [CONTAINER], "volumes": [VOLUME]}}
START = {"*": str}
SCHEMA = {
    "apiVersion!": "ray.io/v1",
    "kind!": "RayJob",
    "metadata!": {"name!": NAME, "namespace": NAME},
    "spec!": {
        **{"entrypoint!": str, "submissionMode": "K8sJobMode|HTTPMode|SidecarMode|InteractiveMode"},
        **{"shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int, "activeDeadlineSeconds": int},
        **{"backoffLimit": int, "runtimeEnvYAML": str},
        "rayClusterSpec!": {
            "rayVersion!": r"\d+\.\d+\.\d+",  # which token authentication asks for
            "authOptions": {"mode!": "disabled|token", "secretName": NAME},
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {"idleTimeoutSeconds": int, "upscalingMode": "Default|Aggressive|Conservative"},
            "headGroupSpec!": {"rayStartParams!": START, "serviceType": str, "template!": POD},
            "workerGroupSpecs": [
                {
                    **{"groupName!": NAME, "replicas": int, "minReplicas!": int, "maxReplicas!": int},
                    **{"numOfHosts": int, "idleTimeoutSeconds": int, "rayStartParams!": START, "template!": POD},
                }
            ],
        },
    },
}


def problems(value: Any, schema: Any, path: str = "") -> Iterator[str]:
    """What in a value is not as a schema wants it."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{path}: not a mapping"
            return
        known = {key.rstrip("!"): rest for key, rest in schema.items()}
        yield from (f"{path}.{key[:-1]}: missing" for key in schema if key.endswith("!") and key[:-1] not in value)
        for key, entry in value.items():
            if key in known or "*" in known:
                yield from problems(entry, known.get(key, known.get("*")), f"{path}.{key}")
            else:
                yield f"{path}.{key}: unknown"
    elif isinstance(schema, list):
        if not isinstance(value, list) or not value:
            yield f"{path}: not a list"
            return
        for number, entry in enumerate(value):
            yield from problems(entry, schema[0], f"{path}[{number}]")
    elif isinstance(schema, str):
        text = str(value) if schema == QUANTITY and type(value) in (int, float) else value
        if not isinstance(text, str) or not re.fullmatch(schema, text):
            yield f"{path}: {value!r} does not match"
    elif type(value) is not schema:
        yield f"{path}: {value!r} is not of {schema.__name__}"


@pytest.fixture
def manifest() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    return content


def cluster(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["rayClusterSpec"]
    return spec


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's and the workers'."""
    groups = [cluster(manifest)["headGroupSpec"], *cluster(manifest)["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_it_is_a_rayjob(manifest: dict[str, Any]) -> None:
    assert list(problems(manifest, SCHEMA)) == []


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("apiVersion", "ray.io/v1alpha1", ".apiVersion: 'ray.io/v1alpha1' does not match"),
        ("metadata/name", "Distmeta_1", ".metadata.name: 'Distmeta_1' does not match"),
        ("spec/entrypont", "x", ".spec.entrypont: unknown"),
        ("spec/ttlSecondsAfterFinished", "5", ".spec.ttlSecondsAfterFinished: '5' is not of int"),
        ("spec/rayClusterSpec/rayVersion", 2.6, ".spec.rayClusterSpec.rayVersion: 2.6 does not match"),
        ("spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0, "num-cpus: 0 is not of str"),
        ("spec/rayClusterSpec/headGroupSpec/template", {}, "headGroupSpec.template.spec: missing"),
        ("spec/rayClusterSpec/headGroupSpec/template/spec/containers", [], "template.spec.containers: not a list"),
        ("spec/rayClusterSpec/workerGroupSpecs", [{"groupName": "a"}], "workerGroupSpecs[0].minReplicas: missing"),
        ("spec/rayClusterSpec/workerGroupSpecs", {"groupName": "a"}, "workerGroupSpecs: not a list"),
        ("spec/rayClusterSpec/authOptions", "token", "authOptions: not a mapping"),
    ],
)
def test_the_check_finds_what_is_wrong(manifest: dict[str, Any], place: str, value: Any, problem: str) -> None:
    *parents, last = place.split("/")
    section = manifest
    for parent in parents:
        section = section[parent]
    section[last] = value
    assert any(found.endswith(problem) for found in problems(manifest, SCHEMA)), list(problems(manifest, SCHEMA))


def test_it_trains_a_job_of_the_repository_with_settings_that_exist(manifest: dict[str, Any]) -> None:
    words = shlex.split(manifest["spec"]["entrypoint"])
    # KubeRay runs `ray job submit -- ENTRYPOINT`, which puts the words together again, for a second shell.
    assert shlex.split(subprocess.list2cmdline(words)) == words
    program, command, config, *settings = words
    assert (program, command) == ("distmeta", "train")
    assert config.startswith(f"{IN_THE_IMAGE}/jobs/")
    loaded = load_config(ROOT / Path(config).relative_to(IN_THE_IMAGE), settings)
    assert (loaded.cluster.backend, loaded.cluster.address, loaded.cluster.gpus_per_worker) == ("ray", "auto", 1)
    (group,) = cluster(manifest)["workerGroupSpecs"]
    assert loaded.cluster.workers == Workers(min=1, max=group["maxReplicas"])
    # Where they outlive the pods.
    mounts = [mount["mountPath"] for mount in pods(manifest)[0]["containers"][0]["volumeMounts"]]
    assert loaded.run_dir is not None
    assert Path(loaded.run_dir).parent.as_posix() in mounts
    assert loaded.tracking.uri == f"sqlite:///{Path(loaded.run_dir).parent}/mlflow.db"


def test_lost_nodes_are_noticed_as_on_other_clusters(manifest: dict[str, Any]) -> None:
    elsewhere = dict(re.findall(r"(RAY_health_check_\w+)=(\d+)", (ROOT / "cluster.yaml").read_text(encoding="utf-8")))
    assert len(elsewhere) == 4
    for pod in pods(manifest):
        for container in pod["containers"]:
            given = {entry["name"]: entry["value"] for entry in container["env"]}
            assert elsewhere.items() <= given.items()


def test_every_container_asks_for_a_token_that_is_not_written_down(manifest: dict[str, Any]) -> None:
    """KubeRay makes it, and sets RAY_AUTH_MODE and RAY_AUTH_TOKEN everywhere where the manifest does not."""
    assert cluster(manifest)["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster(manifest)["rayVersion"].split("."))) >= (2, 52, 0)  # KubeRay's own condition
    for pod in pods(manifest):
        for container in pod["containers"]:
            names = [entry["name"] for entry in container["env"]]
            assert not [name for name in names if name.startswith("RAY_AUTH") or "PASSWORD" in name or "KEY" in name]
    text = MANIFEST.read_text(encoding="utf-8")
    assert "kind: Secret" not in text
    assert not re.search(r"[0-9A-Za-z+/-]{32,}", text), "what looks like a secret"


def test_containers_have_shared_memory_limits_and_no_rights(manifest: dict[str, Any]) -> None:
    for pod in pods(manifest):
        shared = [volume for volume in pod["volumes"] if volume.get("emptyDir", {}).get("medium") == "Memory"]
        for container in pod["containers"]:
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert mounted["/dev/shm"] == shared[0]["name"]
            assert set(mounted.values()) <= {volume["name"] for volume in pod["volumes"]}
            assert container["resources"]["requests"] == container["resources"]["limits"]  # what Ray counts is there
            rights = container["securityContext"]
            assert rights == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_gpus_are_the_workers_and_come_when_they_are_asked_for(manifest: dict[str, Any]) -> None:
    head, worker = (pod["containers"][0]["resources"]["limits"] for pod in pods(manifest))
    assert "nvidia.com/gpu" not in head
    assert worker["nvidia.com/gpu"] == "1"
    assert cluster(manifest)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster(manifest)["enableInTreeAutoscaling"]
    (group,) = cluster(manifest)["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]


def test_the_image_holds_the_repository_and_the_ray_of_the_manifest(manifest: dict[str, Any]) -> None:
    dockerfile = re.findall(r"^#  +((?:FROM|COPY|RUN) .*)$", MANIFEST.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [line.split()[0] for line in dockerfile] == ["FROM", "COPY", "RUN"]
    assert dockerfile[1] == f"COPY . {IN_THE_IMAGE}"
    assert f'"ray[default]=={cluster(manifest)["rayVersion"]}"' in dockerfile[2]
    assert {container["image"] for pod in pods(manifest) for container in pod["containers"]} == {"IMAGE"}
