"""What install.py adds to a WebUI, and that it changes nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer import installer

ROOT = Path(__file__).resolve().parent.parent
# A part of what version 1.10.1 of the WebUI installs.
WEBUI = {"torch": "2.1.2+cu121", "einops": "0.4.1", "numpy": "1.26.2", "protobuf": "3.20.0", "transformers": "4.30.2"}
COMPLETE = {"lycoris-lora": "1.9.0", "tomlkit": "0.12.0", "imagehash": "4.3.1", "onnxruntime": "1.16.3"} | {
    package.name: "0.1" for package in installer.OPTIMIZERS
}


def names(plan: installer.Plan) -> str:
    return " ".join(map(str, plan.packages))


BASE_OLD = "lycoris-lora==3.4.0 tomlkit==0.15.2 ImageHash==4.3.2"
BASE_NEW = "lycoris-lora==4.1.3 tomlkit==0.15.2 ImageHash==4.3.2"
PURE = "prodigyopt==1.1.2 lion-pytorch==0.2.5 schedulefree==1.4.1 prodigy-plus-schedule-free==2.0.1"
SOURCE = "dadaptation==3.2"


@pytest.mark.parametrize(
    ("installed", "python", "cuda", "expected", "note"),
    [
        (WEBUI, (3, 10, 6), "", f"{BASE_OLD} onnxruntime==1.19.2", ""),
        (WEBUI, (3, 10, 6), "12.1", f"{BASE_OLD} onnxruntime==1.19.2 bitsandbytes==0.45.5", "tagging will use the CPU"),
        (
            {**WEBUI, "torch": "2.3.1+cu121"},
            (3, 10),
            "12.1",
            f"{BASE_OLD} onnxruntime==1.19.2 bitsandbytes==0.49.2",
            "torch 2.3.1 with CUDA 12.1",
        ),
        (
            {**WEBUI, "torch": "2.4.0"},
            (3, 11),
            "12.4",
            f"{BASE_NEW} onnxruntime-gpu==1.19.2 bitsandbytes==0.50.2",
            "",
        ),
        (
            {**WEBUI, "torch": "2.13.0"},
            (3, 12),
            "13.0",
            f"{BASE_NEW} onnxruntime==1.19.2 bitsandbytes==0.50.2",
            "tagging will use the CPU",
        ),
        ({**WEBUI, "torch": "2.10.0a0+git123"}, (3, 11), "", f"{BASE_NEW} onnxruntime==1.19.2", ""),
        ({**WEBUI, "onnxruntime-directml": "1.17.1"}, (3, 10), "", BASE_OLD, ""),
        ({**WEBUI, "onnxruntime-gpu": "1.17.1", "bitsandbytes": "0.43.0"}, (3, 10), "12.1", BASE_OLD, ""),
    ],
)
def test_decision(installed, python, cuda, expected, note):
    plan = installer.decide(installed, python, cuda)
    assert names(plan) == f"{expected} {PURE} {SOURCE}"
    assert note in " ".join(plan.notes)
    assert bool(note) == bool(plan.notes)


@pytest.mark.parametrize(
    ("installed", "python", "cuda", "expected", "note"),
    [
        ({**WEBUI, **COMPLETE}, (3, 10), "", "", ""),
        ({**WEBUI, **COMPLETE}, (3, 10), "12.1", "bitsandbytes==0.45.5", ""),
        (WEBUI, (3, 13), "", "", "Python 3.13 is not supported"),
        (WEBUI, (3, 9, 1), "12.1", "", "Python 3.9 is not supported"),
        ({"numpy": "1.26.2"}, (3, 10), "", "", "torch is not installed yet"),
    ],
)
def test_decision_where_little_or_nothing_is_to_do(installed, python, cuda, expected, note):
    plan = installer.decide(installed, python, cuda)
    assert names(plan) == expected
    assert note in " ".join(plan.notes)
    assert bool(note) == bool(plan.notes)


def test_versions_of_optimizers_fit_torch():
    found = [installer.optimizer_version("bitsandbytes", torch) for torch in ("2.1.2+cu121", "2.3.1", "2.13.0")]
    assert found == ["0.45.5", "0.49.2", "0.50.2"]
    assert installer.optimizer_version("dadaptation", "2.1.2") == "3.2"
    assert installer.optimizer_version("transformers", "2.1.2") == ""


ANY_PACKAGE = [
    *("lycoris-lora", "tomlkit", "imagehash", "bitsandbytes", "einops"),
    *(package.name for package in installer.OPTIMIZERS),
    *installer.ONNX_RUNTIMES,
]


@given(
    st.dictionaries(st.sampled_from(ANY_PACKAGE), st.sampled_from(["0.1", "1.19.2", "9.9.dev1+cu1"])),
    st.sampled_from(["2.0.1", "2.1.2+cu121", "2.4.1", "2.13.0+cpu"]),
    st.sampled_from(["", "11.8", "12.1", "13.0"]),
)
def test_decision_never_touches_what_is_there(others, torch, cuda):
    installed = {**others, "torch": torch}
    plan = installer.decide(installed, (3, 10), cuda)
    added = [package.name for package in plan.packages]
    assert not set(added) & set(installed)
    runtimes = [name for name in (*added, *installed) if name in installer.ONNX_RUNTIMES]
    assert len(set(runtimes) & set(added)) == (0 if set(installed) & set(installer.ONNX_RUNTIMES) else 1)
    if not installer.may_need_cuda(installed):
        assert plan == installer.decide(installed, (3, 10), "")


class FakePip:
    """Stands in for the pip process: keeps each call with its constraints, and answers with exit codes in turn."""

    def __init__(self, codes: tuple[int, ...], stderr: str = "") -> None:
        self.codes, self.stderr, self.calls, self.constraints = list(codes), stderr, [], ""

    def __call__(self, command, **options):
        self.calls.append(command)
        self.constraints = Path(command[command.index("-c") + 1]).read_text(encoding="utf-8")
        return subprocess.CompletedProcess(command, self.codes.pop(0), "", self.stderr)


@pytest.fixture
def webui(monkeypatch):
    """Pretend to be a WebUI without a GPU; return what it has installed, which a test may change."""
    installed = dict(WEBUI)
    monkeypatch.setattr(installer, "list_installed", lambda: dict(installed))
    monkeypatch.setattr(installer, "ask_cuda", lambda torch: "")
    monkeypatch.setattr(installer.sys, "version_info", (3, 10, 6))
    return installed


def use_pip(monkeypatch, *codes: int, stderr: str = "") -> FakePip:
    fake = FakePip(codes, stderr)
    monkeypatch.setattr(installer.subprocess, "run", fake)
    return fake


def test_two_pip_calls_with_everything_held(webui, monkeypatch):
    fake = use_pip(monkeypatch, 0, 0)
    installer.install({"INDEX_URL": "https://mirror/simple"})
    ready, to_build = fake.calls
    for command in (ready, to_build):
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        assert command[command.index("--index-url") + 1] == "https://mirror/simple"
        assert "--prefer-binary" in command
    assert ready[-8:] == [*BASE_OLD.split(), "onnxruntime==1.19.2", *PURE.split()]
    assert to_build[-2:] == ["https://mirror/simple", SOURCE]
    assert fake.constraints.splitlines() == sorted(f"{name}=={version}" for name, version in WEBUI.items())


def test_a_failing_build_costs_its_own_feature_alone(webui, monkeypatch):
    fake = use_pip(monkeypatch, 0, 1, stderr="ERROR: Failed building wheel for dadaptation\n")
    lines = installer.install({})
    assert len(fake.calls) == 2
    assert "is missing: no D-Adaptation optimizers (dadaptation 3.2). Everything else works." in lines[0]
    assert lines[-1].endswith("pip install --prefer-binary dadaptation==3.2")


def test_embedded_pythons_do_not_try_to_build(webui, monkeypatch, tmp_path):
    monkeypatch.setattr(installer.sys, "executable", str(tmp_path / "python.exe"))
    assert installer.can_build(tmp_path / "python.exe")
    (tmp_path / "python310._pth").write_text("python310.zip\n.\n", encoding="utf-8")
    assert not installer.can_build(tmp_path / "python.exe")
    fake = use_pip(monkeypatch, 0)
    assert installer.install({}) == []
    assert len(fake.calls) == 1 and SOURCE not in fake.calls[0]
    webui.update(COMPLETE)
    del webui["dadaptation"]
    assert installer.install({}) == [] and len(fake.calls) == 1


def test_says_nothing_when_all_is_there(webui, monkeypatch):
    webui.update(COMPLETE)
    fake = use_pip(monkeypatch, 1)
    assert installer.install({}) == []
    assert fake.calls == []


@pytest.mark.parametrize("options", ["--skip-install", "--xformers --skip-install --api"])
def test_honours_skip_install(webui, monkeypatch, options):
    fake = use_pip(monkeypatch, 0)
    lines = installer.install({"COMMANDLINE_ARGS": options})
    assert fake.calls == []
    assert "--skip-install" in lines[0]
    assert "no training (lycoris-lora 3.4.0)" in lines[0]


def test_a_failing_pip_is_one_clear_message(webui, monkeypatch):
    stderr = "WARNING: retrying\nERROR: No matching distribution found for lycoris-lora==3.4.0\n"
    fake = use_pip(monkeypatch, 1, stderr=stderr)
    text = "\n".join(installer.install({}))
    assert len(fake.calls) == 1  # without a network the second would fail alike, and later
    for expected in (
        "no training",
        "no tagging",
        "no search for near-duplicates",
        "no Prodigy optimizer",
        "no D-Adaptation optimizers",
        "ERROR: No matching",
        "--prefer-binary",
    ):
        assert expected in text
    assert "retrying" not in text


def test_the_gpu_is_asked_for_only_where_one_can_be(monkeypatch):
    asked = []
    monkeypatch.setattr(installer.ctypes, "CDLL", asked.append)
    answer = subprocess.CompletedProcess([], 0, "12.1\n")
    monkeypatch.setattr(installer.subprocess, "run", lambda *arguments, **options: answer)
    assert installer.ask_cuda("2.1.2+cpu") == installer.ask_cuda("2.1.2+rocm5.7") == ""
    assert asked == []
    assert installer.ask_cuda("2.1.2+cu121") == installer.ask_cuda("2.13.0") == "12.1"
    monkeypatch.undo()
    monkeypatch.setattr(installer, "TORCH_DRIVER", "no-such-driver.so")
    assert installer.ask_cuda("2.13.0") == ""


def test_a_change_by_pip_is_reported():
    lines = installer.compare({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "new": "3"})
    assert lines[0] == "installed new 3."
    assert "b was 1 and is now 2" in lines[1]
    assert "c was 1 and is now gone" in lines[2]
    assert installer.compare({"a": "1"}, {"a": "1", "z": "2"}) == [
        "installed z 2. Nothing that was there has changed.",
    ]


def make_wheel(folder: Path, name: str, version: str, *requires: str) -> Path:
    """Write an installable wheel with metadata and nothing else, and return its path."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


