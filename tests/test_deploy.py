"""The deployment files, as far as they can be held without an engine or a cluster: what they say, and what they run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from functools import reduce
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import redis
import yaml

from indexer.cli import main
from indexer.settings import Settings
from search_api.app import create_app
from tests.test_architecture import ROOT
from tests.test_images import instructions
from workers.app import EMBED_CPU, EMBED_GPU, PLAN, RERANK
from workers.broker import server_command
from workers.jobs import Jobs
from workers.rerank.messages import WORKERS, Model, Present
from workers.rerank.worker import RerankWorker
from workers.runtime import Runtime

CHART = ROOT / "deploy" / "helm" / "crosslens"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SETTINGS = {f"CROSSLENS_{name.upper()}" for name in Settings.model_fields}
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|API_KEY|AUTH")


def load(path: Path) -> dict[str, Any]:
    # Compose's own tag, for what a second file takes away from the first: nothing is left of it.
    return yaml.safe_load(re.sub(r"^.*: !reset .*\n", "", path.read_text(), flags=re.MULTILINE))


COMPOSE = load(ROOT / "docker-compose.yml")
HOST = load(ROOT / "deploy" / "compose.host.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
EXAMPLE = (ROOT / "deploy" / ".env.example").read_text()
GUIDE = (ROOT / "docs" / "deployment.md").read_text()


# Compose


@pytest.mark.parametrize("document", [COMPOSE, HOST], ids=["docker-compose.yml", "compose.host.yml"])
def test_compose_files_are_of_the_compose_specification(document: dict[str, Any]) -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(document, schema)
    assert "version" not in document


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_little_and_is_watched(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert "stop_grace_period" in service
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "ports"} & service.keys()
    assert "scratch:/tmp" in service["volumes"] or service["tmpfs"][0].startswith("/tmp:")


def names(listed: Any) -> list[str]:
    return [each["source"] if isinstance(each, dict) else each for each in listed]


def test_what_services_name_is_declared_and_what_is_declared_is_used() -> None:
    for kind in ("networks", "configs"):
        assert {name for service in SERVICES.values() for name in names(service.get(kind, ()))} == COMPOSE[kind].keys()
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service["volumes"]]
    assert {source for source, *_ in mounts} == COMPOSE["volumes"].keys()
    for config in COMPOSE["configs"].values():
        assert (ROOT / config["file"]).is_file()
    for service in SERVICES.values():
        assert service.get("depends_on", {}).keys() <= SERVICES.keys()
    assert HOST["services"].keys() <= SERVICES.keys()


def test_stores_are_healthy_before_crosslens_starts() -> None:
    stores = {name for name in SERVICES if name not in OURS}
    for name in OURS:
        needs = SERVICES[name]["depends_on"]
        assert needs.keys() == stores
        assert {need["condition"] for need in needs.values()} == {"service_healthy"}
        # Compose refuses a service that needs one of a profile that is not active.
        assert {need for need in needs if needs[need].get("required", True)} == {
            store for store in stores if "profiles" not in SERVICES[store]
        }


def test_either_profile_has_an_index_of_the_same_name() -> None:
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", [])}
    assert profiles == {"single", "cluster", "gpu", "rerank"}
    assert all(re.search(rf"\b{profile}\b", EXAMPLE) for profile in profiles)
    assert re.search(r"^COMPOSE_PROFILES=single$", EXAMPLE, re.MULTILINE)
    for profile in ("single", "cluster"):
        answering = [
            name
            for name, service in SERVICES.items()
            if service.get("profiles") == [profile]
            and (name == "qdrant" or "qdrant" in service["networks"]["backend"]["aliases"])
        ]
        assert len(answering) == (1 if profile == "single" else 3)


def test_nodes_of_the_cluster_join_the_first_under_their_own_names() -> None:
    nodes = [name for name, service in SERVICES.items() if service.get("profiles") == ["cluster"]]
    for name in nodes:
        program, *arguments = SERVICES[name]["command"]
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        expected = {"--uri": f"http://{name}:6335"}
        if name != nodes[0]:
            expected["--bootstrap"] = f"http://{nodes[0]}:6335"
        assert (program, options) == ("./entrypoint.sh", expected)
        assert SERVICES[name]["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        assert all(volume.startswith(name) for volume in SERVICES[name]["volumes"])


def test_queue_and_index_are_on_a_network_of_their_own() -> None:
    assert COMPOSE["networks"]["backend"]["internal"] is True
    for name, service in SERVICES.items():
        assert set(service["networks"]) == ({"backend", "outside"} if name in OURS else {"backend"})


def test_ports_are_for_this_machine_alone() -> None:
    ports = [port for service in HOST["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)


def test_variables_are_in_the_example_and_mean_something() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    used |= set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "deploy" / "compose.host.yml").read_text()))
    environment = [(name, value) for service in SERVICES.values() for name, value in service["environment"].items()]
    used |= {name for name, value in environment if value is None}
    assert set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.MULTILINE)) == used | {"COMPOSE_PROFILES"}
    # What has to be set stands there open, the rest with its default behind a #.
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"^([A-Z_]+)=", EXAMPLE, re.MULTILINE)) == {
        "COMPOSE_PROFILES", *re.findall(r"\$\{([A-Z_]+):\?", text),
    }  # fmt: skip
    defaults = dict(re.findall(r"\$\{((?:API|WORKER|QDRANT)_[A-Z]+):-([^${}]+)\}", text))
    assert dict(re.findall(r"^#((?:API|WORKER|QDRANT)_[A-Z]+)=(.*)$", EXAMPLE, re.MULTILINE)) == defaults


def test_settings_in_the_compose_files_exist() -> None:
    for document in (COMPOSE, HOST):
        for service in document["services"].values():
            ours = {name for name in service.get("environment", {}) if name.startswith("CROSSLENS_")}
            assert ours <= SETTINGS
    assert set(re.findall(r"CROSSLENS_[A-Z_]+", EXAMPLE)) <= SETTINGS


def test_crosslens_has_what_its_commands_need() -> None:
    for name in OURS:
        service = SERVICES[name]
        parsed([re.sub(r"\$\{[A-Z_]+:-(.*)\}", r"\1", word) for word in service["command"]])
        assert {"CROSSLENS_REDIS_URL", "CROSSLENS_QDRANT_URL"} <= service["environment"].keys()
        assert service["environment"]["CROSSLENS_THREADS"] == service["deploy"]["resources"]["limits"]["cpus"]
        (uid,) = re.findall(r"--uid (\d+)", str(instructions(service["build"]["dockerfile"])))
        assert service["user"] == f"{uid}:{uid}"
    assert SERVICES["api"]["environment"]["CROSSLENS_WORKERS"] == "0"
    for name in ("worker-gpu", "worker-rerank"):
        assert SERVICES[name]["build"]["dockerfile"] == "Dockerfile.cuda"
        (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_media_are_read_only_and_only_the_api_and_the_reranker_write_data() -> None:
    for name in OURS:
        mounts = {mount.split(":")[0]: mount.split(":")[1:] for mount in SERVICES[name]["volumes"]}
        assert mounts["media"] == ["/media", "ro"]
        # What was seen in pictures is kept there by who reranks.
        assert mounts["data"] == (["/data"] if name in {"api", "worker-rerank"} else ["/data", "ro"])


def test_images_are_pinned_and_ours_are_of_this_version() -> None:
    for name, service in SERVICES.items():
        assert PINNED.fullmatch(service["image"])
        if name in OURS:
            suffix = "-cuda" if service["build"]["dockerfile"] == "Dockerfile.cuda" else ""
            assert service["image"] == f"crosslens:{VERSION}{suffix}"


def test_no_secret_is_in_a_file() -> None:
    for document in (COMPOSE, HOST):
        for service in document["services"].values():
            for name, value in service.get("environment", {}).items():
                assert not SECRET.search(name) or re.fullmatch(r"\$\{[A-Z_]+:\?.*\}", value)
    for name, value in re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE):
        assert not SECRET.search(name) or value == ""
    written = [path for path in (ROOT / "deploy").rglob("*") if path.is_file() and path.name != ".env"]
    for path in [*written, ROOT / "docker-compose.yml", ROOT / "docs" / "deployment.md"]:
        assert re.findall(r"rediss?://[^:/@\s]*:(?!\$)[^@\s$]+@", path.read_text()) == []
    assert ".env" in (ROOT / "deploy" / ".gitignore").read_text().split()


def test_the_guide_names_what_is_there() -> None:
    for link in re.findall(r"\]\((\.\./[^)#]+)\)", GUIDE):
        assert (ROOT / "docs" / link).exists()
    found = re.findall(r"(?:exec api |`)crosslens ([^`\n]*?)(?: \.\.\.)?(?:`|$)", GUIDE, re.MULTILINE)
    assert {line.split()[0] for line in found} == {"serve", "jobs", "keys", "search", "models", "migrate"}
    for line in found:
        parsed(shlex.split(f"{line} BUNDLE" if line == "models pull" else line))
    assert set(re.findall(r"`(CROSSLENS_[A-Z_]+[A-Z])`", GUIDE)) <= SETTINGS
    assert set(re.findall(r"COMPOSE_PROFILES=([\w,]+)", GUIDE)) == {"single,gpu", "single,rerank", "cluster"}


def parsed(words: list[str]) -> None:
    """Fails where the command line would refuse the words."""
    command: click.Command | None = main
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(click.Context(command), name)
    assert command is not None
    command.make_context(command.name, words)


# What they run


@pytest.fixture(scope="module")
def queue() -> Iterator[str]:
    """The URL of a Valkey started as the redis service is; its password is hunter2."""
    script = SERVICES["redis"]["command"][2].replace("$$", "$")
    with tempfile.TemporaryDirectory(prefix="crosslens-") as folder:
        here = Path(folder)
        conf = (CHART / "files" / "valkey.conf").read_text()
        assert "\ndir /data\n" in conf
        (here / "included.conf").write_text(conf.replace("/data", folder))
        script = script.replace("/etc/valkey/valkey.conf", f"{folder}/included.conf")
        script = script.replace("/tmp/valkey.conf", str(here / "valkey.conf")).strip()
        (here / "valkey-server").symlink_to(server_command(Settings(data=here))[0])
        server = subprocess.Popen(
            ["sh", "-ec", f"{script} --port 0 --unixsocket {here}/socket"],
            env={**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "VALKEYCLI_AUTH": "hunter2"},
            stdout=subprocess.DEVNULL,
        )
        url = f"unix://{here}/socket?password=hunter2"
        try:
            deadline = time.monotonic() + 30
            while not (here / "socket").exists() and server.poll() is None:
                assert time.monotonic() < deadline, "it did not start"
                time.sleep(0.02)
            yield url
        finally:
            server.kill()
            server.wait()


def test_the_queue_keeps_what_it_has_and_wants_its_password(queue: str) -> None:
    client = redis.Redis.from_url(queue)
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert {name: client.config_get(name)[name] for name in wanted} == wanted
    memory = SERVICES["redis"]["deploy"]["resources"]["limits"]["memory"]
    assert int(client.config_get("maxmemory")["maxmemory"]) == 2**29
    assert memory == "1g"
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(queue.partition("?")[0]).ping()
    assert manifest(filled(), "StatefulSet", "crosslens-redis")["spec"]["template"]["spec"]["containers"][0][
        "command"
    ] == [part.replace("$$", "$") for part in SERVICES["redis"]["command"]]


def test_a_worker_is_healthy_while_one_of_its_processes_that_embed_or_rerank_lives(queue: str) -> None:
    assert SERVICES["worker"]["healthcheck"]["test"] == ["CMD", "python", "/etc/crosslens/worker_health.py"]
    jobs = Jobs(redis.Redis.from_url(queue))
    here = Runtime(Settings(redis_url=queue)).name
    assert health_of_worker(queue) == (1, "No worker of this container is alive.")
    jobs.beat(here, {"queues": [PLAN]}, 60)
    jobs.beat(f"x{here}", {"queues": [EMBED_CPU]}, 60)
    assert health_of_worker(queue)[0] == 1
    jobs.beat(here, {"queues": [EMBED_CPU, EMBED_GPU]}, 60)
    assert health_of_worker(queue) == (0, "")
    jobs.beat(here, {"queues": [RERANK]}, 60)
    assert health_of_worker(queue) == (0, "")
    code, message = health_of_worker("redis://127.0.0.1:1/0")
    assert code == 1
    assert message.startswith("The queue does not answer")


def test_who_reranks_is_ready_once_its_models_are_open(queue: str, tmp_path: Path) -> None:
    client = redis.Redis.from_url(queue)
    worker = RerankWorker(Settings(data=tmp_path, redis_url=queue))
    nothing = (1, "No model to rerank with is open.")

    def says(name: str, image: str | None, text: str | None, *, seconds: int = 600) -> None:
        models = [Model.model_validate({"name": "x", "state": state}) if state else None for state in (image, text)]
        said = Present(name=name, image=models[0], text=models[1]).model_dump_json()
        client.zadd(WORKERS, {said: client.time()[0] + seconds})
        client.expire(WORKERS, 600)  # a sign of life leaves it a few seconds, and the script takes some

    worker.beat()  # no bundle is there
    assert Jobs(client).workers()[worker.name]["queues"] == [RERANK]
    assert health_of_worker(queue, "rerank_ready.py") == nothing
    client.zadd(WORKERS, {"not JSON": client.time()[0] + 600})
    says(f"x{worker.name}", "open", "open")
    says(worker.name, "open", "open", seconds=-1)
    assert health_of_worker(queue, "rerank_ready.py") == nothing
    says(worker.name, None, "open")
    assert health_of_worker(queue, "rerank_ready.py") == (0, "")
    says(worker.name, "failed", "open")
    assert health_of_worker(queue, "rerank_ready.py") == (0, "")
    says(worker.name, "opening", "open")
    assert health_of_worker(queue, "rerank_ready.py") == nothing
    worker.close()
    code, message = health_of_worker("redis://127.0.0.1:1/0", "rerank_ready.py")
    assert code == 1
    assert message.startswith("The queue does not answer")


def health_of_worker(url: str, script: str = "worker_health.py") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, CHART / "files" / script],
        env={**os.environ, "CROSSLENS_REDIS_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize("name", ["qdrant", "qdrant-2"])
def test_qdrant_is_healthy_when_it_says_that_it_is_ready(name: str) -> None:
    asked: list[str] = []
    status = 200

    class Qdrant(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    keyword, *command = SERVICES[name]["healthcheck"]["test"]
    assert keyword == "CMD"
    with HTTPServer(("127.0.0.1", 0), Qdrant) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [part.replace("$$", "$").replace("6333", str(server.server_port)) for part in command]
        assert subprocess.run(command, check=False).returncode == 0
        status = 503
        assert subprocess.run(command, check=False).returncode != 0
        server.shutdown()
    assert asked == ["/readyz", "/readyz"]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0


@pytest.mark.parametrize("index", [0, 2])
def test_the_first_pod_founds_the_cluster_and_the_others_join_it(index: int, tmp_path: Path) -> None:
    command = manifest(filled(), "StatefulSet", "crosslens-qdrant")["spec"]["template"]["spec"]["containers"][0][
        "command"
    ]
    (tmp_path / "entrypoint.sh").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "entrypoint.sh").chmod(0o755)
    environment = {**os.environ, "HOSTNAME": f"crosslens-qdrant-{index}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    uri = "http://crosslens-qdrant-{}.crosslens-qdrant-nodes:6335".format
    assert done.stdout.split() == ["--uri", uri(index)] + (["--bootstrap", uri(0)] if index else [])
    services = {name["metadata"]["name"] for name in filled() if name["kind"] == "Service"}
    assert {"crosslens-qdrant", "crosslens-qdrant-nodes"} <= services


# The chart

VALUES = load(CHART / "values.yaml")
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = {path.name: path.read_text() for path in (CHART / "templates").iterdir()}
PATHS = re.compile(r"\.Values((?:\.\w+)+)")
WORKER_PATHS = re.compile(r"\$worker((?:\.\w+)+)")

EVERYTHING = {
    "adminKey": {"value": "0123456789abcdef0123456789abcdef"},
    "otel": {"env": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "existingSecret": "collector"},
    "api": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "photos.example.org",
            "tlsSecret": "photos-tls",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "256m"},
        },
    },
    "media": {"claim": "photos"},
    "models": {"enabled": True, "storageClass": "nfs"},
    "workers": {
        "cpu": {"autoscaling": {"enabled": True}},
        "gpu": {"enabled": True, "autoscaling": {"enabled": True}},
    },
    "rerankWorkers": {"enabled": True, "features": {"shared": True, "storageClass": "nfs"}},
    "qdrant": {"replicas": 3, "storage": {"storageClass": "fast"}},
    "redis": {"storage": {"storageClass": "fast"}},
    "networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}]},
}
"""Values with which every condition of the templates holds."""


def merged(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    both = {name: merged(values[name], others[name]) for name in values if isinstance(others.get(name), dict)}
    return {**values, **others, **both}


def at(values: Any, path: str) -> Any:
    return reduce(lambda value, name: value[name], path.strip(".").split("."), values)


def filled() -> list[dict[str, Any]]:
    """The templates' manifests without Helm, for a release named crosslens.

    Every condition is taken to hold, a path of values becomes its value, and any other expression an x
    with the variables that Kubernetes is to put in.
    """
    values = merged(VALUES, EVERYTHING)
    documents = []
    for name, text in sorted(TEMPLATES.items()):
        if not name.endswith(".yaml"):
            continue
        for kind in ("cpu", "gpu") if "$kind" in text else ("",):

            def fill(found: re.Match[str], kind: str = kind) -> str:
                expression = found[1].replace("$worker", f".Values.workers.{kind}").replace("$.", ".")
                if expression in (
                    known := {".Release.Name": "crosslens", ".Release.Name | quote": "crosslens", "$kind": kind}
                ):
                    return known[expression]
                if path := re.fullmatch(r"(?:toJson )?\.Values((?:\.\w+)+)( \| quote)?", expression):
                    value = at(values, path[1])
                    return json.dumps(str(value)) if path[2] else value if isinstance(value, str) else json.dumps(value)
                return "x" + "".join(re.findall(r"\$\([A-Z_]+\)", expression))

            lines = re.sub(r"^\s*\{\{- (?:if|with|range|end)\b.*\}\}\n", "", text, flags=re.MULTILINE)
            documents += list(yaml.safe_load_all(re.sub(r"\{\{ (.*?) \}\}", fill, lines)))
    return [document for document in documents if document]


@pytest.fixture(scope="module", params=["without helm", "helm template"])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if request.param == "without helm":
        return filled()
    values = tmp_path_factory.mktemp("values") / "everything.yaml"
    values.write_text(json.dumps(EVERYTHING))
    rendered = helm("template", "crosslens", str(CHART), "--values", str(values))
    return [document for document in yaml.safe_load_all(rendered) if document]


def helm(*arguments: str) -> str:
    if shutil.which("helm") is None:
        pytest.skip("there is no helm here")
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifest(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def of_kind(manifests: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def workloads(manifests: list[dict[str, Any]]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Pods and their only containers, by the names of what makes them."""
    made = of_kind(manifests, "Deployment", "StatefulSet")
    pods = {name: each["spec"]["template"]["spec"] for name, each in made.items()}
    return {name: (pod, pod["containers"][0]) for name, pod in pods.items() if len(pod["containers"]) == 1}


