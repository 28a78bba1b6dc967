"""The pages: their code runs, their links lead somewhere, their examples are what the commands print."""

from __future__ import annotations

import base64
import inspect
import io
import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api, criteria, errors
from onnxprune.autodiff.registry import find_vjp
from onnxprune.calibration.preprocess import Preprocess, preprocess_of
from onnxprune.cli import main
from onnxprune.model import load
from onnxprune.proof import Verdict
from onnxprune.proof.prove import TOLERANCES
from onnxprune.runtime import Session
from onnxprune.tracing.rules import registry
from tests.cli.test_cli_docs import refreshed, stable

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "models" / "README.md"]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return [text for kind, text in CODE.findall(path.read_text(encoding="utf-8")) if kind == language]


def prose(path: Path) -> str:
    return CODE.sub("", path.read_text(encoding="utf-8"))


# --- code -------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with a "model.onnx", in which what is registered is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_RULES", {key: list(rules) for key, rules in registry._RULES.items()})
    monkeypatch.setattr(criteria, "KNOWN", dict(criteria.KNOWN))
    shutil.copy(ROOT / "models" / "digits.onnx", "model.onnx")
    return tmp_path


@pytest.mark.parametrize(
    "path", [README, *(ROOT / "docs" / f"{page}.md" for page in ("library", "gradients", "training"))], ids=page_id
)
def test_python_blocks_run(path, workplace, capsys):
    """In order, in one namespace, as a reader would."""
    code = blocks(path, "python")
    assert code
    (workplace / "models").symlink_to(ROOT / "models")
    before = (workplace / "model.onnx").read_bytes()
    known: dict[str, object] = {"__name__": "__main__"}
    for block in code:
        exec(compile(block, f"<{path.name}>", "exec"), known)
    assert (workplace / "model.onnx").read_bytes() == before
    if path == README:
        result = known["result"]
        assert isinstance(result, onnxprune.PruneResult) and isinstance(result.model, onnx.ModelProto)
        assert result.report.verdict is not None and result.report.verdict.error < 1e-5
        assert not any(step.remove for step in result.plan.steps if step.group.startswith("fc"))
        assert len(capsys.readouterr().out.splitlines()) == len(result.plan.steps)
    elif path.stem == "training":
        assert isinstance(known["result"], onnxprune.TrainResult)
    elif path.stem == "gradients":
        assert find_vjp("com.microsoft", "CDist") is not None
    else:
        assert "l4" in criteria.names()
        assert registry.find("com.example", "Gate", 1) is not None


def test_console_blocks_of_the_readme_are_what_the_commands_print(tmp_path):
    text = README.read_text(encoding="utf-8")
    assert blocks(README, "console")
    assert stable(refreshed(text, tmp_path)) == stable(text)


def test_commands_of_the_plan_page_work(workplace, capsys):
    (workplace / "models").symlink_to(ROOT / "models")
    (block,) = blocks(ROOT / "docs" / "plan.md", "console")
    for line in block.splitlines():
        assert main(line.removeprefix("$ onnxprune ").split()) == 0, capsys.readouterr().err
    assert (workplace / "small.onnx").stat().st_size < (workplace / "model.onnx").stat().st_size


