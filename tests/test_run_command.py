"""run.py: sets up once, completely or again, and then hands over."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import run

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pyproject.toml"
needs_posix = pytest.mark.skipif(os.name == "nt", reason="uses a shell script")


@pytest.fixture
def checkout(tmp_path):
    """Return a folder with the files that run.py reads."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n\n[tool.ruff]\nline-length = 120\n')
    (tmp_path / ".ci" / "constraints.txt").write_text("a==1\n")
    return tmp_path


class FakeCalls:
    """Stands in for venv and pip: notes the commands, makes the interpreter, fails or is killed where told."""

    def __init__(self, monkeypatch, environment: run.Environment, stop_at: str = "") -> None:
        self.commands: list[str] = []
        self.environment, self.stop_at = environment, stop_at
        monkeypatch.setattr(run, "call", self)
        monkeypatch.setattr(run, "find_python", lambda: "PYTHON")
        listed = subprocess.CompletedProcess([], 0, "first==1\nsecond==2\n")
        monkeypatch.setattr(run.subprocess, "run", lambda *arguments, **options: listed)

    def __call__(self, command, folder):
        text = " ".join(command).replace(str(folder) + os.sep, "")
        self.commands.append(text)
        if self.stop_at and self.stop_at in text:
            raise KeyboardInterrupt
        if "-m venv" in text:
            self.environment.python.parent.mkdir(parents=True)
            self.environment.python.touch()

    def kinds(self) -> list[str]:
        marks = {"-m venv": "venv", "-e .[standalone]": "standalone", "-e .[dev]": "dev", "--no-deps": "no-deps"}
        return [next(kind for mark, kind in marks.items() if mark in command) for command in self.commands]


def test_sets_up_once(checkout, monkeypatch):
    environment = run.Environment(checkout)
    calls = FakeCalls(monkeypatch, environment)
    monkeypatch.setenv(run.PIP_ARGUMENTS, "--proxy 'http://a b'")
    assert environment.prepare("standalone") == environment.python
    assert calls.kinds() == ["venv", "standalone", "no-deps"]
    assert "-c .ci/constraints.txt --proxy http://a b -e .[standalone]" in calls.commands[1].replace(os.sep, "/")
    assert calls.commands[2].endswith("--no-deps first==1 second==2")
    run.Environment(checkout).prepare("standalone")
    assert len(calls.commands) == 3
    assert sorted(path.name for path in checkout.glob(".venv*")) == [".venv", ".venv.lock"]


def test_test_tools_are_added_and_kept(checkout, monkeypatch):
    environment = run.Environment(checkout)
    calls = FakeCalls(monkeypatch, environment)
    environment.prepare("standalone")
    environment.prepare("dev")
    environment.prepare("standalone")
    assert calls.kinds() == ["venv", "standalone", "no-deps", "dev", "no-deps"]
    (checkout / ".ci" / "constraints.txt").write_text("a==2\n")
    run.Environment(checkout).prepare("standalone")
    assert calls.kinds()[5:] == ["dev", "no-deps"]


@pytest.mark.parametrize("stop_at", ["-m venv", "-e .[", "--no-deps"])
def test_an_interrupted_setup_starts_again(checkout, monkeypatch, stop_at):
    environment = run.Environment(checkout)
    FakeCalls(monkeypatch, environment, stop_at)
    with pytest.raises(KeyboardInterrupt):
        environment.prepare("standalone")
    assert not environment.is_ready("standalone")
    (environment.folder / "leftover").touch()
    calls = FakeCalls(monkeypatch, environment)
    environment.prepare("standalone")
    assert calls.kinds() == ["venv", "standalone", "no-deps"]
    assert not (environment.folder / "leftover").exists()
    assert environment.is_ready("standalone")


