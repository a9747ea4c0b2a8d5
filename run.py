"""Sets up an environment of its own and runs a command in it: `python run.py demo`, `python run.py test`.

Needs nothing but Python 3.10, 3.11 or 3.12; packages come from the package index into `.venv` beside this file.
Free of syntax that Python 3.7 does not know, so that an older Python finds a newer one or says what is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ROOT = Path(__file__).resolve().parent
PROJECT = "sd-webui-lora-trainer"
SUPPORTED = ((3, 11), (3, 10), (3, 12))
PIP_ARGUMENTS = "LORA_TRAINER_PIP_ARGS"
TRAINING = ("demo", "serve", "plan", "train", "find-rate", "recipes", "settings", "import")
FORWARDED = (*TRAINING, "dataset", "tag", "captions", "reg", "bake", "grid", "pick", "blocks")
USAGE = f"""usage: python run.py COMMAND [options]

  demo [--no-ui] [--out DIR]   train on the bundled toy world, then serve the tab in a browser
  serve [options]              serve the tab without a WebUI
  plan | train | find-rate | reg | grid CONFIG.toml ... | recipes | settings | import | bake FILE | pick | blocks RUNDIR
  dataset | captions TOOL FOLDER ... | tag FOLDER    look at a dataset, and change it so that all can be undone
  test [pytest options]        lint, types and tests; setup: only make the environment for them

The first start makes .venv and installs pinned packages into it; later starts are immediate.
{PIP_ARGUMENTS} adds arguments to pip, e.g. for a CPU build of torch:
  {PIP_ARGUMENTS}="--extra-index-url https://download.pytorch.org/whl/cpu"
"""
# Run by a candidate: fails where venv cannot work, e.g. on Debian without python3-venv. 32 bits have no torch.
PROBE = "import ensurepip, sys, venv; assert sys.maxsize > 2**32; print(*sys.version_info[:2]); print(sys.executable)"
# Prints the packages of one extra: the metadata has them exactly as pyproject.toml lists them.
LIST_EXTRA = """
import sys
from importlib.metadata import requires
for line in requires(sys.argv[1]):
    name, _, marker = line.partition(";")
    if marker.replace("'", '"').endswith(f'extra == "{sys.argv[2]}"'):
        print(name.strip())