def test_the_chart_has_all_its_parts(manifests: list[dict[str, Any]]) -> None:
    ours = {"crosslens-api", "crosslens-worker-cpu", "crosslens-worker-gpu", "crosslens-worker-rerank"}
    assert of_kind(manifests, "Deployment").keys() == ours
    assert of_kind(manifests, "StatefulSet").keys() == {"crosslens-redis", "crosslens-qdrant"}
    assert workloads(manifests).keys() == ours | {"crosslens-redis", "crosslens-qdrant"}
    for each in manifests:
        assert each["metadata"]["labels"].items() >= {
            ("app.kubernetes.io/name", "crosslens"), ("app.kubernetes.io/instance", "crosslens"),
        }  # fmt: skip


def test_a_pod_may_little(manifests: list[dict[str, Any]]) -> None:
    account = manifest(manifests, "ServiceAccount", "crosslens")
    assert account["automountServiceAccountToken"] is False
    for pod, container in workloads(manifests).values():
        assert pod["serviceAccountName"] == "crosslens"
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0 < security["runAsGroup"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "readinessProbe" in container
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_pods_run_as_the_users_of_their_images(manifests: list[dict[str, Any]]) -> None:
    for name, (pod, _) in workloads(manifests).items():
        service = SERVICES[name.removeprefix("crosslens-").removesuffix("-cpu").replace("worker-gpu", "worker")]
        context = pod["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == service["user"]


def test_volumes_are_there_and_only_the_api_writes_what_is_shared(manifests: list[dict[str, Any]]) -> None:
    claims, maps = of_kind(manifests, "PersistentVolumeClaim"), of_kind(manifests, "ConfigMap")
    for name, (pod, container) in workloads(manifests).items():
        made = of_kind(manifests, "Deployment", "StatefulSet")[name]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claimed = {claim["metadata"]["name"] for claim in made.get("volumeClaimTemplates", ())}
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert {mount["name"] for mount in mounts.values()} == volumes.keys() | claimed
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in {*claims, "photos"}
        if "/media" in mounts:
            assert mounts["/media"]["readOnly"] is True
            assert mounts["/data/models"].get("readOnly", False) is (name != "crosslens-api")
            # What was seen in pictures is written by whoever looks at them.
            assert mounts["/data/rerank"] == {"name": "features", "mountPath": "/data/rerank"}
            assert volumes["features"]["persistentVolumeClaim"] == {"claimName": "crosslens-features"}
    for name in ("crosslens-models", "crosslens-features"):
        assert claims[name]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_selectors_find_their_pods_and_ports(manifests: list[dict[str, Any]]) -> None:
    labels, ports = {}, {}
    for name, each in of_kind(manifests, "Deployment", "StatefulSet").items():
        labels[name] = each["spec"]["template"]["metadata"]["labels"]
        assert each["spec"]["selector"]["matchLabels"] == labels[name]
        ports[name] = {port["name"] for port in workloads(manifests)[name][1].get("ports", ())}

    def chosen(selector: dict[str, Any]) -> set[str]:
        return {
            name
            for name, own in labels.items()
            if selector.get("matchLabels", {}).items() <= own.items()
            and all(own[each["key"]] in each["values"] for each in selector.get("matchExpressions", ()))
        }

    for name, service in of_kind(manifests, "Service").items():
        (found,) = chosen({"matchLabels": service["spec"]["selector"]})
        assert name.startswith(found)
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports[found]
    for name, budget in of_kind(manifests, "PodDisruptionBudget").items():
        assert chosen(budget["spec"]["selector"]) == {name}
    policies = of_kind(manifests, "NetworkPolicy").values()
    closed = [each for each in policies if each["spec"]["policyTypes"] == ["Ingress", "Egress"]]
    assert sorted(name for each in closed for name in chosen(each["spec"]["podSelector"])) == sorted(labels)
    assert [each["metadata"]["name"] for each in policies if each not in closed] == ["crosslens-api"]
    for policy in policies:
        own = chosen(policy["spec"]["podSelector"])
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, ()):
                if not isinstance(rule, dict):
                    continue
                for peer in rule.get(peers, ()):
                    aimed = chosen(peer["podSelector"]) if "podSelector" in peer else set()
                    assert aimed or "podSelector" not in peer
                    for at_port in rule.get("ports", ()):
                        assert isinstance(at_port["port"], int) or all(
                            at_port["port"] in ports[name] for name in (own if peers == "from" else aimed)
                        )


def test_the_api_is_reached_by_its_service_and_wants_a_key(manifests: list[dict[str, Any]]) -> None:
    container = workloads(manifests)["crosslens-api"][1]
    parsed(container["args"])
    assert (
        container["args"]
        == ["serve", "--host", "0.0.0.0"]
        == load(ROOT / "deploy" / "compose.keys.yml")["services"]["api"]["command"]
    )
    (key,) = [each for each in container["env"] if each["name"] == "CROSSLENS_ADMIN_KEY"]
    assert key["valueFrom"]["secretKeyRef"]["key"] == "CROSSLENS_ADMIN_KEY"
    service = manifest(manifests, "Service", "crosslens-api")["spec"]
    assert service.get("type", "ClusterIP") == "ClusterIP"
    (rule,) = manifest(manifests, "Ingress", "crosslens-api")["spec"]["rules"]
    assert rule["host"] == "photos.example.org"
    assert rule["http"]["paths"][0]["backend"]["service"] == {
        "name": "crosslens-api",
        "port": {"name": service["ports"][0]["name"]},
    }
    assert manifest(manifests, "Ingress", "crosslens-api")["spec"]["tls"] == [
        {"hosts": ["photos.example.org"], "secretName": "photos-tls"}
    ]
    assert manifest(manifests, "NetworkPolicy", "crosslens-api")["spec"]["ingress"] == [
        {"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}
    ]
    assert not [name for name, (_, each) in workloads(manifests).items() if "worker" in name and "ports" in each]
    probes = [container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")]
    assert all(set(probe) & {"exec", "httpGet", "tcpSocket", "grpc"} == {"exec"} for probe in probes)
    assert "ingress" not in manifest(manifests, "NetworkPolicy", "crosslens-clients")["spec"]


def test_probes_ask_for_what_the_api_answers(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    routes = {rule.rule for rule in create_app(Settings(data=tmp_path)).url_map.iter_rules()}
    container = workloads(manifests)["crosslens-api"][1]
    for kind, route in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        assert f"'http://127.0.0.1:8000{route}'" in container[f"{kind}Probe"]["exec"]["command"][-1]
        assert route in routes
    assert container["readinessProbe"]["exec"]["command"] == SERVICES["api"]["healthcheck"]["test"][1:]
    for name in ("crosslens-worker-cpu", "crosslens-worker-gpu"):
        worker = workloads(manifests)[name][1]
        assert worker["readinessProbe"]["exec"]["command"] == SERVICES["worker"]["healthcheck"]["test"][1:]
        assert "livenessProbe" not in worker
        parsed(worker["args"])


def test_who_reranks_has_what_who_embeds_on_a_gpu_has(manifests: list[dict[str, Any]]) -> None:
    (pod, embeds), (own, reranks) = (workloads(manifests)[f"crosslens-worker-{kind}"] for kind in ("gpu", "rerank"))
    for field in ("imagePullSecrets", "nodeSelector", "tolerations", "securityContext"):
        assert own[field] == pod[field]
    for field in ("imagePullPolicy", "envFrom", "securityContext", "resources", "startupProbe", "volumeMounts"):
        assert sorted(map(str, reranks[field])) == sorted(map(str, embeds[field]))
    assert reranks["image"].endswith("-cuda")
    assert reranks["args"][:2] == SERVICES["worker-rerank"]["command"]
    parsed(reranks["args"])
    assert reranks["readinessProbe"]["exec"]["command"] == ["python", "/etc/crosslens/rerank_ready.py"]
    for probe in ("startupProbe", "readinessProbe"):
        script = Path(reranks[probe]["exec"]["command"][1]).name
        assert script in manifest(manifests, "ConfigMap", "crosslens-worker-health")["data"]
        assert (CHART / "files" / script).is_file()
    assert "livenessProbe" not in reranks
    # The GPU is free only once the pod that had it is gone.
    strategy = manifest(manifests, "Deployment", "crosslens-worker-rerank")["spec"]["strategy"]
    assert strategy == {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def test_who_reranks_reaches_the_queue_and_not_the_index(manifests: list[dict[str, Any]]) -> None:
    def let_in(name: str) -> set[str]:
        peers = [
            peer for rule in manifest(manifests, "NetworkPolicy", name)["spec"]["ingress"] for peer in rule["from"]
        ]
        expressions = [each for peer in peers for each in peer.get("podSelector", {}).get("matchExpressions", ())]
        return {value for each in expressions for value in each["values"]}

    assert let_in("crosslens-redis") == {"api", "worker-cpu", "worker-gpu", "worker-rerank"}
    assert let_in("crosslens-qdrant") == {"api", "worker-cpu", "worker-gpu"}
    api, reranks = (workloads(manifests)[f"crosslens-{name}"][1] for name in ("api", "worker-rerank"))
    assert {"name": "CROSSLENS_RERANK_IN", "value": "worker"} in api["env"]
    assert "CROSSLENS_QDRANT_API_KEY" not in {each["name"] for each in reranks["env"]}


def test_workers_scale_with_their_queues_and_never_to_zero(manifests: list[dict[str, Any]]) -> None:
    scaled = of_kind(manifests, "ScaledObject")
    queues = {}
    for name, each in scaled.items():
        target = each["spec"]["scaleTargetRef"]["name"]
        assert target in of_kind(manifests, "Deployment")
        (trigger,) = each["spec"]["triggers"]
        assert trigger["type"] == "redis"
        assert trigger["authenticationRef"]["name"] in of_kind(manifests, "TriggerAuthentication")
        assert 1 <= each["spec"]["minReplicaCount"] <= each["spec"]["maxReplicaCount"]
        queues[name] = trigger["metadata"]["listName"]
    assert queues == {"crosslens-worker-cpu": EMBED_CPU, "crosslens-worker-gpu": EMBED_GPU}


def test_settings_in_the_chart_exist_and_secrets_are_only_named(manifests: list[dict[str, Any]]) -> None:
    settings = {
        name
        for name in manifest(manifests, "ConfigMap", "crosslens-settings")["data"].keys() - {"x"}
        if not name.startswith("OTEL_")
    }
    assert settings | VALUES["settings"].keys() <= SETTINGS
    # Where no Secret is named, and then of nothing that the chart itself knows.
    assert of_kind(manifests, "Secret").keys() == {"crosslens-admin-key"}
    assert manifest(manifests, "Secret", "crosslens-admin-key")["stringData"].keys() == {"CROSSLENS_ADMIN_KEY"}
    assert VALUES["adminKey"] == {"existingSecret": "", "value": ""}
    assert 'required "The API needs a first key: ' in TEMPLATES["secret.yaml"]
    for name, (_, container) in workloads(manifests).items():
        seen: set[str] = set()
        for variable in container.get("env", ()):
            assert isinstance(variable.get("value", ""), str)
            # Kubernetes puts in only what was named before.
            assert set(re.findall(r"\$\(([A-Z_]+)\)", str(variable.get("value", "")))) <= seen
            seen.add(variable["name"])
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference and variable["name"] != "CROSSLENS_ADMIN_KEY":
                assert reference["name"] == VALUES["secret"]
                assert reference["key"] in {"redis-password", "qdrant-api-key"}
            assert not (SECRET.search(variable["name"]) or variable["name"] == "CROSSLENS_ADMIN_KEY") or reference
        assert {each for each in seen if each.startswith("CROSSLENS_")} <= SETTINGS
        if name.startswith(("crosslens-api", "crosslens-worker")):
            assert {"CROSSLENS_REDIS_URL", "CROSSLENS_THREADS"} <= seen
            assert ("CROSSLENS_QDRANT_API_KEY" in seen) is (name != "crosslens-worker-rerank")
            assert ("CROSSLENS_ADMIN_KEY" in seen) is (name == "crosslens-api")
            assert {"secretRef": {"name": "collector"}} in container["envFrom"]
            assert "CROSSLENS_QDRANT_URL" in settings
    owned = set(SCHEMA["properties"]["settings"]["propertyNames"]["not"]["enum"])
    assert owned <= SETTINGS


def test_the_chart_runs_the_images_of_the_compose_file() -> None:
    chart = load(CHART / "Chart.yaml")
    assert chart["appVersion"] == VERSION
    assert VALUES["redis"]["image"] == SERVICES["redis"]["image"]
    assert VALUES["qdrant"]["image"] == SERVICES["qdrant"]["image"]
    assert "-cuda" in TEMPLATES["workers.yaml"]


def test_templates_and_values_know_each_other() -> None:
    text = "\n".join(TEMPLATES.values())
    paths = {path.strip(".") for path in PATHS.findall(text)}
    worker_paths = {path.strip(".") for path in WORKER_PATHS.findall(text)}
    for path in paths:
        at(VALUES, path)
    for kind in VALUES["workers"]:
        for path in worker_paths:
            at(VALUES["workers"][kind], path)
    used = paths | {f"workers.{kind}.{path}" for kind in VALUES["workers"] for path in worker_paths}

    def leaves(values: dict[str, Any], place: str = "") -> Iterator[str]:
        for name, value in values.items():
            here = f"{place}{name}"
            if isinstance(value, dict) and value and here not in used - {"workers"}:
                yield from leaves(value, f"{here}.")
            else:
                yield here

    assert set(leaves(VALUES)) <= used


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_are_simple_enough_to_be_read_without_helm(name: str) -> None:
    depth = 0
    for line in TEMPLATES[name].splitlines():
        for expression in re.findall(r"\{\{-? *(.*?) *-?\}\}", line):
            word = expression.split()[0]
            depth += (word in {"if", "with", "range"}) - (word == "end")
            assert depth >= 0
            assert word not in {"else", "define", "template", "block"}
            if word in {"if", "with", "range", "end"}:
                assert re.fullmatch(r"\s*\{\{- .*? \}\}", line)
            else:
                assert f"{{{{ {expression} }}}}" in line
    assert depth == 0


def test_values_are_of_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)
    jsonschema.validate(merged(VALUES, EVERYTHING), SCHEMA)
    elsewhere = {
        "redis": {
            "enabled": False,
            "url": "rediss://:$(REDIS_PASSWORD)@example.org:6380/0",
            "address": "example.org:6380",
        },
        "qdrant": {"enabled": False, "url": "https://example.org:6333"},
    }
    jsonschema.validate(merged(VALUES, elsewhere), SCHEMA)
    # Who reranks may be elsewhere, too.
    jsonschema.validate(merged(VALUES, {"settings": {"CROSSLENS_RERANK_IN": "worker"}}), SCHEMA)
    size = 2**30 * int(VALUES["rerankWorkers"]["features"]["size"].removesuffix("Gi"))
    assert size > Settings.model_fields["rerank_cache_bytes"].default


@pytest.mark.parametrize(
    "wrong",
    [
        {"workrs": {}},
        {"image": {"tag": "latest"}},
        {"redis": {"image": "valkey/valkey:latest"}},
        {"qdrant": {"image": "qdrant/qdrant"}},
        {"workers": {"gpu": {"autoscaling": {"minReplicas": 0}}}},
        {"workers": {"cpu": {"replicas": 0}}},
        {"workers": {"tpu": {}}},
        {"api": {"resources": {"cpu": "2"}}},
        {"settings": {"CROSSLENS_QDRANT_REPLICAS": 2}},
        {"settings": {"LOG_LEVEL": "info"}},
        {"settings": {"CROSSLENS_WORKERS": "4"}},
        {"settings": {"CROSSLENS_RERANK_IN": "server"}, "rerankWorkers": {"enabled": True}},
        {"rerankWorkers": {"replicas": 0}},
        {"rerankWorkers": {"autoscaling": {"enabled": True}}},
        {"rerankWorkers": {"resources": {"cpu": "4"}}},
        {"rerankWorkers": {"features": {"size": "8"}}},
        {"settings": {"CROSSLENS_ADMIN_KEY": "0" * 32}},
        {"adminKey": {"value": "short"}},
        {"adminKey": {"value": "0" * 32, "existingSecret": "one-of-the-two"}},
        {"otel": {"env": {"CROSSLENS_MODEL": "x"}}},
        {"otel": {"env": {"OTEL_BSP_SCHEDULE_DELAY": 5000}}},
        {"api": {"ingress": {"enabled": True}}},
        {"networkPolicy": {"api": []}},
        {"redis": {"enabled": False}},
        {"qdrant": {"enabled": False}},
        {"qdrant": {"url": "https://example.org:6333"}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(VALUES, wrong), SCHEMA)


def test_helm_finds_nothing_wrong() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))
    named = ("--set", "adminKey.existingSecret=admin")
    alone = list(yaml.safe_load_all(helm("template", "crosslens", str(CHART), *named)))
    assert of_kind([each for each in alone if each], "Secret", "Ingress") == {}
    assert of_kind([each for each in alone if each], "ScaledObject", "NetworkPolicy").keys() == {
        "crosslens-api", "crosslens-clients", "crosslens-redis", "crosslens-qdrant",
    }  # fmt: skip
    assert of_kind([each for each in alone if each], "Deployment").keys() == {"crosslens-api", "crosslens-worker-cpu"}
    assert "CROSSLENS_RERANK_IN" not in str(alone)


def test_without_a_shared_volume_each_who_reranks_has_its_own() -> None:
    set_values = ("--set", "adminKey.existingSecret=admin,rerankWorkers.enabled=true,workers.gpu.enabled=true")
    rendered = [each for each in yaml.safe_load_all(helm("template", "crosslens", str(CHART), *set_values)) if each]
    assert of_kind(rendered, "PersistentVolumeClaim").keys() == {"crosslens-uploads"}
    pod, container = workloads(rendered)["crosslens-worker-rerank"]
    assert {"name": "features", "emptyDir": {"sizeLimit": "8Gi"}} in pod["volumes"]
    assert {"name": "features", "mountPath": "/data/rerank"} in container["volumeMounts"]
    for name in ("crosslens-worker-cpu", "crosslens-worker-gpu"):
        pod, container = workloads(rendered)[name]
        assert {"name": "CROSSLENS_RERANK_CACHE_BYTES", "value": "0"} in container["env"]
        assert "features" not in {each["name"] for each in pod["volumes"]}


def test_without_a_first_key_helm_says_what_to_do() -> None:
    if shutil.which("helm") is None:
        pytest.skip("there is no helm here")
    done = subprocess.run(["helm", "template", "crosslens", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "adminKey.existingSecret" in done.stderr