def test_a_foreign_environment_is_left_alone(checkout, monkeypatch):
    environment = run.Environment(checkout)
    FakeCalls(monkeypatch, environment)
    environment.folder.mkdir()
    (environment.folder / "pyvenv.cfg").touch()
    with pytest.raises(run.SetupError, match="was not made by run.py"):
        environment.prepare("standalone")
    assert (environment.folder / "pyvenv.cfg").exists()


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"state": "installing"}'])
def test_a_broken_stamp_is_not_ready(checkout, monkeypatch, broken):
    environment = run.Environment(checkout)
    FakeCalls(monkeypatch, environment)
    environment.prepare("dev")
    assert environment.is_ready("dev")
    environment.stamp.write_text(broken)
    assert not environment.is_ready("dev")


def test_only_dependencies_decide(checkout):
    before = run.describe_dependencies(checkout)
    text = (checkout / "pyproject.toml").read_text()
    (checkout / "pyproject.toml").write_text(text.replace("120", "100"))
    assert run.describe_dependencies(checkout) == before
    (checkout / "pyproject.toml").write_text(text.replace('"x"', '"y"'))
    assert run.describe_dependencies(checkout) != before


def fake_python(folder: Path, script: str) -> Path:
    path = folder / "fake"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@needs_posix
def test_finds_a_supported_python(tmp_path, monkeypatch):
    newer = fake_python(tmp_path, "echo 3 13; echo /newer")
    monkeypatch.setattr(run, "candidates", lambda: [["no-such-python"], [str(newer)], [sys.executable]])
    assert Path(run.find_python()).samefile(sys.executable)
    monkeypatch.setattr(run, "candidates", lambda: [[str(newer)], ["false"]])
    with pytest.raises(run.SetupError, match="Install Python 3.11"):
        run.find_python()


def test_candidates_start_with_this_python_if_it_will_do(monkeypatch):
    assert run.candidates()[0] == [sys.executable]
    monkeypatch.setattr(run.sys, "version_info", (3, 13, 0))
    assert [sys.executable] not in run.candidates()
    assert ["python3.11"] in run.candidates()


@needs_posix
@pytest.mark.parametrize(("failing", "code"), [("none", 0), ("ruff", 1), ("mypy", 1), ("pytest", 1)])
def test_every_check_runs_whatever_the_others_say(tmp_path, capfd, failing, code):
    python = fake_python(tmp_path, f'echo "ran $*"; [ "$2" != {failing} ]')
    assert run.run_tests(python, tmp_path, ["-k", "name"]) == code
    out = capfd.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("ran")] == [
        "ran -m ruff check .",
        "ran -m mypy",
        "ran -m pytest -k name",
    ]
    results = re.findall(r"^run\.py: (\w+) +(ok|FAILED with exit code 1) \(\d+ s\)$", out, re.MULTILINE)
    assert [(name, state == "ok") for name, state in results] == [
        (name, name != failing) for name in ("ruff", "mypy", "pytest")
    ]


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["dance"], 2), (["--help"], 0)])
def test_usage_needs_no_environment(monkeypatch, capsys, arguments, code):
    monkeypatch.setattr(run, "Environment", None)
    assert run.main(arguments) == code
    assert "usage: python run.py COMMAND" in "".join(capsys.readouterr())


class ReadyEnvironment:
    """Stands in for an environment that is there."""

    def __init__(self, root: Path) -> None:
        self.asked: list[str] = []

    def prepare(self, extra: str) -> Path:
        return Path(f"/{extra}/python")


def test_commands_are_handed_over(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "Environment", ReadyEnvironment)
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(run, "forward", lambda command, environment: seen.append((command, environment)) or 130)
    assert run.main(["demo", "--no-ui", "--out", "D"]) == 130
    command, environment = seen[0]
    assert command == [str(Path("/standalone/python")), "-m", "lib_lora_trainer", "demo", "--no-ui", "--out", "D"]
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    assert Path.cwd() == tmp_path


def test_a_failing_setup_is_one_line(monkeypatch, capsys):
    class Broken(ReadyEnvironment):
        def prepare(self, extra: str) -> Path:
            raise run.SetupError("no network")

    monkeypatch.setattr(run, "Environment", Broken)
    assert run.main(["test"]) == 1
    assert capsys.readouterr().err == "run.py: no network\n"


