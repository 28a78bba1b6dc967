"""Whether two states of the code emit the same bytes: every shared graph and model pruned, and its file hashed.

    python -m tests.measure.identity hash BEFORE.jsonl                    # in a checkout of the one state
    python -m tests.measure.identity hash AFTER.jsonl                     # in a checkout of the other
    python -m tests.measure.identity compare BEFORE.jsonl AFTER.jsonl     # exit code 1 where they differ

`hash` goes on where an interrupted run of the same file stopped. It takes globs (`--graphs 'ts/*' 'models/*'`), and
`--options` for `onnxprune prune` in place of a ratio of 0.5 without a proof. It needs the folder of shared graphs (see
tests/graphs/shared.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.graphs import shared

OPTIONS = "--ratio 0.5 --no-verify"
SECONDS = 600


def digest(folder: Path) -> str:
    """The hash of all files of a model, with their names."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        total.update(path.name.encode())
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def emitted(entry: shared.Entry, options: str) -> dict[str, object]:
    """What `onnxprune prune` writes for one graph: its exit code, the hash, and the first line of a refusal."""
    with shared.materialised(entry) as source, TemporaryDirectory(prefix="onnxprune-identity-") as scratch:
        command = [sys.executable, "-m", "onnxprune", "prune", str(source), "-q", "-o", f"{scratch}/small.onnx"]
        try:
            run = subprocess.run([*command, *options.split()], capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return {"name": entry.name, "code": None, "digest": "", "refusal": f"longer than {SECONDS} s"}
        refusal = run.stderr.replace(str(source), entry.name).replace(scratch, "").partition("\n")[0]
        return {"name": entry.name, "code": run.returncode, "digest": digest(Path(scratch)), "refusal": refusal}


def hash_all(options: argparse.Namespace) -> int:
    """Append a line for each graph that the file does not hold."""
    done = read(options.file) if options.file.exists() else {}
    with options.file.open("a", encoding="utf-8") as stream:
        for entry in shared.entries(*options.graphs):
            if entry.name not in done:
                print(json.dumps(emitted(entry, options.options)), file=stream, flush=True)
    return 0


def read(path: Path) -> dict[str, dict[str, object]]:
    """The lines of a file by graph."""
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {line["name"]: line for line in lines}


def compare(options: argparse.Namespace) -> int:
    """Print the graphs that differ, and how many do not."""
    before, after = read(options.before), read(options.after)
    both = sorted(before.keys() & after.keys())
    different = [name for name in both if before[name] != after[name]]
    for name in different:
        old, new = before[name], after[name]
        print(f"{name}: exit {old['code']} -> {new['code']} {old['refusal']} -> {new['refusal']}")
    written = sum(before[name]["code"] == 0 for name in both)
    print(f"{len(both)} graphs in both files, {written} written; {len(both) - len(different)} the same to the byte")
    print(f"{len(before.keys() ^ after.keys())} in one file only")
    return int(bool(different))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    hashing = verbs.add_parser("hash")
    hashing.add_argument("file", type=Path)
    hashing.add_argument("--graphs", nargs="*", default=())
    hashing.add_argument("--options", default=OPTIONS)
    hashing.set_defaults(do=hash_all)
    comparing = verbs.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.set_defaults(do=compare)
    options = parser.parse_args()
    return options.do(options)


if __name__ == "__main__":
    sys.exit(main())
