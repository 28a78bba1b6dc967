"""Execution providers: what runs where, with a stand-in for a device that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

import onnxprune
from onnxprune import TrainingOptions
from onnxprune.errors import RunError, UsageError
from onnxprune.model import load
from onnxprune.runtime import CPU_PROVIDER, Deployed, Setting
from tests.cli.conftest import DIGITS, MODELS, Run, run

__all__ = ["run"]
DATA = str(MODELS / "digits_calibration.npz")
CUDA = "CUDAExecutionProvider"


class Device:
    """A stand-in for onnxruntime-gpu: sessions that ask for CUDA run on the CPU, and are noted.

    Attributes:
        asked: the providers of every session.
        starts: whether the device is there.
    """

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.starts = True
        self._real = ort.InferenceSession

    def session(self, source: Any, options: Any, *, providers: list[str], **given: Any) -> Any:
        self.asked.append(providers)
        made = self._real(source, options, providers=[CPU_PROVIDER], **given)
        starts, outer = self.starts, made

        class Session:
            def get_providers(self) -> list[str]:
                return providers if starts else [CPU_PROVIDER]

            def __getattr__(self, name: str) -> Any:
                return getattr(outer, name)

        return Session()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider", CUDA, CPU_PROVIDER])
    monkeypatch.setattr(ort, "InferenceSession", found.session)
    return found


@pytest.mark.parametrize("name", ["CUDA", "cuda", CUDA, "cudaexecutionprovider"])
def test_names(device: Device, name: str) -> None:
    assert Setting(name).provider == CUDA
    Deployed(load(DIGITS), Setting(name))
    assert device.asked == [[CUDA, CPU_PROVIDER]], "what the device cannot do runs on the CPU"


def test_a_device_that_is_not_there(device: Device) -> None:
    device.starts = False
    with pytest.raises(RunError, match=f"cannot start {CUDA}"):
        Deployed(load(DIGITS), Setting("CUDA"))


@pytest.mark.parametrize(
    ("name", "package"),
    [("CUDA", "onnxruntime-gpu"), ("OpenVINO", "onnxruntime-openvino"), (CUDA, "onnxruntime-gpu")],
)
def test_a_provider_that_the_package_lacks(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU_PROVIDER])
    with pytest.raises(UsageError, match=f"no provider '{name}' here") as refused:
        TrainingOptions(3, provider=name)
    assert CPU_PROVIDER in refused.value.hint and package in refused.value.hint


def test_training_runs_there(device: Device) -> None:
    """Gradients, losses and the teacher do; what reads the shapes of the model need not."""
    small = onnxprune.prune(DIGITS, 0.5, verify=False).model
    device.asked.clear()
    given = {"teacher": DIGITS, "rate": 1e-3, "batch": 32, "threads": 1}
    trained = onnxprune.train(small, DATA, 3, provider="CUDA", **given)
    there = [providers for providers in device.asked if CUDA in providers]
    assert len(there) >= 3, "the teacher, the gradients, and the losses that judge"
    plain = onnxprune.train(small, DATA, 3, **given)
    assert abs(trained.report.after - plain.report.after) < 1e-4 * plain.report.after


@pytest.mark.parametrize("verb", ["train", "prune", "sparsify"])
def test_commands(run: Run, tmp_path: Path, device: Device, verb: str) -> None:
    output = ("-o", tmp_path / "out.onnx", "--data", DATA, "--rate", "1e-3", "--provider", "cuda")
    more = {"train": ("--teacher", DIGITS, "--steps", 3), "prune": ("-r", "0.5", "--train", 3)}
    more["sparsify"] = ("--sparsity", "0.5", "--train", 3, "--no-time", "--method", "magnitude")
    ran = run(verb, DIGITS, *output, *more[verb])
    assert ran.code == 0, ran.err
    assert sum(CUDA in providers for providers in device.asked) >= 3
    assert any(providers == [CPU_PROVIDER] for providers in device.asked), "proofs stay on the CPU"


@pytest.mark.parametrize("verb", ["train", "prune", "bench"])
def test_commands_refuse(run: Run, tmp_path: Path, verb: str) -> None:
    given: dict[str, tuple[Any, ...]] = {
        "train": (DIGITS, "-o", tmp_path / "o.onnx", "--data", DATA, "--teacher", DIGITS, "--steps", 3),
        "prune": (DIGITS, "-o", tmp_path / "o.onnx", "--data", DATA, "--train", 3),
        "bench": (DIGITS, DIGITS),
    }
    ran = run(verb, *given[verb], "--provider", "CUDA")
    assert ran.code == 2 and "no provider 'CUDA' here" in ran.err and not list(tmp_path.iterdir())
