"""The only module that knows ONNX Runtime: sessions and runs."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx

from onnxprune.errors import RunError, UsageError
from onnxprune.model import Model, save, to_proto
from onnxprune.model.protos import without_weights
from onnxprune.model.quantizers import runnable
from onnxprune.system import cores, killable, quota

# What an index beyond its table means for who gave the inputs.
OUT_OF_TABLE = (
    "a token id or a position in the inputs is beyond the table of the model: mend them, or shorten rows (--sizes)"
)
# Above this a model is handed to the runtime as a file: protobuf cannot serialise 2 GiB.
LARGEST_IN_MEMORY = 1 << 30
# Nodes; above this the runtime's own clean-up, whose time is quadratic, takes more than it saves.
LARGEST_TIDIED = 10_000
# Nodes; above this, sizes without a name get one, see `_name_sizes`.
LARGEST_UNNAMED = 2000

CPU_PROVIDER = "CPUExecutionProvider"
# Short names of providers -> the package that has them.
PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "dml": "onnxruntime-directml",
    "openvino": "onnxruntime-openvino",
}
_ARRAY = re.compile(r"tensor\((bool|string|float|float16|double|u?int(8|16|32|64))\)")


def provider_names() -> list[str]:
    """Ask which execution providers ONNX Runtime has here.

    Returns:
        Their short names: "CPU", "CUDA", ...
    """
    import onnxruntime as ort

    return [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]


def installed_runtimes() -> list[str]:
    """Name the packages that bring ONNX Runtime: all have one module, so that of several the last one counts.

    Returns:
        Those that are installed here.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    found = []
    for name in ("onnxruntime", *dict.fromkeys(PACKAGES.values())):
        with contextlib.suppress(PackageNotFoundError):
            found.append(distribution(name).metadata["Name"])
    return found


@dataclass(frozen=True)
class Setting:
    """What a model runs on where its time counts.

    Attributes:
        provider: ONNX Runtime's execution provider; its last part may be left out ("CUDA").
        threads: of one operator; 0 is what ONNX Runtime takes, all cores.

    Raises:
        UsageError: the installed runtime has no such provider.
    """

    provider: str = CPU_PROVIDER
    threads: int = 0

    def __post_init__(self) -> None:
        import onnxruntime as ort

        known = ort.get_available_providers()
        found = [p for p in known if self.provider.lower() in (p.lower(), p.lower().removesuffix("executionprovider"))]
        if not found:
            short = self.provider.lower().removesuffix("executionprovider")
            package = f"; {PACKAGES[short]} in place of onnxruntime has it" if short in PACKAGES else ""
            if len(several := installed_runtimes()) > 1:
                package += f"; {' and '.join(several)} are installed over each other: keep one"
            raise UsageError(
                f"ONNX Runtime has no provider {self.provider!r} here", hint=f"it has: {', '.join(known)}{package}"
            )
        object.__setattr__(self, "provider", found[0])


@dataclass(frozen=True)
class RunMode:
    """How a part of a graph is run.

    Attributes:
        threads: of one operator; 0 is what ONNX Runtime takes, all cores.
        fused: whether the runtime may fuse operators and change layouts of tensors: quicker, and rounded otherwise.
        limit: seconds that a run may take; no limit where 0.
    """

    threads: int = 0
    fused: bool = False
    limit: float = 0.0


