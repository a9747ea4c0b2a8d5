"""The rules of the architecture, as functions from one file's source to the sentences that say what breaks them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

PACKAGE = "lib_lora_trainer"
EDGE = 8
# Imports point down: a file may import its own package and layers with a smaller number. Longest prefix wins.
LAYERS = {
    "base": 0,
    "installer": 0,
    "config": 1,
    "dataset": 2,
    "captions": 2,
    "tagging": 2,
    "diffusion": 3,
    "adapters": 3,
    "hosts.api": 4,
    "hosts.values": 3,
    "plan": 5,
    "train": 6,
    "save": 6,
    "evaluate": 6,
    "workshop": 6,
    "app": 7,
    "hosts": EDGE,
    "demo": EDGE,
    "cli": EDGE,
    "ui": EDGE,
    "__main__": EDGE,
}
TORCH_NEVER = ("base", "installer", "config", "dataset", "captions", "tagging")
TORCH_FREE = (*TORCH_NEVER, "cli", "__main__")
HOST_MODULES = ("modules", "modules_forge")
# Not in every WebUI, or slow to import.
OPTIMIZERS = {"bitsandbytes", "dadaptation", "lion_pytorch", "prodigyopt", "prodigyplus", "schedulefree"}
LIBRARIES = {
    "accelerate",
    "diffusers",
    "imagehash",
    "ldm",
    "lycoris",
    "onnx",
    "onnxruntime",
    "open_clip",
    "sgm",
    "tensorboard",
    "tomlkit",
    "xformers",
}
OPTIONAL = OPTIMIZERS | LIBRARIES


@dataclass(frozen=True)
class File:
    """One source file: path relative to the repository with forward slashes, and its text."""

    path: str
    text: str

    @property
    def module(self) -> str:
        """The dotted name, e.g. `lib_lora_trainer.base.errors`; a package for its `__init__`."""
        return ".".join(PurePosixPath(self.path).with_suffix("").parts).removesuffix(".__init__")

    @property
    def package(self) -> str:
        """The dotted name of the package that relative imports start from."""
        return self.module if self.path.endswith("__init__.py") else self.module.rpartition(".")[0]

    @property
    def inside(self) -> str:
        """The dotted name within the product's package, or "" for a file outside of it."""
        return self.module.removeprefix(PACKAGE + ".") if self.module.startswith(PACKAGE + ".") else ""


@dataclass(frozen=True)
class Import:
    """One imported name in dotted form; executed: whether it runs when the file is imported."""

    name: str
    line: int
    executed: bool


def within(name: str, prefix: str) -> bool:
    """Tell whether a dotted name is a module or something in it."""
    return name == prefix or name.startswith(prefix + ".")


def layer_of(inside: str) -> tuple[str, int] | None:
    """Return the layer's name and number of a dotted name within the package, or None if it is on no layer."""
    found = [name for name in LAYERS if within(inside, name)]
    return (max(found, key=len), LAYERS[max(found, key=len)]) if found else None


def dotted(node: ast.AST) -> str:
    """Return a name with its attributes, `a.b.c`; "" for any other expression."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_typing_guard(node: ast.AST) -> bool:
    """Tell whether a node is `if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING")


def imports_of(file: File, tree: ast.Module) -> list[Import]:
    """Return every import in a file: statements at any depth, relative ones resolved, and `import_module("name")`."""
    found: list[Import] = []

    def visit(node: ast.AST, executed: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, executed) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = file.package.split(".")[: len(file.package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            found.extend(Import(f"{module}.{alias.name}", node.lineno, executed) for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
        ):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.append(Import(first.value, node.lineno, executed))
        deferred = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or is_typing_guard(node)
        for child in ast.iter_child_nodes(node):
            visit(child, executed and not deferred)

    visit(tree, True)
    return found


def check_layers(file: File, tree: ast.Module) -> Iterator[str]:
    """Imports point down, siblings do not import each other, and the root package imports nothing."""
    if file.module != PACKAGE and not file.inside:
        return
    here = layer_of(file.inside)
    if file.inside and here is None:
        yield f"{file.path}: {file.inside} is on no layer; put it under one of {', '.join(LAYERS)}"
        return
    for found in imports_of(file, tree):
        if not within(found.name, PACKAGE):
            continue
        there = layer_of(found.name.removeprefix(PACKAGE + "."))
        if there is None and not found.name.endswith("__version__"):
            yield f"{file.path}:{found.line}: imports {found.name}, which is on no layer"
        elif here is None:
            yield f"{file.path}:{found.line}: the root package imports nothing, but imports {found.name}"
        elif there and there[0] != here[0] and there[1] >= here[1] and here[1] != EDGE:
            yield f"{file.path}:{found.line}: {here[0]} must not import {there[0]} ({found.name})"


def check_confined(file: File, tree: ast.Module) -> Iterator[str]:
    """The WebUI's modules, gradio, torch and optional libraries are imported only where the architecture lets them."""
    for found in imports_of(file, tree):
        top = found.name.partition(".")[0]
        webui = file.path.startswith(("scripts/", f"{PACKAGE}/hosts/webui/", f"{PACKAGE}/hosts/forge/"))
        if top in HOST_MODULES and not webui:
            yield f"{file.path}:{found.line}: only hosts/webui, hosts/forge and scripts import {top}"
        if top in ("gradio", "gradio_client") and not file.path.startswith(f"{PACKAGE}/ui/"):
            yield f"{file.path}:{found.line}: only ui imports {top}"
        if top in ("torch", "torchvision", "lycoris", "diffusers", "transformers") or within(
            found.name, "safetensors.torch"
        ):
            never = any(within(file.inside, name) for name in TORCH_NEVER)
            if never or (found.executed and any(within(file.inside, name) for name in TORCH_FREE)):
                yield f"{file.path}:{found.line}: imports {found.name}, but has to start without torch"
        # demo/build is the developer's program that made the bundled files; nothing else imports it.
        if top in OPTIONAL and found.executed and file.inside and not within(file.inside, "demo.build"):
            yield f"{file.path}:{found.line}: {top} is optional; import it in the function that needs it"


def check_side_effects(file: File, tree: ast.Module) -> Iterator[str]:
    """Importing a file defines names and does nothing else; scripts register themselves, which is their purpose."""
    if file.path.startswith("scripts/"):
        return
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in tree.body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        tests = ("__name__ == '__main__'", "TYPE_CHECKING", "typing.TYPE_CHECKING")
        guard = isinstance(node, ast.If) and (ast.unparse(node.test) in tests or "sys." in ast.unparse(node.test))
        if not (isinstance(node, quiet) or docstring or guard):
            yield f"{file.path}:{node.lineno}: runs at import: {ast.unparse(node).splitlines()[0]}"
