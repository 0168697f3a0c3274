"""A study on Kubernetes: a RayJob of KubeRay, made from the lab's own description of a cluster.

    mm1 submit STUDY --cluster kuberay:cluster.yaml --store /shared/mm1

The file is a RayJob or a RayCluster (`ray.io/v1`): its images, volumes, groups of workers and
whatever else the lab wants stay as they are. What is added is what to run and where its code is: an
archive in the store's folder `kuberay`. `kubectl` and its current context say which cluster it goes
to; KubeRay starts a Ray for the job, and ends it where the file says `shutdownAfterJobFinishes`,
which is so unless it says otherwise.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import secrets
import shlex
import subprocess
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import yaml

from ablations.errors import UserError, nearest, shown
from ablations.yaml_files import KeyPath, YamlDocument, load_yaml
from sweeps.objects import Objects
from sweeps.offer import Node
from sweeps.outside_program import ask

PREFIX = "kuberay:"
FOLDER = "kuberay"  # of a store
API = "ray.io/v1"
KINDS = ("RayJob", "RayCluster")
MODE = "K8sJobMode"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED", "SUSPENDED")
LONGEST_NAME = 47  # KubeRay makes names of services of a RayJob's
ANSWER_SECONDS = 60.0
QUIET_SECONDS = 2.0  # between two looks at a job that prints nothing
# Of a container's memory Ray gives three tenths to its objects, and tasks may ask for the rest.
TASKS_SHARE = 0.7
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_UNITS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


def is_kuberay(cluster: str | None) -> bool:
    """Whether a `--cluster` names a cluster of KubeRay's."""
    return cluster is not None and cluster.startswith(PREFIX)


class Template:
    """A lab's RayJob or RayCluster, as its file says it.

    Raises `UserError`, with the file's line, for what is no such thing.
    """

    def __init__(self, cluster: str):
        self.document: YamlDocument = load_yaml(cluster.removeprefix(PREFIX), read_by_others=True)
        value = self.document.value
        kind = value.get("kind")
        if value.get("apiVersion") != API or kind not in KINDS:
            said = f"{value.get('apiVersion')} {kind}"
            near = nearest(str(kind), KINDS)
            self.fail(f"expected {API} RayJob or RayCluster, got {shown(said)}{near}", ("kind",))
        self._at: KeyPath = ("spec", "rayClusterSpec") if kind == "RayJob" else ("spec",)
        self.job: dict[str, Any] = dict(self._map(value, ("spec",))) if kind == "RayJob" else {}
        self.cluster = self._map(value, self._at)
        self.metadata: dict[str, Any] = value.get("metadata") or {}
        if (mode := self.job.get("submissionMode", MODE)) != MODE:
            self.fail(
                f"submissionMode {shown(mode)}: what a study prints is read from the pod that "
                f"submits it; leave it out, or {MODE}",
                ("spec", "submissionMode"),
            )
        here, there = version("ray"), self.cluster.get("rayVersion")
        if there is not None and str(there) != here:
            self.fail(
                f"rayVersion: the cluster's is Ray {there}, and here is Ray {here}; both must have "
                "the same",
                (*self._at, "rayVersion"),
            )

    def fail(self, message: str, at: KeyPath) -> NoReturn:
        """Raise `UserError` with file and line."""
        self.document.fail(message, at)

    def _map(self, value: Any, at: KeyPath) -> dict[str, Any]:
        for key in at:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            self.fail(f"{'.'.join(map(str, at))} is missing, or no mapping", at)
        return value

    def groups(self) -> Iterator[tuple[str, int, dict[str, Any], KeyPath]]:
        """Name, number of pods, and description of each group, the head's first."""
        at: KeyPath = (*self._at, "headGroupSpec")
        yield "head", 1, self._map(self.document.value, at), at
        workers = self.cluster.get("workerGroupSpecs") or []
        for number, group in enumerate(workers):
            at = (*self._at, "workerGroupSpecs", number)
            if not isinstance(group, dict):
                self.fail("a group of workers is a mapping", at)
            replicas = group.get("replicas", group.get("minReplicas", 0))
            pods = int(replicas) * int(group.get("numOfHosts", 1))
            yield str(group.get("groupName", number)), pods, group, at

    def container(self, group: Mapping[str, Any], at: KeyPath) -> dict[str, Any]:
        """The first container of a group's pods, in which Ray runs."""
        spec = (group.get("template") or {}).get("spec") or {}
        containers = spec.get("containers") or []
        if not containers or not isinstance(containers[0], dict):
            self.fail("template.spec.containers: there is none", at)
        return containers[0]

    def refuse_unmounted(self, what: str, folder: str) -> None:
        """Raise `UserError` where pods do not mount a folder that all of them need."""
        for name, pods, group, at in self.groups():
            mounts = self.container(group, at).get("volumeMounts") or []
            places = [PurePosixPath(one.get("mountPath", "")) for one in mounts]
            if pods and not any(PurePosixPath(folder).is_relative_to(one) for one in places):
                there = ", ".join(map(str, places)) or "nothing"
                self.fail(
                    f"the pods of group {name} cannot reach the {what} {folder}: they mount "
                    f"{there}; volumeMounts needs a folder that all machines share",
                    at,
                )

    def nodes(self) -> list[Node]:
        """What the pods will offer to Ray; none where some hold TPUs, which their slices decide."""
        found = []
        for name, pods, group, at in self.groups():
            container = self.container(group, at)
            resources = container.get("resources") or {}
            limits = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
            if "google.com/tpu" in limits:
                return []
            stated = group.get("rayStartParams") or {}
            memory = self._amount(limits, "memory", at) * TASKS_SHARE
            has = {
                "CPU": float(stated.get("num-cpus", math.ceil(self._amount(limits, "cpu", at)))),
                "GPU": float(stated.get("num-gpus", self._amount(limits, "nvidia.com/gpu", at))),
                "memory": float(stated.get("memory", memory)) or math.inf,
            }
            found += [Node(f"{name}-{number}", name, has, {}) for number in range(pods)]
        return found

    def _amount(self, limits: Mapping[str, Any], name: str, at: KeyPath) -> float:
        """An amount as Kubernetes writes it: 4, 500m, 16Gi; 0 where nothing is said."""
        text = str(limits.get(name, 0))
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-zA-Z]{0,2})", text)
        if found is None or found[2] not in _UNITS:
            self.fail(f"resources: {name}: {shown(text)} is no amount such as 4, 500m or 16Gi", at)
        return float(found[1]) * _UNITS[found[2]]