class Session:
    """A model that is ready to run; closes its temporary files on exit."""

    # Seconds that a run may take; no limit where 0.
    limit: float = 0.0
    # Whether the model is run as it is written because the runtime's own clean-up fails on it.
    optimiser_failed: bool = False

    def __init__(
        self, model: Model, *, threads: int = 0, optimised: bool = True, fused: bool = False, limit: float = 0.0
    ) -> None:
        """Prepare `model`.

        Args:
            model: the model.
            threads: of one operator; 0 is what ONNX Runtime takes, all cores.
            optimised: let the runtime tidy the graph; where it fails to, the graph stays as it is written.
            fused: let it also fuse operators and change layouts, where it can: quicker, and rounded otherwise.
            limit: seconds that a run may take; no limit where 0.

        Raises:
            RunError: the runtime refuses it.
        """
        tidied = optimised and len(model.proto.graph.node) <= LARGEST_TIDIED
        self.limit = limit
        if fused and tidied:
            with contextlib.suppress(RunError):
                self._open(model, self.options(threads, tidied=True, fused=True), [CPU_PROVIDER])
                return
        try:
            self._open(model, self.options(threads, tidied=tidied), [CPU_PROVIDER])
        except RunError as refused:
            if not tidied:
                raise
            try:
                self._open(model, self.options(threads, tidied=False), [CPU_PROVIDER])
            except RunError:
                raise refused from None
            self.optimiser_failed = True

    @staticmethod
    def options(threads: int, *, tidied: bool, fused: bool = False) -> Any:
        """Options of a session that runs the graph as it is written, tidied up or not, without fusions by default.

        What is proved is the model, not the optimiser.
        """
        import onnxruntime as ort

        options, level = _options(threads), ort.GraphOptimizationLevel
        plain = level.ORT_ENABLE_BASIC if tidied else level.ORT_DISABLE_ALL
        options.graph_optimization_level = level.ORT_ENABLE_ALL if fused else plain
        # Not even float weights quantised, for being next to what is.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        # Threads that wait for work must not take the time of others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def _open(
        self, model: Model | Path, options: Any, providers: Sequence[str], *, without: Collection[str] = ()
    ) -> None:
        import onnxruntime as ort

        self._folder: tempfile.TemporaryDirectory[str] | None = None
        try:
            source = self._source(model)
            with killable() if self._folder is None else contextlib.nullcontext():
                self._session = ort.InferenceSession(
                    source, options, providers=list(providers), disabled_optimizers=list(without) or None
                )
        except Exception as error:
            self.close()
            raise RunError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error
        if os.name == "posix":  # what is mapped into memory stays there
            self.close()
        self.outputs: list[str] = [o.name for o in self._session.get_outputs()]
        self.inputs: frozenset[str] = frozenset(i.name for i in self._session.get_inputs())
        # Outputs that come as arrays: no sequences, and nothing that numpy has no type for.
        self.arrays: frozenset[str] = frozenset(o.name for o in self._session.get_outputs() if _ARRAY.fullmatch(o.type))
        # Outputs that are tensors of a type that numpy has none for ("INT4", "FLOAT8E4M3FN"), with their type.
        self.narrow: dict[str, str] = {
            o.name: o.type.removeprefix("tensor(").removesuffix(")").upper()
            for o in self._session.get_outputs()
            if o.type.startswith("tensor(") and o.name not in self.arrays
        }

    def _source(self, model: Model | Path) -> bytes | str:
        if isinstance(model, Path):
            return str(model)
        model = runnable(model)
        if not model.external and model.nbytes < LARGEST_IN_MEMORY:
            if len(model.proto.graph.node) <= LARGEST_UNNAMED:
                return b"".join(model.blob().pieces())
            proto = to_proto(model)
            _name_sizes(proto)
            return bytes(proto.SerializeToString())
        self._folder = tempfile.TemporaryDirectory(prefix="onnxprune-")
        path = Path(self._folder.name) / "model.onnx"
        save(model, path)
        return str(path)

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> list[Any]:
        """Run once.

        Raises:
            RunError: the runtime fails, or does not end within the limit.
        """
        try:
            with _limited(self.limit) as options, killable():
                return list(self._session.run(outputs, dict(feeds), options))
        except Exception as error:
            if "terminate flag" in str(error):
                raise RunError(f"ONNX Runtime did not end within {self.limit:g} seconds") from error
            said = _first_line(error)
            raise RunError(
                f"ONNX Runtime failed: {said}", hint=OUT_OF_TABLE if "out of data bounds" in said else ""
            ) from error

    def close(self) -> None:
        """Remove temporary files."""
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Deployed(Session):
    """A model as its users run it, with all that the runtime does to make it fast; for timing."""

    def __init__(
        self,
        model: Model | Path,
        setting: Setting,
        *,
        profile: str = "",
        optimised_to: str = "",
        memory_pattern: bool = True,
    ) -> None:
        """Prepare `model`.

        Args:
            model: the model, or its file.
            setting: what it runs on.
            profile: where the times of single operators go (a file name starts like this); nowhere if empty.
            optimised_to: file for the graph that the runtime makes of the model; none if empty.
            memory_pattern: reserve all memory of a run at once, which is quicker and takes more of it.

        Raises:
            RunError: the runtime refuses it, or does not start the provider.
        """
        options = _options(setting.threads)
        options.enable_mem_pattern = memory_pattern
        # Threads of one session that go on spinning would take time from the next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        if optimised_to:
            options.optimized_model_filepath = optimised_to
        self._open(model, options, list(dict.fromkeys((setting.provider, CPU_PROVIDER))))
        if setting.provider not in self._session.get_providers():  # it fell back to the CPU, and says so in its log
            self.close()
            raise RunError(
                f"ONNX Runtime cannot start {setting.provider}, which it has",
                hint="are the device, its driver and its libraries there? --provider CPU needs none of them",
            )

    def finish_profile(self) -> Path:
        """Stop timing operators; the file with the times."""
        return Path(self._session.end_profiling())


def _options(threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # By default as many as the machine has: more than a container may use stand in each other's way.
    options.intra_op_num_threads = threads or (cores() if quota() else 0)
    return options


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[Any]:
    """Options of a run that is stopped between two nodes when its time is over."""
    if not seconds:
        yield None
        return
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = 4
    timer = threading.Timer(seconds, lambda: setattr(options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def _name_sizes(proto: onnx.ModelProto) -> None:
    """Name unknown sizes as ONNX's own inference does, from tensor to tensor.

    The runtime makes up a new name for each, and compares it with all others: 10,000 additions take it 50 seconds.
    """
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        with killable():
            inferred = onnx.shape_inference.infer_shapes(without_weights(proto))
        known = {value.name for value in proto.graph.value_info}
        proto.graph.value_info.extend(
            value
            for value in inferred.graph.value_info
            if value.name not in known and any(d.dim_param for d in value.type.tensor_type.shape.dim)
        )


# Where in the runtime's source an error was raised: a file, a line and a function with its parameters.
_RAISED_AT = re.compile(r"/onnxruntime_src/\S+ [^()]*\((?:[^()]|\([^()]*\))*\)\s*")


def _first_line(error: Exception) -> str:
    """The first line of a message of the runtime, without the place in its source."""
    lines = (_RAISED_AT.sub("", line) for line in str(error).splitlines())
    return next((line for line in lines if line.strip()), type(error).__name__)


def runtime_version() -> str:
    """Look up the version of ONNX Runtime.

    Returns:
        A version, as in "1.20.1".
    """
    import onnxruntime as ort

    return str(ort.__version__)