@pytest.mark.long  # five trainings
def test_commands_of_the_training_page_work(workplace, capsys):
    """They end, and give the figures that the page tells, to some points."""
    (workplace / "models").symlink_to(ROOT / "models")
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    lines = [line for block in blocks(ROOT / "docs" / "training.md", "console") for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        assert main(line.removeprefix("$ onnxprune ").split()) == 0, capsys.readouterr().err
    said = re.search(r"repaired on (\S+) %, trained on (\S+) %.*three of them are right on (\S+) %", page, re.DOTALL)
    assert said
    for name, told in (("small", said[1]), ("trained", said[2]), ("both", said[2]), ("rounds", said[3])):
        assert accuracy(f"{name}.onnx") * 100 == pytest.approx(float(told), abs=2), name


def test_commands_of_the_sparsity_page_work(workplace, capsys):
    (workplace / "models").symlink_to(ROOT / "models")
    text = (ROOT / "docs" / "sparsity.md").read_text(encoding="utf-8")
    for line in "".join(blocks(ROOT / "docs" / "sparsity.md", "console")).splitlines():
        assert main([*line.removeprefix("$ onnxprune ").split(), *(["--no-time"] * ("sparsify" in line))]) == 0
    assert Path("pairs.onnx").stat().st_size == Path("again.onnx").stat().st_size
    told = re.search(r"shrinks by (\d+) %", text)
    assert told is not None
    shrunk = 1 - Path("tenth.onnx").stat().st_size / (ROOT / "models" / "digits.onnx").stat().st_size
    assert 100 * shrunk == pytest.approx(float(told[1]), abs=1)


@pytest.mark.long  # trains; tests/cli/test_run.py does it with less
def test_the_steps_of_the_recipe_page_work(workplace, capsys):
    (workplace / "models").symlink_to(ROOT / "models")
    page = ROOT / "docs" / "recipe.md"
    (steps,) = [block for block in blocks(page, "toml") if "[[step]]" in block]
    (command,) = [line for block in blocks(page, "console") for line in block.splitlines() if " run " in line]
    Path("steps.toml").write_text(steps, encoding="utf-8")
    assert main([*command.removeprefix("$ onnxprune ").split(), "--json"]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    assert [step["verb"] for step in told["steps"]] == ["original", "prune", "train", "sparsify"]
    assert not told["damage"]["ruined"] and not Path("pairs.onnx.steps").exists()


def test_the_drop_page_works(workplace, capsys):
    (workplace / "models").symlink_to(ROOT / "models")
    page = ROOT / "docs" / "drop.md"
    for line in "".join(blocks(page, "console")).splitlines():
        assert main(line.removeprefix("$ onnxprune ").split()) == 0, capsys.readouterr().err
    assert Path("shallow.onnx").read_bytes() == Path("again.onnx").read_bytes()
    known: dict[str, object] = {"__name__": "__main__"}
    exec(compile("".join(blocks(page, "python")), "<drop.md>", "exec"), known)
    report = known["result"].report  # type: ignore[attr-defined]
    assert [stand.form for stand in report.stand_ins] == ["map"] and report.bare.top1 == pytest.approx(0.72, abs=0.02)
    assert report.judged.error < 0.1 * report.bare.error and report.judged.top1 > 0.95
    assert 1 - report.after.params / report.before.params == pytest.approx(0.59, abs=0.01)


@pytest.mark.long  # numbers chosen for two models, and trained
def test_the_quantisation_page_works(workplace, capsys):
    """Its commands run as typed, and what it says of the digits is so."""
    (workplace / "models").symlink_to(ROOT / "models")
    page = ROOT / "docs" / "quantisation.md"
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    for line in lines:
        if line.startswith("$ onnxprune "):
            words = [*line.removeprefix("$ onnxprune ").split(), "--json"]
            words += ["--no-time"] if " quantize " in line else []
            assert main(words) == 0, capsys.readouterr().err
            told = json.loads(capsys.readouterr().out)
            assert not (told.get("damage") or {}).get("ruined"), line
    sizes = [Path(name).stat().st_size for name in ("both.onnx", "int8.onnx", "models/digits.onnx")]
    assert sizes[0] < sizes[1] < 0.3 * sizes[2]
    known: dict[str, object] = {"__name__": "__main__"}
    exec(compile("".join(blocks(page, "python")), "<quantisation.md>", "exec"), known)
    report = known["result"].report  # type: ignore[attr-defined]
    assert report.judged.sqnr >= 30 and report.judged.error <= report.nearest.error and not report.floats


@pytest.mark.long  # its searches take the time that they are given
def test_the_auto_page_works(workplace, capsys):
    """Every command gives what the page says; the Python block runs."""
    (workplace / "models").symlink_to(ROOT / "models")
    page = ROOT / "docs" / "auto.md"
    (block,) = blocks(page, "console")
    for line in block.splitlines():
        assert main(line.removeprefix("$ onnxprune ").split()) == 0, capsys.readouterr().err
    whole = (workplace / "model.onnx").stat().st_size
    assert Path("small.onnx").stat().st_size <= 0.4 * whole and Path("blind.onnx").stat().st_size <= 0.5 * whole
    assert list(Path("front").glob("*.onnx")) and accuracy("good.onnx") > 0.9
    (code,) = blocks(page, "python")
    exec(compile(code, "<auto.md>", "exec"), {"__name__": "__main__"})


@pytest.mark.long  # times four models
def test_the_energy_section_works(workplace, capsys, monkeypatch):
    """It prints the estimates that the page tells, on a machine without counters."""
    monkeypatch.setattr("onnxprune.runtime.energy.POWERCAP", workplace / "none")
    (workplace / "models").symlink_to(ROOT / "models")
    text = (ROOT / "docs" / "latency.md").read_text(encoding="utf-8").partition("### Energy\n")[2].partition("\n## ")[0]
    found = dict[str, list[str]]()
    for kind, block in CODE.findall(text):
        found.setdefault(kind, []).append(block)
    (commands,), (table,), (code,) = found["console"], found["text"], found["python"]
    for line in commands.splitlines():
        assert main(line.removeprefix("$ onnxprune ").split()) == 0, capsys.readouterr().err
    told = re.findall(r"(?m)^(\w+\.onnx) +(\d+) .*?([\d.]+ [mu]?J)", capsys.readouterr().out)
    assert told == re.findall(r"(?m)^(\w+\.onnx) +(\d+) +([\d.]+ [mu]?J)", table) and len(told) == 4
    known: dict[str, object] = {}
    exec(compile(code, "<latency.md>", "exec"), known)
    assert known["saved"] == pytest.approx(1 - 35.09 / 113.5, abs=1e-3)


def test_the_shrink_page_works(workplace, capsys):
    (workplace / "models").symlink_to(ROOT / "models")
    page = ROOT / "docs" / "shrink.md"
    known: dict[str, object] = {"__name__": "__main__"}
    first, last = blocks(page, "python")
    exec(compile(first, "<shrink.md>", "exec"), known)
    for line in "".join(blocks(page, "console")).splitlines():
        assert main(line.removeprefix("$ onnxprune ").split()) == 0, capsys.readouterr().err
    exec(compile(last, "<shrink.md>", "exec"), known)
    shrunk = known["result"].report  # type: ignore[attr-defined]
    removed = [(part.group, part.cause, part.units) for part in shrunk.removed]
    assert sum(units for group, _, units in removed if group == "fc.weight") == 6
    assert 0 < sum(units for group, _, units in removed if group == "conv.weight") < 8
    assert "sees zeros at the border" in str(shrunk.stays["conv.weight"])


def test_the_rotation_page_works(workplace, capsys):
    (workplace / "models").symlink_to(ROOT / "models")
    page = ROOT / "docs" / "rotation.md"
    exec(compile("".join(blocks(page, "python")), "<rotation.md>", "exec"), {"__name__": "__main__"})
    said = []
    for line in "".join(blocks(page, "console")).splitlines():
        assert main(line.removeprefix("$ onnxprune ").split()) == 0, capsys.readouterr().err
        said.append(capsys.readouterr().out)
    told = re.search(r"`(rotated  1 group[^`]*)`", page.read_text(encoding="utf-8"))
    assert told is not None and all(told[1] in text for text in said[:2])


def test_the_compress_page_works(workplace, capsys):
    (workplace / "models").symlink_to(ROOT / "models")
    page = ROOT / "docs" / "compress.md"
    for line in "".join(blocks(page, "console")).splitlines():
        words = [*line.removeprefix("$ onnxprune ").split(), *(["--no-time"] * ("compress" in line))]
        assert main(words) == 0, capsys.readouterr().err
    whole = (ROOT / "models" / "digits.onnx").stat().st_size
    assert all(Path(f"{n}.onnx").stat().st_size < 0.9 * whole for n in ("products", "again", "narrow", "budget"))
    sizes = [Path(name).stat().st_size for name in (ROOT / "models" / "bert.onnx", "tidy.onnx")]
    assert 0.75 < sizes[1] / sizes[0] < 0.8
    assert len(onnx.load("tidy.onnx").graph.node) == 126
    known: dict[str, object] = {"__name__": "__main__"}
    exec(compile(blocks(page, "python")[0], "<compress.md>", "exec"), known)
    assert len(known["result"].exact.folds) == 7  # type: ignore[attr-defined]


def test_commands_of_the_calibration_page_work(workplace, capsys):
    image = pytest.importorskip("PIL.Image")
    tokenizers = pytest.importorskip("tokenizers")
    page = ROOT / "docs" / "calibration.md"
    (workplace / "models").symlink_to(ROOT / "models")
    (workplace / "photos").mkdir()
    with np.load(ROOT / "models" / "digits_calibration.npz") as data:
        digits = data["image"][:20]
    for i, digit in enumerate(digits):
        image.fromarray((digit[0] * 255).astype(np.uint8)).resize((30, 20)).save(workplace / "photos" / f"{i}.png")
    array = io.BytesIO()
    np.save(array, digits)
    encoded = {"array": base64.b64encode(array.getvalue()).decode(), "polygraphy_class": "ndarray"}
    (workplace / "inputs.json").write_text(json.dumps([{"image": encoded}]))
    (toml,), (own, objects) = blocks(page, "toml"), blocks(page, "python")
    assert preprocess_of(tomllib.loads(toml), workplace, "raw") == Preprocess(size=224, resize=256, layout="NCHW")
    # The model at hand wants grey images of 8 x 8 pixels.
    (workplace / "preprocess.toml").write_text(re.sub(r"\[[^]]*,.*\]", "1", toml.replace("[224, 224]", "8")))
    (workplace / "my_inputs.py").write_text(own)
    (workplace / "reviews.txt").write_text("good\nvery bad\n" * 10)
    words = {"[UNK]": 0, "[PAD]": 1, "very": 2, "good": 3, "bad": 4}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]")).save("tokenizer.json")
    for line in "".join(blocks(page, "console")).splitlines():
        assert main(line.removeprefix("$ onnxprune ").split()) == 0, capsys.readouterr().err
    exec(compile(objects, "<calibration.md>", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_no_command_of_a_page_finds_its_output_taken(path):
    """Typed in order in an empty folder, none stumbles over the file of another; unless the page shows just that."""
    taken: set[str] = set()
    for block in blocks(path, "console"):
        for command, answer in re.findall(r"^\$ (onnxprune .*)\n?((?:(?!\$ ).*\n?)*)", block, re.MULTILINE):
            (*_, output) = (None, *re.findall(r" -o (\S+)", command))
            if output is None or output == "-":
                continue
            assert output not in taken or "--force" in command or f"{output} exists" in answer, command
            taken.add(output)


# --- links and names --------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.*)$", prose(path))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_lead_somewhere(path):
    dead = []
    for target in LINK.findall(prose(path)):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        to = (path.parent / name).resolve() if name else path
        if not to.exists() or (anchor and anchor not in anchors(to)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_files_that_are_named_exist(path):
    named = re.findall(r"`((?:onnxprune|models|docs|tests|rules)/[\w./]+\.\w+)", prose(path))
    missing = [n for n in named if not (ROOT / n).exists() and not (ROOT / "onnxprune" / n).exists()]
    assert missing == []


def test_every_page_is_reached_from_the_readme():
    linked = {(README.parent / t.partition("#")[0]).resolve() for t in LINK.findall(prose(README))}
    assert [page_id(p) for p in PAGES if p != README and p not in linked] == []


def test_commands_of_the_readme_are_all_there_are():
    rows = re.findall(r"(?m)^\| `onnxprune (\w+)", prose(README))
    assert sorted({*rows}) == sorted(p.stem for p in (ROOT / "onnxprune" / "cli").glob("*.py") if _is_command(p))


def _is_command(path: Path) -> bool:
    return "@click.command" in path.read_text(encoding="utf-8")


def test_every_example_model_is_in_the_table():
    rows = set(re.findall(r"(?m)^\| `(\w+\.\w+)` \|", prose(ROOT / "models" / "README.md")))
    files = {p.name for p in (ROOT / "models").iterdir() if p.suffix in (".onnx", ".npz")}
    assert rows == files


# --- what the pages say -----------------------------------------------------------------------------------


def test_signatures_of_the_library_page():
    rows = dict(re.findall(r"(?m)^\| `(\w+)\((.*?)\)` \|", prose(ROOT / "docs" / "library.md")))
    names = {"prune", "shrink", "compress", "drop", "sparsify", "trace", "make_plan", "apply", "train", "verify"}
    names |= {"sensitivity", "quantize", "auto", "prune_folder", "drop_folder", "plan_folder", "apply_folder"}
    assert set(rows) == names
    for name, shown in rows.items():
        given = [p.partition("=")[0].strip() for p in shown.split(",")]
        actual = inspect.signature(getattr(onnxprune, name)).parameters.values()
        required = [p for p in actual if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
        assert len(given) >= len(required)
        for part in (p.strip() for p in shown.split(",") if "=" in p):
            key, _, value = part.partition("=")
            default = next(p.default for p in actual if p.name == key)
            assert repr(default).replace("'", '"') == value, f"{name}: {part}"


def test_names_of_the_library_page():
    text = prose(ROOT / "docs" / "library.md")
    assert {"ok", "error", "tolerance", "problem"} <= set(Verdict.__dataclass_fields__)
    for name in ("UsageError", "ModelError", "RunError", "GoalMissed", "OnnxPruneError"):
        assert name in text and issubclass(getattr(errors, name), errors.OnnxPruneError)


def test_fields_of_the_plan_page_are_those_of_a_plan():
    rows = re.findall(r"(?m)^\| (.*?) \|", prose(ROOT / "docs" / "plan.md"))[1:]
    told: dict[str, set[str]] = {"": set(), "groups": set(), "barriers": set()}
    for row in rows:
        place = ""
        for name in re.findall(r"`([\w\[\].]+)`", row):
            if "[]" in name:
                place, _, name = name.partition("[]")
            told[place].update({name.strip(".")} - {""})
    told["barriers"] = set(
        re.findall(r"`(\w+)`", re.search(r"`barriers\[\]` \|(.*)", prose(ROOT / "docs" / "plan.md"))[1])
    )
    raw = json.loads(onnxprune.make_plan(ROOT / "models" / "digits.onnx").to_json())
    assert told[""] | {"groups", "barriers"} == set(raw)
    assert told["groups"] == set(raw["groups"][0])
    assert told["barriers"] == set(raw["barriers"][0])
    assert set(raw["groups"][0]["members"][0]) == {"tensor", "axis", "size", "removed"}


def test_the_message_that_the_plan_page_quotes():
    raw = json.loads(onnxprune.make_plan(ROOT / "models" / "digits.onnx").to_json())
    raw["groups"][3]["remove"] = "all"
    with pytest.raises(errors.UsageError) as error:
        onnxprune.Plan.from_json(json.dumps(raw))
    quoted = re.search(r"\(`(must be .*?)`\)", (ROOT / "docs" / "plan.md").read_text(encoding="utf-8"))
    assert quoted and error.value.message == f"bad plan: {quoted[1]}"


def test_tolerances_that_are_told():
    text = " ".join((ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8").split())
    told = re.search(r"at most (\S+) for float32 \(float16 (\S+), bfloat16 (\S+), double (\S+);", text)
    assert told and [float(t) for t in told.groups()] == list(TOLERANCES.values())


def accuracy(model: object) -> float:
    with np.load(ROOT / "models" / "digits_test.npz") as data, Session(load(model)) as session:
        (logits,) = session.run({"image": data["image"]})
        return float(np.mean(np.argmax(logits, -1) == data["label"]))


def test_accuracies_that_the_readme_tells():
    told = re.search(
        r"\((\d+\.\d) %\), half of its units.*?(\d+\.\d) % as it was\s+cut, (\d+\.\d) % repaired", prose(README), re.S
    )
    assert told
    before, cut, repaired = map(float, told.groups())
    path = ROOT / "models" / "digits.onnx"
    data = ROOT / "models" / "digits_calibration.npz"
    assert accuracy(path) * 100 == pytest.approx(before, abs=0.05)
    assert accuracy(api.prune(path, 0.5, verify=False).model) * 100 == pytest.approx(cut, abs=0.6)
    assert accuracy(api.prune(path, 0.5, verify=False, data=data).model) * 100 == pytest.approx(repaired, abs=0.6)


def test_public_names_are_listed() -> None:
    assert set(onnxprune.__all__) <= set(dir(onnxprune)) and "importlib" not in dir(onnxprune)
