"""Make the small models of this folder: `python models/make.py` (needs onnx and numpy).

With --check, also validate every model and run it in ONNX Runtime; --table prints the table of README.md.
"""

import argparse
import math
from pathlib import Path

import attention  # noqa: F401  (enters its models into the table)
import convnets  # noqa: F401
import formats  # noqa: F401
import numpy as np
import onnx
from net import MODELS, Spec
from onnx import TensorProto, helper

FOLDER = Path(__file__).parent
SIZES = {"batch": 3, "time": 20}  # what symbolic axes are set to for a run; 8 if not named here
RANGES = {"attention_mask": (1, 2), "token_type_ids": (0, 2)}  # of integer inputs; 0 to 7 if not named here
LIMIT = 64_000  # bytes per model, so that the folder stays small


def feed(model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Random inputs: normal numbers, and integers small enough to be token ids."""
    rng = np.random.RandomState(seed)
    initializers = {t.name for t in model.graph.initializer}

    def sample(value: onnx.ValueInfoProto) -> np.ndarray:
        tensor = value.type.tensor_type
        shape = [SIZES.get(d.dim_param, 8) if d.dim_param else d.dim_value for d in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f" or dtype.name == "bfloat16":
            return rng.standard_normal(shape).astype(dtype)
        low, high = RANGES.get(value.name, (0, 8))
        return rng.randint(low, high, shape).astype(dtype)

    return {v.name: sample(v) for v in model.graph.input if v.name not in initializers}


def run(path: Path) -> None:
    """Run a model twice; its outputs must be finite and must depend on its inputs."""
    import onnxruntime as ort

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    first, second = (session.run(None, feed(onnx.load(path), seed)) for seed in (0, 1))
    for output, other in zip(first, second, strict=True):
        assert np.isfinite(output).all(), "an output is not finite"
        assert output.size and np.abs(output.astype(np.float64) - other).max() > 1e-4, "an output is constant"
        assert np.abs(output.astype(np.float64)).max() < 1e3, "activations explode"


def check(spec: Spec, path: Path) -> None:
    assert path.stat().st_size < LIMIT, "too large"
    assert row(spec) in (FOLDER / "README.md").read_text(encoding="utf-8"), "README.md: outdated, see --table"
    onnx.checker.check_model(path, full_check=spec.strict)
    if spec.strict:
        onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True, data_prop=True)
    if spec.runnable:
        run(path)


def parameters(model: onnx.ModelProto) -> int:
    """How many weights are stored, without scalars, shapes and indices."""
    constants = [n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"]
    stored = [*model.graph.initializer, *constants, *(s.values for s in model.graph.sparse_initializer)]
    return sum(math.prod(t.dims) for t in stored if t.dims and t.data_type != TensorProto.INT64)


def row(spec: Spec) -> str:
    model = spec.make()
    architecture, exhibits = spec.about
    opset = next(o.version for o in model.opset_import if not o.domain)
    return f"| `{spec.name}.onnx` | {architecture} | {opset} | {parameters(model):,} | {exhibits} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="validate and run what was written")
    parser.add_argument("--table", action="store_true", help="print the table of README.md and write nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print("| file | architecture | opset | parameters | exhibits |\n|---|---|--:|--:|---|")
        print(*map(row, MODELS.values()), sep="\n")
        return
    for spec in MODELS.values():
        path = FOLDER / f"{spec.name}.onnx"
        spec.save(spec.make(), path)
        if arguments.check:
            print(f"{spec.name}: ", end="", flush=True)
            check(spec, path)
            print("valid, runs, finite" if spec.runnable else "valid")


if __name__ == "__main__":
    main()