def manifest(
    template: Template, study: str, words: Sequence[str], code: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The RayJob that runs `mm1 …words…` with the code at a path or URL.

    Raises:
        UserError: the template's own runtime environment is none, or a word cannot be said in a
            RayJob, which cuts its command at blanks and reads no quotes.
    """
    entrypoint = ["python", "-m", "mm1", *words, "--cluster", "auto"]
    for word in entrypoint:
        if shlex.quote(word) != word:
            raise UserError(f"a RayJob's command takes no blanks, quotes or signs: {shown(word)}")
    try:
        own = yaml.safe_load(template.job.get("runtimeEnvYAML") or "{}")
    except yaml.YAMLError:
        own = None
    if not isinstance(own, dict):
        template.fail("runtimeEnvYAML is no mapping", ("spec", "runtimeEnvYAML"))
    env_vars = {**(own.get("env_vars") or {}), **environment}
    runs = {**own, "working_dir": code, "env_vars": env_vars}
    stem = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")
    tail = secrets.token_hex(4)
    name = f"mm1-{stem}"[: LONGEST_NAME - len(tail) - 1].rstrip("-") + f"-{tail}"
    kept = {
        key: template.metadata[key] for key in ("namespace", "labels") if key in template.metadata
    }
    annotations = {**(template.metadata.get("annotations") or {}), "mm1/study": study}
    return {
        "apiVersion": API,
        "kind": "RayJob",
        "metadata": {**kept, "name": name, "annotations": annotations},
        "spec": {
            "shutdownAfterJobFinishes": True,
            **template.job,
            "entrypoint": shlex.join(entrypoint),
            "runtimeEnvYAML": yaml.safe_dump(runs, sort_keys=True),
            "rayClusterSpec": template.cluster,
        },
    }


def put_code(objects: Objects, folder: Path) -> str:
    """Put what `sweeps.shipping` packed into the store; where Ray finds it."""
    data = _archive(folder)
    key = f"{FOLDER}/code-{hashlib.sha256(data).hexdigest()[:16]}.zip"
    objects.write(key, data, durable=True)  # anew, so that its age is that of its last use
    place = f"{objects.root}/{key}"
    return place if "://" in place else f"file://{place}"


def _archive(folder: Path) -> bytes:
    """A zip of a folder, the same bytes for the same files; below one name, which Ray takes off."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(f"mm1/{path.relative_to(folder).as_posix()}")
                entry.external_attr = (path.stat().st_mode & 0o777) << 16
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return data.getvalue()


def refuse_silence(template: Template) -> None:
    """Raise `UserError` where no cluster answers, or one without KubeRay."""
    namespace = template.metadata.get("namespace")
    _call(["get", "rayjobs", "--output=name", *([f"--namespace={namespace}"] if namespace else [])])


def submit(job: Mapping[str, Any]) -> str:
    """Give a RayJob to the cluster; NAMESPACE/NAME, by which it is found again."""
    made = json.loads(_call(["create", "--filename=-", "--output=json"], json.dumps(job)))
    return f"{made['metadata']['namespace']}/{made['metadata']['name']}"


def state(job: str) -> str:
    """Of a job: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, or how far KubeRay is with it."""
    return _state_of(_status(job))


def _state_of(status: Mapping[str, Any]) -> str:
    phase, said = status.get("jobDeploymentStatus"), status.get("jobStatus")
    if phase in ("Failed", "ValidationFailed"):
        return "FAILED"
    if phase == "Complete":
        return str(said or "FAILED")
    if phase == "Running":  # a job that failed may be tried again
        return "PENDING" if said == "PENDING" else "RUNNING"
    return str(phase or "PENDING").upper()


def follow(job: str) -> Iterator[str]:
    """What a job has printed, and prints until it ends, in pieces.

    It is printed by a pod of the job's own, which comes once Ray is there; a log that breaks off is
    taken up where it was left.
    """
    namespace, _, name = job.partition("/")
    told = 0
    while True:
        is_ended = state(job) in ENDED
        words = ["kubectl", f"--namespace={namespace}", "logs", "--follow", f"job/{name}"]
        passed = 0
        with _started(words) as process:
            assert process.stdout is not None
            for line in process.stdout:
                passed += 1
                if passed > told:
                    told = passed
                    yield line
        if is_ended:
            return
        time.sleep(QUIET_SECONDS)


def stop(job: str) -> bool:
    """Ask a job to save what it has and end; whether it was still there."""
    status = _status(job)
    if _state_of(status) in ENDED:
        return False
    if status.get("jobDeploymentStatus") != "Running":  # Ray is not there: nothing to save
        _call(["patch", "rayjob", *_at(job), "--type=merge", '--patch={"spec":{"suspend":true}}'])
        return True
    namespace, _, _ = job.partition("/")
    head = f"service/{status['rayClusterName']}-head-svc"
    words = ["ray", "job", "stop", "--no-wait", status["jobId"]]
    _call(["exec", f"--namespace={namespace}", head, "--", *words])
    return True


def _status(job: str) -> dict[str, Any]:
    return json.loads(_call(["get", "rayjob", *_at(job), "--output=json"])).get("status") or {}


def _at(job: str) -> list[str]:
    namespace, _, name = job.partition("/")
    return [f"--namespace={namespace}", name]


def _started(words: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )


def _call(words: Sequence[str], given: str | None = None) -> str:
    """What a command of kubectl prints. Raises `UserError` with what it says."""
    done = ask(
        ["kubectl", *words],
        name="kubectl",
        absent=f"there is no kubectl here, by which {PREFIX}… reaches its cluster",
        seconds=ANSWER_SECONDS,
        given=given,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).splitlines()  # before the last its own log
        said = lines[-1].strip() if lines else f"exit code {done.returncode}"
        raise UserError(f"kubectl {words[0]}: {said}")
    return done.stdout
