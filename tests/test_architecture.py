"""The architecture holds: every file obeys the rules, and every rule can fail."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from architecture import (
    LAYERS,
    PACKAGE,
    TORCH_FREE,
    File,
    check_confined,
    check_layers,
    check_side_effects,
    layer_of,
    within,
)
from code_rules import check_classes, check_sizes, check_statements, check_text

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob(f"{PACKAGE}/**/*.py"), *ROOT.glob("scripts/*.py"), ROOT / "install.py", ROOT / "run.py"])
FORBIDDEN_AT_IMPORT = ("torch", "gradio", "modules", "diffusers", "transformers", "lycoris", "onnxruntime")
CHECKS = (
    check_layers,
    check_confined,
    check_side_effects,
    check_statements,
    check_classes,
    check_sizes,
    check_text,
)


def violations(file: File) -> list[str]:
    """Return everything in one file that breaks a rule."""
    tree = ast.parse(file.text, file.path)
    return [text for check in CHECKS for text in check(file, tree)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_obeys_the_rules(path):
    file = File(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    assert violations(file) == []


def test_every_layer_of_the_first_release_is_walked():
    found = {layer_of(File(path.relative_to(ROOT).as_posix(), "").inside) for path in SOURCES}
    names = {layer[0] for layer in found if layer}
    assert names >= {
        "base",
        "config",
        "dataset",
        "captions",
        "diffusion",
        "adapters",
        "hosts.api",
        "plan",
        "train",
        "save",
    }
    assert {"install.py", "run.py"} <= {path.name for path in SOURCES}


BAD = [
    # 1. imports point down
    ("base/a.py", "from lib_lora_trainer.config import run", "base must not import config"),
    ("base/a.py", "def f():\n    import lib_lora_trainer.train.loop", "base must not import train"),
    ("dataset/a.py", "from lib_lora_trainer.captions.tags import split", "dataset must not import captions"),
    ("dataset/a.py", "from ..captions import tags", "dataset must not import captions"),
    ("dataset/a.py", "from .. import captions", "dataset must not import captions"),
    ("diffusion/a.py", "import lib_lora_trainer.adapters.keys", "diffusion must not import adapters"),
    ("save/a.py", "from lib_lora_trainer.train import state", "save must not import train"),
    ("plan/a.py", "from lib_lora_trainer.train import state", "plan must not import train"),
    ("train/a.py", "from lib_lora_trainer import app", "train must not import app"),
    ("app/a.py", "from lib_lora_trainer.hosts import select", "app must not import hosts"),
    ("hosts/api.py", "from lib_lora_trainer.hosts import standalone", "hosts.api must not import hosts"),
    ("adapters/a.py", "from lib_lora_trainer.hosts.api import Host", "adapters must not import hosts.api"),
    ("plan/a.py", "import importlib\ndef f():\n    importlib.import_module('lib_lora_trainer.ui.tab')", "import ui"),
    ("plan/a.py", "import typing\nif typing.TYPE_CHECKING:\n    from lib_lora_trainer.ui import tab", "import ui"),
    ("installer.py", "from lib_lora_trainer.base import errors", "installer must not import base"),
    ("__init__.py", "from lib_lora_trainer import base", "the root package imports nothing"),
    ("things/a.py", "x = 1", "is on no layer"),
    ("app/a.py", "from lib_lora_trainer.things import a", "which is on no layer"),
    # 2. confined libraries
    ("train/a.py", "def f():\n    from modules import shared", "import modules"),
    ("ui/a.py", "import modules.shared", "import modules"),
    ("hosts/standalone/a.py", "from modules import shared", "import modules"),
    ("app/a.py", "import gradio as gr", "only ui imports gradio"),
    ("hosts/webui/a.py", "import gradio as gr", "only ui imports gradio"),
    ("captions/a.py", "def f():\n    import torch", "has to start without torch"),
    ("dataset/a.py", "from torch import nn", "has to start without torch"),
    ("base/a.py", "from safetensors.torch import load_file", "has to start without torch"),
    ("cli.py", "import torch", "has to start without torch"),
    # 3. no side effects, optional libraries late
    ("app/a.py", "import os\nos.makedirs('x')", "runs at import"),
    ("app/a.py", "for n in range(3):\n    x = n", "runs at import"),
    ("app/a.py", "try:\n    import numpy\nexcept ImportError:\n    numpy = None", "runs at import"),
    ("tagging/a.py", "import onnxruntime", "onnxruntime is optional"),
    ("adapters/a.py", "from lycoris import kohya", "lycoris is optional"),
    ("adapters/a.py", "class A:\n    from lycoris import kohya", "lycoris is optional"),
    # 4. statements and sizes
    ("app/a.py", "x = 1\ndef f():\n    global x\n    x = 2", "global"),
    ("app/a.py", "def f():\n    try:\n        f()\n    except:\n        raise", "bare except"),
    ("app/a.py", "def f():\n    try:\n        f()\n    except ValueError:\n        pass", "does nothing"),
    ("app/a.py", "def f():\n    try:\n        f()\n    except ValueError:\n        ...", "does nothing"),
    ("app/a.py", "def f():\n    print(1)", "print"),
    ("cli.py", "def f():\n    print(1)", "print"),
    ("app/a.py", "def f(x=[]):\n    return x", "mutable default"),
    ("app/a.py", "def f(*, x=dict()):\n    return x", "mutable default"),
    ("app/a.py", "from os import *", "star import"),
    ("app/a.py", "def f(**options):\n    return 1", "swallows"),
    ("app/a.py", "def f(**options):\n    return options.get('a')", "swallows"),
    ("app/a.py", "def f(**options):\n    return options['a']", "swallows"),
    ("app/a.py", "def f(a, b, c, d, e, f, *, g, h):\n    return 1", "8 arguments"),
    ("app/a.py", "\n" * 301, "301 lines"),
    ("hosts/api.py", "\n" * 151, "151 lines"),
    ("app/a.py", "def f():\n" + "    x = 1\n" * 80, "81 lines"),
    ("train/loop.py", "def f():\n" + "    x = 1\n" * 150, "151 lines"),
    ("app/a.py", "def f():\n    raise NotImplementedError('later')", "NotImplementedError"),
    ("app/a.py", "x = 1  # TO" + "DO: more", "unfinished"),
    ("app/a.py", "x = '/ro" + "ot/models'", "a path of one machine"),
    ("app/utils.py", "x = 1", "vague name"),
    ("app/a.py", "class RunManager:\n    x = 1", "vague name"),
    ("app/a.py", "def load_helper():\n    return 1", "vague name"),
    # house style of classes
    ("app/a.py", "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int", "not frozen"),
    ("app/a.py", "class A:\n    x = 1\nclass B(A):\n    y = 2", "inherits the implementation of A"),
    ("app/a.py", "from b import Thing\nclass B(Thing):\n    y = 2", "inherits the implementation of Thing"),
]


@pytest.mark.parametrize(("path", "text", "expected"), BAD)
def test_rule_can_fail(path, text, expected):
    found = violations(File(f"{PACKAGE}/{path}", text))
    assert any(expected in line for line in found), found


GOOD = [
    ("config/a.py", "from ..base import errors\nfrom lib_lora_trainer.base.codec import load"),
    ("dataset/a.py", "from .scan import look\nfrom lib_lora_trainer.dataset import items"),
    ("hosts/webui/a.py", "from modules import shared\nfrom lib_lora_trainer.hosts.api import Host"),
    ("cli.py", "def f():\n    import torch\n    from lib_lora_trainer.demo import run\n    return torch, run"),
    ("cli.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ("ui/a.py", "import gradio as gr\nfrom lib_lora_trainer.app import jobs"),
    ("app/a.py", "def f(**options):\n    return g(1, **options)"),
    ("app/a.py", "def f(**options):\n    return [name for name, value in options.items()]"),
    ("app/a.py", "def f(self, a, b, c, d, e, g, h):\n    return 1"),
    ("app/a.py", "from torch import nn\nclass A(nn.Module):\n    x = 1"),
    ("app/a.py", "class Stop(Exception):\n    '''Why.'''\nclass Late(Stop):\n    '''Why.'''"),
    ("app/a.py", "from typing import Protocol\nclass Port(Sized, Protocol):\n    x: int"),
    ("train/loop.py", "def f():\n" + "    x = 1\n" * 140),
    ("tagging/a.py", "def f():\n    import onnxruntime\n    return onnxruntime"),
    ("app/a.py", "commonly = 'network/workshop'\nx = 'a/work/b'"),
    (
        "__main__.py",
        "import sys\nfrom lib_lora_trainer.cli import main\nif __name__ == '__main__':\n    sys.exit(main())",
    ),
]


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_rule_lets_good_code_pass(path, text):
    assert violations(File(f"{PACKAGE}/{path}", text)) == []


def test_scripts_register_but_stay_short():
    register = "from modules import script_callbacks\nscript_callbacks.on_ui_tabs(list)\n"
    assert violations(File("scripts/lora_trainer.py", register)) == []
    assert "41 lines; 40" in violations(File("scripts/lora_trainer.py", "x = 1\n" * 41))[0]


def test_layer_map_is_the_documented_one():
    chain = ["base", "config", "dataset", "diffusion", "hosts.api", "plan", "train", "app", "ui"]
    numbers = [LAYERS[name] for name in chain]
    assert numbers == sorted(set(numbers))
    for siblings in (
        ("dataset", "captions", "tagging"),
        ("diffusion", "adapters"),
        ("train", "save", "evaluate", "workshop"),
    ):
        assert len({LAYERS[name] for name in siblings}) == 1


def torch_free_modules() -> list[str]:
    """Return the product's modules that have to start without torch."""
    files = [File(path.relative_to(ROOT).as_posix(), "") for path in SOURCES]
    return [file.module for file in files if any(within(file.inside, name) for name in TORCH_FREE)]


def test_light_modules_start_without_torch_and_say_nothing():
    modules = torch_free_modules()
    assert len(modules) > 10
    code = (
        "import importlib, sys, threading\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"heavy = [name for name in {FORBIDDEN_AT_IMPORT!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
        "assert threading.active_count() == 1\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_installer_and_run_need_only_the_standard_library():
    code = "import sys; sys.path.insert(0, '.'); import install, run; import lib_lora_trainer.installer"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
