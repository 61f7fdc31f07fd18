"""The check for TensorRT against graphs that break one rule each; test_tensorrt_build.py has the exported graphs."""

import json

import onnx
import pytest
from onnx import TensorProto, helper

from fastgen.engine.spec import Component, TensorSpec
from fastgen.engine.tensorrt_operators import TABLE_FILE, check_graph, graph_problems
from fastgen.errors import EngineError

KNOWN = {"FLOAT", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT4E2M1"}
KNOWN |= {"INT8", "INT4", "UINT8", "INT32", "INT64", "BOOL"}
PART = Component(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(4,)),),
    output=TensorSpec(name="y", dtype="float32", shape=(4,)),
)


def graph(*nodes, weights=(), opset=18, out=("B", 4), dtype=TensorProto.FLOAT, rest=(4,)):
    """A model from x (B, ...) to y; its last node writes y."""
    x = helper.make_tensor_value_info("x", dtype, ["B", *rest])
    y = helper.make_tensor_value_info("y", dtype, out)
    made = helper.make_graph(list(nodes), "g", [x], [y], initializer=list(weights))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def node(kind, inputs, outputs="y", **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), name=f"n_{kind}", **attributes)


def ints(name, *values):
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def floats(name, size):
    return helper.make_tensor(name, TensorProto.FLOAT, [size], [1.0] * size)


def test_the_table_is_complete_and_has_a_source():
    table = json.loads(TABLE_FILE.read_text())
    assert table["tensorrt"] == "11.2" and table["opsets"] == [9, 24] and "onnx-tensorrt" in table["source"]
    assert len(table["operators"]) == 160
    for name, entry in table["operators"].items():
        assert entry["types"] and set(entry["types"]) <= KNOWN, name
        assert entry.keys() <= {"types", "constant", "outputs", "attributes", "note"}, name


def test_a_good_graph_has_no_problems():
    assert graph_problems(graph(node("Relu", "x")), loop=True) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (graph(node("Relu", "x"), opset=8), "opset 8: TensorRT 11.2 takes 9 to 24"),
        (graph(node("Det", "x"), rest=(4, 4), out=("B",)), "Det 'n_Det': TensorRT 11.2 has no such operator"),
        (graph(node("Foo", "x", domain="my.ops")), "my.ops.Foo 'n_Foo': TensorRT 11.2 has no such operator"),
        (graph(node("Sqrt", "x"), dtype=TensorProto.DOUBLE), "Sqrt 'n_Sqrt': 'x' is DOUBLE, TensorRT takes FLOAT, "),
        (
            graph(node("LayerNormalization", "x w", "y m"), weights=[floats("w", 4)]),
            "got 2 outputs, TensorRT has 1",
        ),
        (
            graph(node("Shape", "x", "s"), node("Unsqueeze", "x s"), out=("B", 4, 1)),
            "Unsqueeze 'n_Unsqueeze': input 1, 's', must be a constant",
        ),
        (
            graph(node("Reshape", "x s"), weights=[ints("s", 4, -1)], out=(4, "B")),
            "only the first axis, the batch, may be free",
        ),
        (
            graph(node("Resize", "x r r s", mode="cubic"), weights=[], rest=(1, 4, 4), out=("B", 1, 8, 8)),
            "types cannot be inferred",
        ),
        (graph(node("TopK", "x k", "y i", sorted=0), weights=[ints("k", 4)]), "got sorted=0, TensorRT takes [1]"),
        (graph(node("ArgMax", "x", "i"), node("Cast", "i", to=1), out=("B", 4)), "'i' is computed as INT64"),
        (graph(node("Add", "x w"), weights=[ints("w", 1, 1, 1, 1)]), "types cannot be inferred"),
    ],
)
def test_a_graph_that_breaks_a_rule_is_named(model, message):
    problems = graph_problems(model, loop=False)
    assert any(message in line for line in problems), problems


def test_integers_may_be_moved_but_not_computed_outside_of_the_loop():
    nodes = [node("Shape", "x", "s"), node("Expand", "w s")]
    assert graph_problems(graph(*nodes, weights=[floats("w", 4)]), loop=False) == []
    problems = graph_problems(graph(*nodes, weights=[floats("w", 4)]), loop=True)
    assert problems == ["Shape 'n_Shape': 's' is computed as INT64 at every call"]


def test_half_precision_is_refused_in_a_float32_graph_and_float32_weights_in_a_half_one():
    nodes = [node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Cast", "h", to=TensorProto.FLOAT)]
    assert graph_problems(graph(*nodes), loop=True) == ["its numbers are FLOAT, FLOAT16; allowed in fp32: FLOAT"]
    assert graph_problems(graph(*nodes), loop=True, precision="fp16") == []
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [1.0] * 16)
    product = graph(node("MatMul", "x w"), weights=[weight])
    assert graph_problems(product, loop=True) == []
    wrong = graph_problems(product, loop=True, precision="fp16")
    assert wrong == ["MatMul 'n_MatMul' computes in FLOAT, not in FLOAT16"]


def test_the_error_names_the_file_and_all_problems(tmp_path):
    path = tmp_path / "unet.onnx"
    onnx.save(graph(*[node("Det", "x", f"d{i}") for i in range(30)], node("Relu", "x")), path)
    with pytest.raises(EngineError) as error:
        check_graph(path, PART, loop=True)
    text = str(error.value)
    assert "cannot take unet.onnx" in text and "and 10 more" in text and "--backend onnxruntime" in text


def test_a_graph_with_other_tensors_or_no_graph_at_all_is_refused(tmp_path):
    path = tmp_path / "unet.onnx"
    onnx.save(graph(node("Relu", "x"), rest=(5,), out=("B", 5)), path)
    with pytest.raises(EngineError, match="it has the tensors {'x': .*needed are"):
        check_graph(path, PART, loop=True)
    path.write_bytes(b"nonsense")
    with pytest.raises(EngineError, match="cannot be read as ONNX"):
        check_graph(path, PART, loop=True)