def test_a_second_setup_waits(tmp_path):
    code = "import run, pathlib\nwith run.exclusive(pathlib.Path('lock')): print('got it', flush=True)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with run.exclusive(tmp_path / "lock"):
        other = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert "waiting for another run.py" in other.stdout.readline()
    assert other.stdout.readline() == "got it\n"
    assert other.wait(20) == 0
    other.stdout.close()


@needs_posix
def test_what_a_killed_setup_started_is_waited_for(tmp_path):
    started = "import sys; print('started', flush=True); sys.stdin.read()"
    code = (
        "import run, sys\nfrom pathlib import Path\n"
        f"with run.exclusive(Path('lock')): run.wait([sys.executable, '-c', {started!r}], Path.cwd())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, **pipes) as first:
        assert first.stdout.readline() == b"started\n"
        first.kill()
        first.wait()
        with (tmp_path / "lock").open("a") as handle:
            with pytest.raises(BlockingIOError):
                run.fcntl.flock(handle, run.fcntl.LOCK_EX | run.fcntl.LOCK_NB)
            first.stdin.close()  # ends what it had started
            assert first.stdout.read() == b""
            run.fcntl.flock(handle, run.fcntl.LOCK_EX | run.fcntl.LOCK_NB)


def listed(name: str) -> list[str]:
    """Return the requirements of one list in pyproject.toml."""
    block = re.search(rf"^{name} = \[(.*?)\]$", PROJECT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    return [text for text in re.findall(r'"([^"]+)"', re.sub(r"#.*", "", block)) if "[" not in text]


def normalized(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", requirement.partition("==")[0]).lower()


def test_every_dependency_is_pinned_once():
    lists = ["standalone", "dev", "standalone-no-deps", "dev-no-deps"]
    pins = {name: listed(name) for name in lists}
    constraints = [line for line in (ROOT / ".ci/constraints.txt").read_text().splitlines() if not line.startswith("#")]
    for requirement in [*itertools.chain(*pins.values()), *constraints]:
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+(; python_version (<|>=) '3\.12')?", requirement), requirement
    direct = {normalized(requirement) for requirement in pins["standalone"] + pins["dev"]}
    assert len(direct) > 20
    assert not direct & {normalized(requirement) for requirement in constraints}
    assert set(pins["standalone-no-deps"]) <= set(pins["dev-no-deps"])


def test_lists_of_packages_without_dependencies_are_read(tmp_path):
    lines = [
        "Metadata-Version: 2.1\nName: sd-webui-lora-trainer\nVersion: 0",
        "Requires-Dist: torch==2.13.0; extra == 'standalone'",
        'Requires-Dist: open_clip_torch==2.20.0; extra == "standalone-no-deps"',
        "Requires-Dist: a==1; python_version < '3.12' and extra == 'standalone-no-deps'",
        "Requires-Dist: b==1; extra == 'dev-no-deps'",
    ]
    (tmp_path / "sd_webui_lora_trainer-0.dist-info").mkdir()
    (tmp_path / "sd_webui_lora_trainer-0.dist-info" / "METADATA").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-S", "-c", run.LIST_EXTRA, run.PROJECT, "standalone-no-deps"]
    # Not in this checkout: an installation into .venv leaves the real metadata there.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout.split() == ["open_clip_torch==2.20.0", "a==1"], result.stderr


def test_continuous_integration_runs_the_documented_command():
    script = ROOT / ".ci" / "run"
    assert "python3 run.py test" in script.read_text(encoding="utf-8")
    assert "\r" not in script.read_text(encoding="utf-8")
    assert os.name == "nt" or os.access(script, os.X_OK)


def test_stamp_is_json(checkout, monkeypatch):
    environment = run.Environment(checkout)
    FakeCalls(monkeypatch, environment)
    environment.prepare("dev")
    assert json.loads(environment.stamp.read_text()) == {
        "state": "ready",
        "extra": "dev",
        "dependencies": environment.dependencies,
    }
