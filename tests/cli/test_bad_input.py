"""Every bad input: one clear message, the right exit code, the input untouched, nothing half written."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli.conftest import DIGITS, MODELS, Run, run

__all__ = ["run"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "small.onnx"


def refused(run: Run, code: int, message: str, *arguments: object, hint: str = "", **given) -> str:
    """Run, and check what every refusal has in common."""
    ran = run(*arguments, **given)
    assert ran.code == code, ran.err
    assert ran.raw == b""
    assert [line.startswith("error: ") for line in ran.err.splitlines()] in ([True], [True, False])
    assert message in ran.err and hint in ran.err
    assert "Traceback" not in ran.err
    return ran.err


def prune_refused(run: Run, out: Path, code: int, message: str, model: object, *more: object, **given) -> str:
    said = refused(run, code, message, "prune", model, "-o", out, *more, **given)
    assert list(out.parent.iterdir()) == []
    return said


# --- the model --------------------------------------------------------------------------------------------


def test_missing_file(run, out, tmp_path):
    prune_refused(run, out, 2, f"no such file: {tmp_path / 'none.onnx'}", tmp_path / "none.onnx")


def test_directory(run, out, tmp_path):
    """Prune takes folders with graphs; other verbs take none."""
    (tmp_path / "empty").mkdir()
    prune_refused(run, out, 2, "no graph in", tmp_path / "empty")
    refused(run, 2, "is a directory", "inspect", tmp_path)


@pytest.mark.parametrize("verb", ["inspect", "plan"])
def test_missing_file_for_other_verbs(run, verb):
    refused(run, 2, "no such file: none.onnx", verb, "none.onnx")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        Path(DIGITS).read_bytes()[:200_000],
        random.Random(7).randbytes(4096),
        b"not a model\n",
        b"\x00" * 64,
    ],
    ids=["empty", "truncated", "random", "text", "zeros"],
)
def test_damaged_file(run, out, tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    prune_refused(run, out, 3, "bad.onnx", path)
    assert path.read_bytes() == content
    ran = run("prune", "-", "-o", out, stdin=content)
    assert ran.code == 3 and "standard input" in ran.err and list(out.parent.iterdir()) == []


def test_model_that_the_checker_refuses(run, out, tmp_path):
    model = onnx.load(DIGITS)
    model.graph.node[2].input[0] = "nowhere"
    onnx.save(model, tmp_path / "bad.onnx")
    prune_refused(run, out, 3, "bad.onnx", tmp_path / "bad.onnx")


def external(tmp_path: Path, location: str) -> Path:
    """`models/external.onnx` with its data under another name, which is not created."""
    model = onnx.load(MODELS / "external.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path = tmp_path / "moved.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_missing(run, out, tmp_path):
    prune_refused(run, out, 3, "weights.bin", external(tmp_path, "weights.bin"))


def test_external_data_too_short(run, out, tmp_path):
    (tmp_path / "weights.bin").write_bytes((MODELS / "external.data").read_bytes()[:1000])
    prune_refused(run, out, 3, "weights.bin", external(tmp_path, "weights.bin"))


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin"])
def test_external_data_outside_of_the_folder(run, out, tmp_path, location):
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights.bin").write_bytes((MODELS / "external.data").read_bytes())
    prune_refused(run, out, 3, location, external(tmp_path / "inner", location))


def test_external_data_link_out_of_the_folder(run, out, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "link.bin").symlink_to(MODELS / "external.data")
    prune_refused(run, out, 3, "link.bin", external(tmp_path / "inner", "link.bin"))


# --- the output -------------------------------------------------------------------------------------------


def test_no_output_named(run):
    refused(run, 2, "no output", "prune", DIGITS)


def test_output_folder_missing(run, tmp_path):
    refused(run, 2, "no such folder", "prune", DIGITS, "-o", tmp_path / "none" / "small.onnx")
    assert list(tmp_path.iterdir()) == []


def test_output_folder_not_writable(run, out, monkeypatch):
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: not mode & os.W_OK and allowed(p, mode))
    prune_refused(run, out, 2, "is not writable", DIGITS)


def test_output_name_too_long(run, tmp_path):
    refused(run, 2, "cannot write", "prune", DIGITS, "-o", tmp_path / ("x" * 300))


def test_output_is_a_directory(run, out):
    refused(run, 2, "is a directory", "prune", DIGITS, "-o", out.parent)


@pytest.mark.parametrize("verb", ["prune", "plan"])
def test_output_exists(run, out, verb):
    out.write_bytes(b"precious")
    refused(run, 2, f"{out} exists", verb, DIGITS, "-o", out, hint="--force")
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize("link", [False, True])
def test_output_is_the_input(run, tmp_path, link):
    model = tmp_path / "model.onnx"
    model.write_bytes(Path(DIGITS).read_bytes())
    target = tmp_path / "other.onnx" if link else model
    if link:
        target.hardlink_to(model)
    for verb in ("prune", "plan"):
        refused(run, 2, "is the input", verb, model, "-o", target, "--force")
    assert model.read_bytes() == Path(DIGITS).read_bytes()


def test_output_data_file_is_the_input(run, tmp_path):
    path = external(tmp_path, "small.onnx.data")
    data = (MODELS / "external.data").read_bytes()
    (tmp_path / "small.onnx.data").write_bytes(data)
    refused(run, 2, "is the input", "prune", path, "-o", tmp_path / "small.onnx", "--force")
    assert (tmp_path / "small.onnx.data").read_bytes() == data and not (tmp_path / "small.onnx").exists()


def test_plan_and_model_in_one_file(run, out):
    prune_refused(run, out, 2, "cannot both be written", DIGITS, "--plan-out", out)
    prune_refused(run, out, 2, "--plan-out needs a file", DIGITS, "--plan-out", "-")


def test_model_and_json_on_stdout(run):
    refused(run, 2, "cannot both go to standard output", "prune", DIGITS, "-o", "-", "--json")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_full_device(run):
    refused(run, 4, "disk full while writing /dev/full", "prune", DIGITS, "-o", "/dev/full")


def command(*arguments: object, **given) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "onnxprune", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True, **given,
    )  # fmt: skip


def test_disk_full_while_writing(out):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    process = command("prune", DIGITS, "-o", out, "--no-verify", preexec_fn=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4 and err.startswith(f"error: disk full while writing {out}")
    assert "Traceback" not in err and list(out.parent.iterdir()) == []


def test_interrupt_while_writing(run, out, monkeypatch):
    from onnxprune.model import files

    def interrupted(_, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_write_inline", interrupted)
    prune_refused(run, out, 130, "interrupted", DIGITS)


def test_an_interrupt_that_became_another_error(run, out, monkeypatch):
    """As native code that is interrupted may make one of it."""
    from onnxprune.model import files

    def interrupted(_, file):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise SystemError("returned a result with an exception set") from error

    monkeypatch.setattr(files, "_write_inline", interrupted)
    prune_refused(run, out, 130, "interrupted", DIGITS)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_writing(out, number, code):
    os.mkfifo(out)  # opening it waits for a reader that never comes
    process = command("prune", DIGITS, "-o", out, "--no-verify", "-v")
    for line in process.stderr:
        if line.startswith("writing"):
            break
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (code, False), err


# --- the options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", ["1", "1.5", "-0.1", "100%", "nan", "inf"])
def test_ratio_out_of_range(run, out, ratio):
    prune_refused(run, out, 2, "at least 0 and below 1", DIGITS, f"--ratio={ratio}")
    prune_refused(run, out, 2, "at least 0 and below 1", DIGITS, f"--ratio-for=conv*={ratio}")


def test_ratio_that_is_no_number(run, out):
    prune_refused(run, out, 2, "'half' is not a ratio: write 0.5 or 50%", DIGITS, "--ratio", "half")
    prune_refused(run, out, 2, "'conv' is not of the form GLOB=RATIO", DIGITS, "--ratio-for", "conv")


@pytest.mark.parametrize("option", ["--keep", "--only", "--ratio-for"])
def test_glob_that_matches_nothing(run, out, option):
    value = "nothing*=0.5" if option == "--ratio-for" else "nothing*"
    prune_refused(run, out, 2, "'nothing*' matches no group", DIGITS, option, value, hint="conv.weight")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--criterion", "best"], "no criterion is called 'best'"),
        (["--allocation", "local"], "'local' is not one of"),
        (["--round-to", "0"], "'--round-to'"),
        (["--sizes", "batch"], "'batch' is not of the form NAME=N"),
        (["--sizes", "batch=0"], "'--sizes'"),
        (["--sizes", "bach=2"], "no symbolic axis"),
        (["--ratoi", "0.5"], "--ratoi"),
        (["--seed", "x"], "'x' is not a valid integer"),
    ],
)
def test_bad_option(run, out, options, message):
    prune_refused(run, out, 2, message, DIGITS, *options)


def test_missing_argument(run):
    refused(run, 2, "missing argument 'MODEL'", "prune", hint="see 'onnxprune prune --help'")


# --- nothing to do, nothing proven ------------------------------------------------------------------------


def test_nothing_to_prune(run, out):
    prune_refused(run, out, 1, "nothing can be pruned", DIGITS, "--keep", "*")
    prune_refused(run, out, 1, "nothing to prune", DIGITS, "--ratio", "0.001")


def test_model_without_removable_groups(run, out, tmp_path):
    weight = numpy_helper.from_array(onnx.numpy_helper.to_array(onnx.load(DIGITS).graph.initializer[1]), "w")
    size = weight.dims[0]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "fixed.onnx")
    prune_refused(run, out, 1, "nothing can be pruned", tmp_path / "fixed.onnx")


def test_failed_proof_writes_nothing(run, out, monkeypatch):
    from dataclasses import replace

    from onnxprune.pipelines import prune as pipeline

    real = pipeline.run

    def unproven(*args, **given):
        done = real(*args, **given)
        return replace(done, verdict=replace(done.verdict, ok=False, problem="output 'logits' differs"))

    monkeypatch.setattr(pipeline, "run", unproven)
    prune_refused(run, out, 1, "not proven: output 'logits' differs", DIGITS, hint="--no-verify")


def test_model_that_the_runtime_cannot_run(run, out):
    model = MODELS / "custom_op.onnx"
    prune_refused(run, out, 1, "does not run either", model)
    assert run("prune", model, "-o", out, "--no-verify").code == 0


# --- plans ------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(run, tmp_path) -> dict:
    return run("plan", DIGITS).json


def apply_refused(run: Run, out: Path, code: int, message: str, model: object, plan: object) -> None:
    content = plan if isinstance(plan, bytes) else json.dumps(plan).encode()
    refused(run, code, message, "apply", model, "-", "-o", out, stdin=content)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"format": "onnxprune-plan"}'])
def test_plan_that_is_none(run, out, content):
    apply_refused(run, out, 2, "plan", DIGITS, content)


def test_plan_that_does_not_fit(run, out, plan):
    apply_refused(run, out, 2, "the plan does not fit: ", MODELS / "bert.onnx", plan)
    wide = [plan["groups"][0] | {"remove": [999]}]
    apply_refused(run, out, 2, "parts 0 to 31", DIGITS, plan | {"groups": wide})
    everything = [plan["groups"][0] | {"remove": list(range(32))}]
    apply_refused(run, out, 2, "would lose all", DIGITS, plan | {"groups": everything})


def test_plan_that_removes_nothing(run, out, plan):
    apply_refused(run, out, 1, "the plan removes nothing", DIGITS, plan | {"groups": []})


def test_plan_file_is_missing(run, out, tmp_path):
    refused(run, 2, "no such file: none.json", "apply", DIGITS, "none.json", "-o", out)
    refused(run, 2, "is a directory", "verify", DIGITS, DIGITS, "--plan", tmp_path)


def test_two_inputs_from_one_pipe(run, out):
    refused(run, 2, "only one of the inputs", "apply", "-", "-", "-o", out)
    refused(run, 2, "only one of the inputs", "diff", "-", "-")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_terminals_are_no_pipes():
    master, terminal = os.openpty()
    for arguments, message in (
        (("inspect", "-"), "standard input is a terminal"),
        (("prune", DIGITS, "-o", "-"), "not writing a model to the terminal"),
    ):
        process = subprocess.run(
            [sys.executable, "-m", "onnxprune", *arguments],
            stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, cwd=ROOT, text=True, check=False,
        )  # fmt: skip
        assert process.returncode == 2 and message in process.stderr
    os.close(terminal)
    os.close(master)


# --- bugs -------------------------------------------------------------------------------------------------


def test_a_bug_is_one_line_and_a_traceback_only_on_demand(run, out, monkeypatch):
    from onnxprune.pipelines import prune as pipeline

    def broken(*args, **given):
        raise ZeroDivisionError("by\nnought")

    monkeypatch.setattr(pipeline, "run", broken)
    prune_refused(run, out, 70, "internal error: ZeroDivisionError: by nought", DIGITS, hint="-vv")
    assert "Traceback" in run("prune", DIGITS, "-o", out, "-vv").err


def test_out_of_memory(run, out, monkeypatch):
    from onnxprune.pipelines import prune as pipeline

    def greedy(*args, **given):
        raise MemoryError

    monkeypatch.setattr(pipeline, "run", greedy)
    prune_refused(run, out, 4, "out of memory", DIGITS)


# --- what is easily mistaken ------------------------------------------------------------------------------


def test_a_cache_is_not_appended_to_the_model(run, out, tmp_path):
    model, content = tmp_path / "model.onnx", Path(DIGITS).read_bytes()
    model.write_bytes(content)
    data = ("--data", MODELS / "digits_calibration.npz", "--samples", 8)
    more = ("--min-sqnr", 1, "--max-trials", 1, "--recover", "none", "--criterion", "l2", "--no-verify")
    prune_refused(run, out, 2, "is no file of kept results", model, *data, *more, "--cache", model)
    refused(run, 2, "is no file of kept results", "sensitivity", model, *data, "--cache", model)
    assert model.read_bytes() == content


def test_a_plan_of_another_model_says_what_to_do(run, out, tmp_path):
    plan = tmp_path / "plan.json"
    assert run("plan", MODELS / "mlp.onnx", "-o", plan).code == 0
    refused(run, 2, "does not fit", "apply", DIGITS, plan, "-o", out, hint="hint: it was made for another model")
    refused(run, 2, "is not JSON", "apply", DIGITS, DIGITS, "-o", out, hint="hint: `onnxprune plan` writes one")
    assert list(out.parent.iterdir()) == []


def test_a_scheduler_file_that_is_not_there_is_not_waited_for(run, tmp_path):
    data = ("--data", MODELS / "digits_calibration.npz")
    refused(run, 2, "no such file: nowhere.json", "sensitivity", DIGITS, *data, "--dask", "nowhere.json")
