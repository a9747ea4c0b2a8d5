"""Small ONNX models for the tests of taggers: whatever comes in, put through as it is described."""

from __future__ import annotations

from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")  # a test tool: a WebUI's environment has none
TensorProto, helper = onnx.TensorProto, onnx.helper

TYPES = {"float": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def means(path: Path, shape, kind="float", nodes=(), outputs=3) -> Path:
    """Write a model whose outputs are the means of the input's three channels in their order, after `nodes`.

    shape: of the input, text for dimensions that may be any. nodes: (operator, second input's value or None) applied
    to the means one after the other.
    """
    axes = [1, 2] if shape[-1] == 3 else [2, 3]
    made, constants, name = [helper.make_node("Cast", ["input"], ["cast"], to=TensorProto.FLOAT)], [], "cast"
    made.append(helper.make_node("ReduceMean", [name], ["mean"], axes=axes, keepdims=0))
    name = "mean"
    for number, (operator, value) in enumerate(nodes):
        inputs = [name]
        if value is not None:
            constants.append(helper.make_tensor(f"value{number}", TensorProto.FLOAT, [1], [value]))
            inputs.append(f"value{number}")
        name = f"step{number}"
        made.append(helper.make_node(operator, inputs, [name]))
    made.append(helper.make_node("Identity", [name], ["output"]))
    graph = helper.make_graph(
        made,
        "means",
        [helper.make_tensor_value_info("input", TYPES[kind], list(shape))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [shape[0], outputs])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def tagger(folder: Path, shape=("batch", 8, 8, 3), kind="float", rows=None, nodes=(("Div", 255.0),)) -> Path:
    """Write a folder with a model of `means` and a list of its tags: by default a rating, a general tag, a character."""
    means(folder / "model.onnx", shape, kind, nodes)
    lines = rows or ("0,general,9,10", "1,red_hair,0,20", "2,kayoko_(blue_archive),4,30")
    text = "\n".join(("tag_id,name,category,count", *lines)) + "\n"
    (folder / "selected_tags.csv").write_text(text, encoding="utf-8", newline="\n")
    return folder
