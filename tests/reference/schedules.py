"""Writes schedules.json: learning rates of sd-scripts' schedules, computed by sd-scripts' own source.

python tests/reference/schedules.py CHECKOUT

CHECKOUT: a clone of https://github.com/kohya-ss/sd-scripts at the commit below. To be run where transformers and
diffusers have the versions of its requirements.txt. Only its function get_scheduler_fix is executed, with the modules
it needs, because the file around it imports much more.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import subprocess
import sys
import typing
from importlib import metadata
from pathlib import Path

import diffusers.optimization
import torch
import transformers

COMMIT = "48d368fa557731ad0488c07304dfeba8c07910eb"
FUNCTIONS = ("get_scheduler_fix", "is_schedulefree_optimizer", "get_dummy_scheduler")
BASE = 1e-3
STEPS = 60
# Name → options of train_network.py, and what OptimizerConfig says for the same curve.
CASES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "constant": ({"lr_scheduler": "constant"}, {"schedule": "constant"}),
    "constant, 15 steps of warm-up": (
        {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 15},
        {"schedule": "constant", "warmup": 15.0},
    ),
    "constant, a tenth of warm-up": (
        {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 0.1},
        {"schedule": "constant", "warmup": 0.1},
    ),
    "linear": ({"lr_scheduler": "linear"}, {"schedule": "linear"}),
    "linear, warm-up": ({"lr_scheduler": "linear", "lr_warmup_steps": 6}, {"schedule": "linear", "warmup": 6.0}),
    "cosine": ({"lr_scheduler": "cosine"}, {"schedule": "cosine"}),
    "cosine, warm-up": ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.25}, {"schedule": "cosine", "warmup": 0.25}),
    "cosine, minimum": (
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_min_lr_ratio": 0.1, "lr_warmup_steps": 6},
        {"schedule": "cosine", "minimum": 0.1, "warmup": 6.0},
    ),
    "restarts, 1 cycle": ({"lr_scheduler": "cosine_with_restarts"}, {"schedule": "cosine-restarts"}),
    "restarts, 3 cycles": (
        {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 3},
        {"schedule": "cosine-restarts", "cycles": 3},
    ),
    "restarts, 4 cycles, warm-up": (
        {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 4, "lr_warmup_steps": 12},
        {"schedule": "cosine-restarts", "cycles": 4, "warmup": 12.0},
    ),
    # Its polynomial ends at 1e-7, whatever the learning rate.
    "polynomial, power 1": ({"lr_scheduler": "polynomial"}, {"schedule": "polynomial", "minimum": 1e-7 / BASE}),
    "polynomial, power 2, warm-up": (
        {"lr_scheduler": "polynomial", "lr_scheduler_power": 2.0, "lr_warmup_steps": 10},
        {"schedule": "polynomial", "power": 2.0, "minimum": 1e-7 / BASE, "warmup": 10.0},
    ),
}


def extract(checkout: Path) -> typing.Callable[..., typing.Any]:
    """Return the checkout's get_scheduler_fix."""
    tree = ast.parse((checkout / "library" / "train_util.py").read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS]
    if [node.name for node in wanted if node.name == "get_scheduler_fix"] != ["get_scheduler_fix"]:
        sys.exit(f"{checkout}: library/train_util.py has no get_scheduler_fix")
    names: dict[str, typing.Any] = {
        "ast": ast,
        "importlib": importlib,
        "torch": torch,
        "transformers": transformers,
        "Optimizer": torch.optim.Optimizer,
        "SchedulerType": transformers.optimization.SchedulerType,
        "TYPE_TO_SCHEDULER_FUNCTION": transformers.optimization.TYPE_TO_SCHEDULER_FUNCTION,
        "DiffusersSchedulerType": diffusers.optimization.SchedulerType,
        "DIFFUSERS_TYPE_TO_SCHEDULER_FUNCTION": diffusers.optimization.TYPE_TO_SCHEDULER_FUNCTION,
        **{name: getattr(typing, name) for name in ("Any", "Callable", "Dict", "List", "Optional", "Tuple", "Union")},
    }
    exec(compile(ast.Module(wanted, []), "train_util.py", "exec"), names)
    return names["get_scheduler_fix"]


def rates(get_scheduler: typing.Callable[..., typing.Any], options: dict[str, object]) -> list[float]:
    """Return the learning rate of each step as a factor of the base, in the order sd-scripts uses them."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=BASE)
    usual = {
        "optimizer_type": "AdamW",
        "optimizer_schedulefree_wrapper": False,
        "max_train_steps": STEPS,
        "lr_warmup_steps": 0,
        "lr_decay_steps": 0,
        "lr_scheduler_num_cycles": 1,
        "lr_scheduler_power": 1,
        "lr_scheduler_timescale": None,
        "lr_scheduler_min_lr_ratio": None,
        "lr_scheduler_args": None,
        "lr_scheduler_type": "",
    }
    scheduler = get_scheduler(argparse.Namespace(**{**usual, **options}), optimizer, 1)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"] / BASE)
        optimizer.step()
        scheduler.step()
    return found


def main() -> None:
    """Write the file beside this one."""
    checkout = Path(sys.argv[1])
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if commit != COMMIT:
        sys.exit(f"{checkout} is at {commit}; check out {COMMIT}")
    get_scheduler = extract(checkout)
    content = {
        "source": "https://github.com/kohya-ss/sd-scripts library/train_util.py get_scheduler_fix",
        "commit": commit,
        "packages": {name: metadata.version(name) for name in ("torch", "transformers", "diffusers")},
        "steps": STEPS,
    }
    cases = {
        name: {"sd_scripts": options, "settings": settings, "factors": rates(get_scheduler, options)}
        for name, (options, settings) in CASES.items()
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    lines.append(' "cases": {\n' + ",\n".join(f"  {json.dumps(n)}: {json.dumps(v)}" for n, v in cases.items()) + "\n }")
    Path(__file__).with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
