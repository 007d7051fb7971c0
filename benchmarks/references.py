"""The shipped network in ONNX Runtime and in OpenVINO: the speed to be reached on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from onnx import TensorProto, helper, numpy_helper

import solution

BATCH = 4  # photos; both engines are as fast with 2 to 8
OPSET, IR_VERSION = 17, 9

Network = Callable[[np.ndarray], np.ndarray]  # (B, 3, H, W) -> (B, classes), float32


class _Graph:
    """An ONNX graph that grows by a node at a time."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: torch.Tensor) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.detach().numpy(), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name


def to_onnx(checkpoint: Mapping[str, Any]) -> bytes:
    """The network of a checkpoint as an ONNX model, batch norm folded into the convolutions."""
    graph, state = _Graph(), checkpoint["state_dict"]
    prefix = "features."
    features = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    bounds = graph.constant(torch.tensor(0.0)), graph.constant(torch.tensor(6.0))
    x = "photos"
    for block in checkpoint["features"]:
        y = x
        for layer in block["layers"]:
            weight, bias = solution.folded(layer, features)
            geometry = {
                "kernel_shape": weight.shape[2:],
                "strides": [layer["stride"]] * 2,
                "pads": [layer["padding"]] * 4,
                "group": layer["groups"],
            }
            y = graph.node("Conv", y, graph.constant(weight), graph.constant(bias), **geometry)
            y = graph.node("Clip", y, *bounds) if layer["relu6"] else y
        x = graph.node("Add", x, y) if block["residual"] else y
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    head = graph.constant(state["head.weight"]), graph.constant(state["head.bias"])
    logits = graph.node("Gemm", x, *head, transB=1)
    side, classes = checkpoint["preprocessing"]["input_size"], len(checkpoint["class_ids"])
    photos = helper.make_tensor_value_info("photos", TensorProto.FLOAT, ["B", 3, side, side])
    out = helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["B", classes])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "birds", [photos], [out], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def onnx_runtime(model: bytes) -> Network:
    """The model in ONNX Runtime, on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"photos": x})[0]


def open_vino(model: bytes) -> Network:
    """The model in OpenVINO, in float32 on as many threads as torch has."""
    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(model), "CPU", options)
    return lambda x: compiled(x)[0]


def classify(network: Network, classifier: solution.Classifier, folder: Path) -> dict[str, int]:
    """Class id by file name: the transform of `solution.classify`, another engine's network."""
    answers, photos = {}, solution.list_photos(folder)
    for batch in (photos[i : i + BATCH] for i in range(0, len(photos), BATCH)):
        best = network(inputs(classifier, batch)).argmax(1)
        answers.update(
            (path.name, classifier.class_ids[i]) for path, i in zip(batch, best, strict=True)
        )
    return answers


def inputs(classifier: solution.Classifier, photos: list[Path]) -> np.ndarray:
    """Normalised photos (B, 3, H, W), channels first, as the engines want them."""
    views = [
        solution.evaluation_view(
            solution.read_photo(path, classifier.side), classifier.preprocessing
        )
        for path in photos
    ]
    return solution.normalise(views, classifier.preprocessing).contiguous().numpy()