"""


class SetupError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def say(text: str) -> None:
    """Print one line of progress at once, also into a pipe."""
    print(f"run.py: {text}", flush=True)


def describe_dependencies(root: Path) -> str:
    """Return a hash of everything that decides what is installed: the project's tables and the constraints.

    Settings of tools come last in pyproject.toml and do not count.
    """
    project = (root / "pyproject.toml").read_text(encoding="utf-8").partition("\n[tool.ruff")[0]
    constraints = (root / ".ci" / "constraints.txt").read_text(encoding="utf-8")
    return hashlib.sha256(f"{project}\0{constraints}".encode()).hexdigest()


class Environment:
    """The folder `.venv` of a checkout, and the stamp in it that says what was completely installed.

    The stamp is written before anything else (state "installing") and replaced at the very end (state "ready"), so an
    interrupted installation is recognized and made again, and a folder that somebody else made is never touched.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        self.stamp = self.folder / "run-stamp.json"
        self.dependencies = describe_dependencies(root)

    def read_stamp(self) -> dict[str, str]:
        """Return the stamp, or nothing if there is none or it was cut off while being written."""
        try:
            stamp = json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def write_stamp(self, state: str, extra: str, folder: Path | None = None) -> None:
        """Write the stamp atomically, into the environment or into the folder that is going to be it."""
        stamp = (folder or self.folder) / self.stamp.name
        temporary = stamp.with_suffix(".tmp")
        text = json.dumps({"state": state, "extra": extra, "dependencies": self.dependencies})
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(stamp)

    def is_ready(self, extra: str) -> bool:
        """Tell whether the environment has the extra, in the versions that this checkout asks for."""
        stamp = self.read_stamp()
        return (
            stamp.get("state") == "ready"
            and stamp.get("dependencies") == self.dependencies
            and stamp.get("extra") in (extra, "dev")
            and self.python.exists()
        )

    def prepare(self, extra: str) -> Path:
        """Make or complete the environment if it is not ready, and return its interpreter. Raises SetupError."""
        if self.is_ready(extra):
            return self.python
        with exclusive(self.root / ".venv.lock"):
            if not self.is_ready(extra):  # another run.py may have made it while this one waited
                self._install("dev" if self.read_stamp().get("extra") == "dev" else extra)
        return self.python

    def _install(self, extra: str) -> None:
        started = time.monotonic()
        if self.read_stamp().get("state") != "ready" or not self.python.exists():
            self._create(extra)
        self.write_stamp("installing", extra)
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "--prefer-binary"]
        pip += ["-c", str(Path(".ci") / "constraints.txt"), *shlex.split(os.environ.get(PIP_ARGUMENTS, ""))]
        call([*pip, "-e", f".[{extra}]"], self.root)
        listing = [str(self.python), "-c", LIST_EXTRA, PROJECT, f"{extra}-no-deps"]
        names = subprocess.run(listing, cwd=self.root, check=True, capture_output=True, text=True).stdout.split()
        call([*pip, "--no-deps", *names], self.root)
        self.write_stamp("ready", extra)
        say(f"environment ready after {time.monotonic() - started:.0f} s")

    def _create(self, extra: str) -> None:
        if self.folder.exists():
            if not self.read_stamp() and any(self.folder.iterdir()):
                raise SetupError(f"{self.folder} was not made by run.py. Rename or delete it, then try again.")
            say(f"removing an incomplete {self.folder}")
            shutil.rmtree(self.folder)
        python = find_python()
        say(f"making {self.folder} with {python}")
        # Made elsewhere and renamed, so that the folder never exists without its stamp.
        new = self.folder.with_name(".venv.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        self.write_stamp("installing", extra, new)
        new.rename(self.folder)
        call([python, "-m", "venv", str(self.folder)], self.root)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock until this process and those it started have ended, however they end; wait for another holder."""
    with path.open("a") as handle:
        os.set_inheritable(handle.fileno(), True)  # pip may go on for a while after this process was killed
        waiting = False
        while True:
            try:
                if sys.platform == "win32":
                    msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
                else:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if not waiting:
                    say("waiting for another run.py that is setting up")
                waiting = True
                time.sleep(0.5)
        yield


def candidates() -> list[list[str]]:
    """Return the commands that may start a supported Python, best first: the one that runs this file, then others."""
    found = [[sys.executable]] if sys.version_info[:2] in SUPPORTED else []
    for major, minor in SUPPORTED:
        if sys.platform == "win32":
            found.append(["py", f"-{major}.{minor}"])
        found.append([f"python{major}.{minor}"])
    return found


def find_python() -> str:
    """Return the path of a supported Python that can make a virtual environment. Raises SetupError if there is none."""
    for command in candidates():
        try:
            answer = subprocess.run([*command, "-c", PROBE], check=False, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        version, _, path = answer.stdout.strip().partition("\n")
        # A launcher may exist without the version behind it, so only what it answers counts.
        if answer.returncode == 0 and tuple(map(int, version.split())) in SUPPORTED:
            return path.strip()
    running = ".".join(map(str, sys.version_info[:3]))
    raise SetupError(
        "no usable Python 3.10, 3.11 or 3.12 was found (64 bit, with the modules venv and ensurepip); this is Python "
        f"{running}, {sys.executable}. Install Python 3.11 from https://www.python.org/downloads/ or your system's "
        "packages (Debian and Ubuntu: also python3-venv), then try again."
    )


def call(command: list[str], folder: Path) -> None:
    """Show a command and run it; raises SetupError if it fails."""
    say(shlex.join(command) if hasattr(shlex, "join") else " ".join(command))
    code = wait(command, folder)
    if code != 0:
        raise SetupError(
            f"the command above ended with exit code {code}. The messages before this line say why; most often the "
            f"package index was not reached. Try again: what is incomplete is made anew. {PIP_ARGUMENTS} passes "
            "arguments to pip, e.g. --proxy or --index-url."
        )


def wait(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> int:
    """Run a command to its end and return its exit code.

    Ctrl-C reaches the command too (same console); it may need a while to stop cleanly, so it is not killed.
    """
    with subprocess.Popen(command, cwd=folder, env=environment, close_fds=False) as process:
        interrupted = False
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                interrupted = True
    if interrupted and code != 0:
        raise KeyboardInterrupt
    return code


def forward(command: list[str], environment: dict[str, str]) -> int:
    """Hand over to a command in the current folder, so that `--out DIR` means what it says; return its exit code.

    Where the system can, the command takes this process's place, so signals and kills reach it.
    """
    if sys.platform != "win32":
        sys.stdout.flush()
        os.execve(command[0], command, environment)
    return wait(command, Path.cwd(), environment)


def child_environment(root: Path) -> dict[str, str]:
    """Return the variables for the product's processes: found from any folder, no usage statistics."""
    environment = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    paths = [str(root), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def run_tests(python: Path, root: Path, options: list[str]) -> int:
    """Run lint, types and tests, each whatever the others say; return 0 only if all passed."""
    steps = {
        "ruff": ["-m", "ruff", "check", "."],
        "mypy": ["-m", "mypy"],
        "pytest": ["-m", "pytest", *options],
    }
    results = {}
    for name, arguments in steps.items():
        say(f"{name} ...")
        started = time.monotonic()
        code = wait([str(python), *arguments], root, child_environment(root))
        results[name] = (code, time.monotonic() - started)
    for name, (code, seconds) in results.items():
        say(f"{name:7} {'ok' if code == 0 else f'FAILED with exit code {code}'} ({seconds:.0f} s)")
    return int(any(code for code, _ in results.values()))


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    command, options = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if command not in (*FORWARDED, "test", "setup"):
        question = f"unknown command {command!r}" if command else "which command?"
        print(f"{USAGE}\nrun.py: {question}", file=sys.stderr)
        return 2
    try:
        python = Environment(ROOT).prepare("standalone" if command in FORWARDED else "dev")
        if command == "setup":
            return 0
        if command == "test":
            return run_tests(python, ROOT, options)
        return forward([str(python), "-m", "lib_lora_trainer", command, *options], child_environment(ROOT))
    except SetupError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run.py: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