# By the names of their files.
OPTIMIZERS = [(package.name.replace("-", "_"), package.version) for package in installer.OPTIMIZERS]


class RealHost:
    """A virtual environment that looks like a WebUI's, with an index of made-up wheels and the real pip."""

    def __init__(self, folder: Path) -> None:
        self.index = folder / "index"
        self.index.mkdir()
        venv.create(folder / "host", with_pip=False, symlinks=os.name != "nt")
        self.python = folder / "host" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        only_pip = folder / "pip"
        only_pip.mkdir()
        (only_pip / "pip").symlink_to(Path(pip.__file__).parent, target_is_directory=True)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(only_pip),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "COMMANDLINE_ARGS": "",
        }
        self.site = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        for name in ("INDEX_URL", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
            self.environment.pop(name, None)

    def run(self, *arguments: str) -> str:
        result = subprocess.run([self.python, *arguments], env=self.environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def installed(self) -> set[str]:
        listing = (
            "from importlib.metadata import distributions as d; print(*[f'{x.name}=={x.version}' for x in d(path=[P])])"
        )
        return set(self.run("-c", listing.replace("[P]", repr([str(self.site)]))).split())


@pytest.fixture
def host(tmp_path):
    made = RealHost(tmp_path)
    for name, version in [("torch", "2.1.2"), ("einops", "0.4.1"), ("protobuf", "3.20.0")]:
        with zipfile.ZipFile(make_wheel(made.index, name, version)) as wheel:
            wheel.extractall(made.site)
        make_wheel(made.index, name, "9.0")  # what pip would take if it were free
    for name, version in [("tomlkit", "0.15.2"), ("ImageHash", "4.3.2"), ("toml", "0.10.2"), *OPTIMIZERS]:
        make_wheel(made.index, name, version)
    make_wheel(made.index, "onnxruntime", "1.19.2", "protobuf")
    return made


def test_a_folder_left_by_an_interrupted_pip_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "broken-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    installed = installer.list_installed()
    assert installed["pytest"] == pytest.__version__
    assert "broken" not in installed


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_real_pip_adds_and_changes_nothing(host):
    make_wheel(host.index, "lycoris_lora", "3.4.0", "torch", "einops", "toml")
    before = host.installed()
    said = host.run(str(ROOT / "install.py"))
    after = host.installed()
    added = {"lycoris_lora==3.4.0", "tomlkit==0.15.2", "ImageHash==4.3.2", "onnxruntime==1.19.2", "toml==0.10.2"}
    added |= {f"{name}=={version}" for name, version in OPTIMIZERS}
    assert after == before | added
    assert said.startswith(
        "LoRA trainer: installed dadaptation 3.2, imagehash 4.3.2, lion-pytorch 0.2.5, lycoris-lora 3.4.0"
    )
    assert said.count("\n") == 1
    assert host.run(str(ROOT / "install.py")) == ""


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_real_pip_refuses_an_upgrade(host):
    make_wheel(host.index, "lycoris_lora", "3.4.0", "torch>=2.4", "einops>=0.8")
    before = host.installed()
    said = host.run(str(ROOT / "install.py"))
    assert host.installed() == before
    assert "LoRA trainer: pip could not add what is missing: no training" in said
    # Which of the two conflicts pip names is its version's choice.
    assert re.search(r"lycoris-lora 3\.4\.0 depends on (torch>=2\.4|einops>=0\.8)", said)
