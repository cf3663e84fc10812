# LightGBM's trees as an ONNX model: one TreeEnsembleRegressor and a sigmoid. Every decision comes out the same.
"""`to_onnx(booster, features)`: bytes of a model with one input (rows × features, float32) and one output, the probability."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper

_OPSET = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
_IR = 8  # read by every onnxruntime of the last years


def to_onnx(booster: Any, features: list[str], name: str) -> bytes:
    """The trees of a binary LightGBM model without categories, missing values or linear leaves.

    Raises: ValueError for others.
    """
    nodes: dict[str, list[Any]] = {key: [] for key in (
        "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids",
        "nodes_falsenodeids",
        "target_treeids", "target_nodeids", "target_ids", "target_weights",
    )}  # fmt: skip
    for tree, info in enumerate(booster.dump_model()["tree_info"]):
        for at, node, below in _walk(info["tree_structure"]):
            leaf = "leaf_value" in node
            if not leaf and node["decision_type"] != "<=":
                raise ValueError(f"a decision of type {node['decision_type']}")
            values = {
                "nodes_treeids": tree, "nodes_nodeids": at, "nodes_featureids": 0 if leaf else node["split_feature"],
                "nodes_values": 0.0 if leaf else _below(node["threshold"]), "nodes_modes": "LEAF" if leaf else "BRANCH_LEQ",
                "nodes_truenodeids": below[0], "nodes_falsenodeids": below[1],
            }  # fmt: skip
            for key, value in values.items():
                nodes[key].append(value)
            if leaf:
                for key, value in (("treeids", tree), ("nodeids", at), ("ids", 0), ("weights", float(node["leaf_value"]))):
                    nodes[f"target_{key}"].append(value)
    trees = helper.make_node("TreeEnsembleRegressor", ["row"], ["raw"], domain="ai.onnx.ml", n_targets=1, **nodes)
    graph = helper.make_graph(
        [trees, helper.make_node("Sigmoid", ["raw"], ["human"])], name,
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [None, len(features)])],
        [helper.make_tensor_value_info("human", TensorProto.FLOAT, [None, 1])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=_OPSET, ir_version=_IR, producer_name="edgeproxy tools/bots")
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _walk(root: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any], tuple[int, int]]]:
    """Number, node, numbers of its two sides (0 for leaves)."""
    waiting = [(0, root)]
    following = 1
    while waiting:
        at, node = waiting.pop()
        if "leaf_value" in node:
            yield at, node, (0, 0)
            continue
        yield at, node, (following, following + 1)
        waiting += [(following, node["left_child"]), (following + 1, node["right_child"])]
        following += 2


def _below(threshold: float) -> float:
    """The largest float32 that is not above: for float32 values the comparison comes out the same."""
    near = np.float32(threshold)
    return float(np.nextafter(near, np.float32(-np.inf)) if float(near) > threshold else near)
