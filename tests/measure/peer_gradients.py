"""Gradients of single operators by other tools; run by `gradient_peers.py`, in an environment that has them.

    python peer_gradients.py PEER FOLDER

FOLDER has NAME.onnx, whose inputs are what is differentiated by, and NAME.npz with the inputs ("x/NAME") and the
gradients of the outputs ("dy/NAME"). Writes NAME.PEER.npz with gradients by input name, or NAME.PEER.txt with a
refusal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort


def by_onnx_ad(model: onnx.ModelProto, values: dict[str, Any], seeds: dict[str, Any]) -> dict[str, Any]:
    """The reverse model of onnx-ad, with one seed behind the last axis."""
    from onnx_ad import reverse

    names = list(values)
    adjoint = reverse(model, inputs=names, outputs=list(seeds), layout="onnx")
    found = run(
        adjoint, {**values, **{f"adj_{n}": s[..., None] for n, s in seeds.items()}}, [f"adj_{n}" for n in names]
    )
    return {name: array[..., 0] for name, array in zip(names, found, strict=True)}


def by_onnxsim(model: onnx.ModelProto, values: dict[str, Any], seeds: dict[str, Any]) -> dict[str, Any]:
    """The backward pass of onnxsim's graph_grad, behind the forward nodes."""
    from onnxsim import graph_grad, qat_graph

    builder = qat_graph.GraphBuilder("grad_")
    shapes = {n: list(v.shape) for n, v in (*values.items(), *seeds.items())}
    shapes |= {t.name: list(t.dims) for t in model.graph.initializer}
    builder.initializer.extend(model.graph.initializer)
    nodes = list(model.graph.node)
    builder.nodes.extend(nodes)
    made = graph_grad.build_backward(builder, nodes, shapes, {n: f"adj_{n}" for n in seeds}, list(values))
    inputs = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in (*values.items(), *((f"adj_{n}", s) for n, s in seeds.items()))
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(made.values())]
    graph = onnx.helper.make_graph(builder.nodes, "backward", inputs, outputs, builder.initializer)
    opsets = [*model.opset_import, *(onnx.helper.make_opsetid(f.domain, 1) for f in builder.functions[:1])]
    whole = onnx.helper.make_model(graph, opset_imports=opsets, functions=builder.functions, ir_version=10)
    found = run(whole, {**values, **{f"adj_{n}": s for n, s in seeds.items()}}, [o.name for o in outputs])
    arrays = dict(zip((o.name for o in outputs), found, strict=True))
    return {name: arrays[tensor] for name, tensor in made.items()}


def run(model: onnx.ModelProto, feeds: dict[str, Any], outputs: list[str]) -> list[Any]:
    """Outputs in ONNX Runtime."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    return list(session.run(outputs, {n: v for n, v in feeds.items() if n in wanted}))


PEERS = {"onnx-ad": by_onnx_ad, "onnxsim": by_onnxsim}


def main(peer: str, folder: Path) -> None:
    """Differentiate every case of a folder."""
    for path in sorted(folder.glob("*.onnx")):
        with np.load(path.with_suffix(".npz")) as stored:
            values = {n.removeprefix("x/"): stored[n] for n in stored.files if n.startswith("x/")}
            seeds = {n.removeprefix("dy/"): stored[n] for n in stored.files if n.startswith("dy/")}
        try:
            found = PEERS[peer](onnx.load(path), values, seeds)
        except Exception as error:  # noqa: BLE001 - whatever they raise is a refusal
            lines = f"{type(error).__name__}: {error}".splitlines()
            path.with_suffix(f".{peer}.txt").write_text(lines[0][:300], encoding="utf-8")
        else:
            np.savez(path.with_suffix(f".{peer}.npz"), **found)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
