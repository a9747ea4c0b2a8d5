"""Decides which packages a WebUI lacks, in versions that fit what it has, and lets pip add exactly those.

Standard library only: it runs before anything is installed, in the WebUI's Python, at every start.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

SUPPORTED_PYTHON = ((3, 10), (3, 12))
NAME = "LoRA trainer"

# Any of these provides the module `onnxruntime`; two of them in one environment overwrite each other's files.
ONNX_RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-silicon",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)
TORCH_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
ASK_TORCH = "import torch; print(torch.version.cuda if torch.version.cuda and torch.cuda.is_available() else '')"


@dataclass(frozen=True)
class Package:
    """One package to add: name on the index, exact version, and what does not work without it.

    source: the index has it as source only, so pip has to build it.
    """

    name: str
    version: str
    feature: str
    source: bool = False

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


# Pure Python, a few files each; these versions run with torch 2.1 as well as with the current one.
OPTIMIZERS = (
    Package("prodigyopt", "1.1.2", "Prodigy optimizer"),
    Package("lion-pytorch", "0.2.5", "Lion optimizer"),
    Package("schedulefree", "1.4.1", "schedule-free AdamW"),
    Package("prodigy-plus-schedule-free", "2.0.1", "schedule-free Prodigy"),
    # The only wheel is of version 2.0, which has no Lion.
    Package("dadaptation", "3.2", "D-Adaptation optimizers", source=True),
)


@dataclass(frozen=True)
class Plan:
    """What to add, and what to tell the user whether or not anything is added."""

    packages: tuple[Package, ...] = ()
    notes: tuple[str, ...] = ()


def normalize(name: str) -> str:
    """Return a distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without suffixes: `2.1.2+cu121` and `2.1.2rc1` are both (2, 1, 2)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def list_installed() -> dict[str, str]:
    """Return normalized name and version of every distribution this Python finds; of duplicates, the one it imports."""
    installed: dict[str, str] = {}
    for distribution in metadata.distributions():
        try:
            name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        except (KeyError, TypeError):
            continue  # an empty folder that an interrupted pip left behind
        if name and version:
            installed.setdefault(normalize(name), version)
    return installed


def decide(installed: Mapping[str, str], python: tuple[int, ...], cuda: str) -> Plan:
    """Return what a host lacks, in versions that fit it.

    installed: normalized names and versions. python: at least major and minor. cuda: the CUDA version torch was built
    for, if torch sees an NVIDIA device, else "". Nothing that is installed is named again, whatever its version.
    """
    if not SUPPORTED_PYTHON[0] <= tuple(python[:2]) <= SUPPORTED_PYTHON[1]:
        running = ".".join(map(str, python[:2]))
        return Plan(notes=(f"Python {running} is not supported (3.10 to 3.12 are), so nothing was installed.",))
    torch = read_release(installed.get("torch", ""))
    if not torch:
        return Plan(notes=("torch is not installed yet; start the WebUI once and the rest is added then.",))

    packages: list[Package] = []
    notes: list[str] = []
    if "lycoris-lora" not in installed:
        # 4.x needs torch 2.4; 3.4.0 is the last that runs on the WebUI's torch 2.1.2.
        version = "4.1.3" if torch >= (2, 4) else "3.4.0"
        packages.append(Package("lycoris-lora", version, "training"))
    if "tomlkit" not in installed:
        packages.append(Package("tomlkit", "0.15.2", "reading and writing of settings"))
    if "imagehash" not in installed:
        # Pure Python. What it needs (PyWavelets, scipy, numpy, Pillow) is there with the WebUI's scikit-image.
        packages.append(Package("ImageHash", "4.3.2", "search for near-duplicates"))
    if not any(name in installed for name in ONNX_RUNTIMES):
        package, note = choose_onnx_runtime(torch, cuda)
        packages.append(package)
        notes.extend(note)
    if cuda and "bitsandbytes" not in installed:
        packages.append(Package("bitsandbytes", choose_bitsandbytes(torch), "8-bit optimizers"))
    packages += [package for package in OPTIMIZERS if package.name not in installed]
    return Plan(tuple(packages), tuple(notes))


def choose_onnx_runtime(torch: tuple[int, ...], cuda: str) -> tuple[Package, tuple[str, ...]]:
    """Return the ONNX runtime for tagging, and a note if it is not the fast one on a machine with a GPU.

    1.19.2 is the newest below 1.20, the last line tried with protobuf 3.20. On the index its GPU build is for CUDA 12
    and cuDNN 9, which torch carries from 2.4 on (table in ONNX Runtime's page on the CUDA execution provider); with any
    other torch it could not load its libraries, so the CPU build does the same in a fifteenth of the download.
    """
    if cuda and read_release(cuda)[:1] == (12,) and torch >= (2, 4):
        return Package("onnxruntime-gpu", "1.19.2", "tagging"), ()
    package = Package("onnxruntime", "1.19.2", "tagging")
    if not cuda:
        return package, ()
    version = ".".join(map(str, torch))
    return package, (f"tagging will use the CPU: onnxruntime-gpu does not fit torch {version} with CUDA {cuda}.",)


def choose_bitsandbytes(torch: tuple[int, ...]) -> str:
    """Return the newest tried version of bitsandbytes that accepts a version of torch, by its own requirements."""
    if torch >= (2, 4):
        return "0.50.2"
    return "0.49.2" if torch >= (2, 3) else "0.45.5"


