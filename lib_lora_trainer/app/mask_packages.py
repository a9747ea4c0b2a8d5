"""What rembg needs, and how it is added to a WebUI on request without changing a package that is there.

rembg asks for `opencv-python-headless`, which provides the same module as the WebUI's `opencv-python` and would overwrite
its files. So rembg itself is installed without its dependencies, and of those only what is missing is added, with
everything that is installed held at its version. 2.0.67 is the last rembg that runs with Python 3.10, numpy 1 and
Pillow 9 (its later versions ask for numpy 2 and Pillow 12).
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lib_lora_trainer import installer
from lib_lora_trainer.installer import Package

FEATURE = "generated masks"
REMBG = Package("rembg", "2.0.67", FEATURE)
PARTS = (
    Package("jsonschema", "4.23.0", FEATURE),
    Package("pooch", "1.8.2", FEATURE),
    Package("pymatting", "1.1.14", FEATURE),
    Package("scikit-image", "0.24.0", FEATURE),
    Package("scipy", "1.13.1", FEATURE),
    Package("tqdm", "4.67.1", FEATURE),
)
# Any of these provides the module `cv2`.
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
# MB of the wheels for Linux with Python 3.10, as the index has them; what is not named here is below 0.1.
SIZES = {
    "scikit-image": 15.0,
    "scipy": 38.6,
    "opencv-python-headless": 50.0,
    "onnxruntime": 13.2,
    "numba": 3.7,
    "llvmlite": 42.0,
}


def lacking(installed: Mapping[str, str]) -> tuple[Package, ...]:
    """Return what is missing before masks can be made, rembg last; installed: normalized names and versions."""
    parts = [package for package in PARTS if package.name not in installed]
    if not any(name in installed for name in OPENCV):
        parts.append(Package("opencv-python-headless", "4.11.0.86", FEATURE))
    if not any(name in installed for name in installer.ONNX_RUNTIMES):
        parts.append(Package("onnxruntime", "1.19.2", FEATURE))
    return (*parts, *((REMBG,) if "rembg" not in installed else ()))


def megabytes(installed: Mapping[str, str]) -> int:
    """Return about how much is to be downloaded for what is lacking, at least 1; pymatting brings numba and llvmlite."""
    names = [package.name for package in lacking(installed)]
    brought = [name for name in ("numba", "llvmlite") if "pymatting" in names and name not in installed]
    return max(1, round(sum(SIZES.get(name, 0.1) for name in (*names, *brought))))


def install(environment: Mapping[str, str]) -> list[str]:
    """Add what is missing and return the lines to show. Never raises for what pip does."""
    before = installer.list_installed()
    wanted = lacking(before)
    if not wanted:
        return []
    if installer.wants_no_installs(environment):
        return [f"nothing was installed because of --skip-install. By hand: {' '.join(map(str, wanted))}."]
    parts = tuple(package for package in wanted if package != REMBG)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        constraints = installer.write_constraints(before, Path(folder))
        for packages in (parts, tuple(package for package in wanted if package == REMBG)):
            if packages and not lines:
                command = installer.pip_command(packages, constraints, environment)
                if packages == (REMBG,):
                    command.insert(command.index("install") + 1, "--no-deps")
                result = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
                if result.returncode != 0:
                    lines = _failure(result, packages)
    return lines + installer.compare(before, installer.list_installed())


def _failure(result: subprocess.CompletedProcess[str], packages: tuple[Package, ...]) -> list[str]:
    errors = [line.strip() for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = " | ".join(errors)[-1000:] or result.stderr.strip()[-1000:]
    return [f"pip could not add {', '.join(map(str, packages))}.", f"pip said: {reason}"]
