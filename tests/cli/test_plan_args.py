"""What `plan` is asked for: a model of given shapes."""

from __future__ import annotations

from pathlib import Path

from onnxprune.allocation import Options
from onnxprune.cli.options.data import Data
from onnxprune.cli.options.execution import Where
from onnxprune.cli.options.sizes import Sizes
from onnxprune.cli.plan_args import PlanArgs
from tests.cli.conftest import Run
from tests.graphs.folders import Family, decoder


def test_the_model_has_the_shapes(tmp_path: Path) -> None:
    model = str(tmp_path / "decoder.onnx")
    decoder(Family(layers=1)).save(Path(model))
    sizes = Sizes(shapes={"input_ids": (2, 1)})
    args = PlanArgs(model, "-", Options(), sizes, place=Where("cpu", 0), data=Data(None, 1), force=False)
    shape = args.load().proto.graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [2, 1]


def test_an_unknown_axis_is_refused(run: Run, tmp_path: Path) -> None:
    decoder(Family(layers=1)).save(tmp_path / "decoder.onnx")
    ran = run("plan", tmp_path / "decoder.onnx", "--sizes", "nothing=2")
    assert ran.code == 2 and "nothing" in ran.err