def optimizer_version(package: str, torch: str) -> str:
    """Return the tried version of an optimizer's package for a version of torch, "" if any will do."""
    if package == "bitsandbytes":
        return choose_bitsandbytes(read_release(torch))
    return next((known.version for known in OPTIMIZERS if known.name == package), "")


def may_need_cuda(installed: Mapping[str, str]) -> bool:
    """Tell whether the plan depends on the GPU, which is slow to ask for: torch has to be imported."""
    return "bitsandbytes" not in installed or not any(name in installed for name in ONNX_RUNTIMES)


def ask_cuda(torch: str) -> str:
    """Return the CUDA version of torch if it sees an NVIDIA device, else "".

    torch: its version; a suffix such as +cpu or +rocm5.7 answers at once, and so does a missing driver, because
    importing torch takes seconds at every start. Runs torch in a process of its own, so that pip finds no file in use.
    """
    suffix = torch.partition("+")[2]
    if suffix and not suffix.startswith("cu"):
        return ""
    try:
        ctypes.CDLL(TORCH_DRIVER)
    except OSError:
        return ""
    answer = subprocess.run([sys.executable, "-c", ASK_TORCH], check=False, capture_output=True, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def can_build(executable: Path) -> bool:
    """Tell whether pip can build packages for a Python: not for the embedded ones of some one-click WebUIs.

    Their `python310._pth` hides the folder in which pip puts what a build needs (pypa/pip issue 8392).
    """
    return not any(executable.parent.glob("python*._pth"))


def wants_no_installs(environment: Mapping[str, str]) -> bool:
    """Tell whether the WebUI was told to install nothing; extensions see its options only in COMMANDLINE_ARGS."""
    return "--skip-install" in shlex.split(environment.get("COMMANDLINE_ARGS", ""))


def write_constraints(installed: Mapping[str, str], folder: Path) -> Path:
    """Write a pip constraints file that holds every installed package at its version, and return its path."""
    path = folder / "installed.txt"
    path.write_text("".join(f"{name}=={version}\n" for name, version in sorted(installed.items())), encoding="utf-8")
    return path


def pip_command(packages: Iterable[Package], constraints: Path, environment: Mapping[str, str]) -> list[str]:
    """Return the one pip call, with the WebUI's own conventions: --prefer-binary, and INDEX_URL if it is set."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--prefer-binary"]
    # Without a network the WebUI should start at once, not after pip's usual five attempts.
    command += ["--retries", "1", "-c", str(constraints)]
    if environment.get("INDEX_URL"):
        command += ["--index-url", environment["INDEX_URL"]]
    return command + [str(package) for package in packages]


def describe_missing(packages: Iterable[Package]) -> str:
    """Return a sentence that names what does not work without some packages."""
    return "; ".join(f"no {package.feature} ({package.name} {package.version})" for package in packages)


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return lines that say what pip did: additions in one line, and a loud one for each change or removal."""
    added = [f"{name} {version}" for name, version in sorted(after.items()) if name not in before]
    lines = [f"installed {', '.join(added)}. Nothing that was there has changed."] if added else []
    changed = [
        f"WARNING: {name} was {version} and is now {after.get(name, 'gone')}. Restore it with: "
        f'"{sys.executable}" -m pip install {name}=={version}'
        for name, version in sorted(before.items())
        if after.get(name) != version
    ]
    if changed and lines:
        lines = [f"installed {', '.join(added)}."]
    return lines + changed


def install(environment: Mapping[str, str]) -> list[str]:
    """Add what is missing and return the lines to show; empty if all is there.

    Never raises for what pip does: without a package the extension still loads and says what it lacks.
    """
    before = list_installed()
    plan = decide(before, sys.version_info[:3], ask_cuda(before.get("torch", "")) if may_need_cuda(before) else "")
    lines = list(plan.notes)
    ready = tuple(package for package in plan.packages if not package.source)
    # Where it cannot work it is not tried at every start; the plan of a run that needs it names what is missing.
    to_build = tuple(p for p in plan.packages if p.source) if can_build(Path(sys.executable)) else ()
    if not (ready or to_build):
        return lines
    if wants_no_installs(environment):
        missing = describe_missing((*ready, *to_build))
        return [*lines, f"nothing was installed because of --skip-install. Missing: {missing}."]
    # Two calls, so that a build that fails costs nothing but its own feature.
    with tempfile.TemporaryDirectory() as folder:
        for packages, others in ((ready, to_build), (to_build, ())):
            if packages:
                command = pip_command(packages, write_constraints(before, Path(folder)), environment)
                result = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
                if result.returncode != 0:
                    lines += describe_failure(result, (*packages, *others))
                    break
    importlib.invalidate_caches()
    return lines + compare(before, list_installed())


def describe_failure(result: subprocess.CompletedProcess[str], packages: tuple[Package, ...]) -> list[str]:
    """Return what the user is told about a pip call that failed. packages: all that are missing because of it."""
    # Not the command as it ran: its constraints file is gone.
    names = " ".join(map(str, packages))
    conflict = result.stdout.partition("The conflict is caused by:")[2].strip().partition("\n\n")[0].splitlines()
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = " | ".join(line.strip() for line in (*errors, *conflict))[-1000:]
    return [
        f"pip could not add what is missing: {describe_missing(packages)}. Everything else works.",
        f"pip said: {reason or result.stderr.strip()[-1000:]}",
        f'The next start tries again; by hand: "{sys.executable}" -m pip install --prefer-binary {names}',
    ]
