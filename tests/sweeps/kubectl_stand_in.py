"""In the place of kubectl and of KubeRay's operator: a Ray that is there runs what a RayJob says.

There is no Kubernetes where tests run. A RayJob is treated as KubeRay's sources treat it: the
command is cut at blanks and run by a shell behind `ray job submit`, with the runtime environment as
JSON in double quotes; the job's state becomes the RayJob's.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import yaml

PLACE, ADDRESS = Path(os.environ["STAND_IN_FOLDER"]), os.environ["STAND_IN_RAY"]
RAY = shlex.quote(str(Path(sys.executable).with_name("ray")))


def create() -> None:
    job = json.load(sys.stdin)
    name, spec = job["metadata"]["name"], job["spec"]
    job["metadata"].setdefault("namespace", "default")
    assert set(spec["rayClusterSpec"]["headGroupSpec"]) == {"template", "rayStartParams"}
    assert spec["shutdownAfterJobFinishes"]
    (PLACE / f"{name}.json").write_text(json.dumps(job), encoding="utf-8")
    environment = json.dumps(json.dumps(yaml.safe_load(spec["runtimeEnvYAML"])))
    command = " ".join(shlex.split(spec["entrypoint"]))
    line = f"{RAY} job submit --address {ADDRESS} --no-wait --runtime-env-json {environment}"
    line += f" --submission-id {name} -- {command}"
    subprocess.run(["sh", "-c", line], check=True, stdout=subprocess.DEVNULL)
    print(json.dumps(job))


def get(name: str) -> None:
    job = json.loads((PLACE / f"{name}.json").read_text(encoding="utf-8"))
    with urllib.request.urlopen(f"{ADDRESS}/api/jobs/{name}") as answer:
        state = json.load(answer)["status"]
    ended = state in ("SUCCEEDED", "FAILED", "STOPPED")
    job["status"] = {
        "jobId": name,
        "rayClusterName": f"{name}-cluster",
        "jobStatus": state,
        "jobDeploymentStatus": "Complete" if ended else "Running",
    }
    print(json.dumps(job))


def main(words: list[str]) -> int:
    assert words[0] == "create" or "--namespace=research" in words, words
    if words[0] == "create":
        create()
    elif words[:2] == ["get", "rayjobs"]:
        pass
    elif words[0] == "get":
        get(words[3])
    elif words[0] == "exec":
        assert words[2].endswith("-cluster-head-svc")
        return subprocess.call(["sh", "-c", shlex.join([RAY, *words[5:], "--address", ADDRESS])])
    elif "logs" in words:
        name = words[-1].removeprefix("job/")
        line = f"{RAY} job logs --address {ADDRESS} --follow {name}"
        return subprocess.call(["sh", "-c", line])
    else:
        print(f"error: unknown command {words}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
