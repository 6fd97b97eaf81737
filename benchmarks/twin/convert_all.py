"""Convert a whole twin: one dataset for each source, in one command.

    python benchmarks/twin/make.py TWIN --rows 300
    python benchmarks/twin/convert_all.py TWIN OUT --workers 2

Ends with exit code 1 if a dataset has other records or reason codes than `TWIN/twin.json` says. Prints a digest of the
samples of each dataset (keys, members, table), which does not depend on `--workers` or `--shard-samples`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import xxhash

from pokevla.cli.main import run
from pokevla.data.dataset import CHECKS_NAME, open_dataset
from pokevla.data.reader import ShardReader


def convert_all(twin: Path, out: Path, options: Sequence[str], names: Sequence[str] = ()) -> dict[str, str]:
    """Convert the sources of a twin, or those of `names`, with further `options`; returns the digest of each.

    Raises RuntimeError if a conversion fails, or finds something else than was planted.
    """
    sources = json.loads((twin / "twin.json").read_text(encoding="utf-8"))["sources"]
    digests = {}
    for name in names or sources:
        planted = sources[name]
        words = ["data", "convert", name, str(twin / planted["folder"]), str(out / name), "--max-rejected", "1"]
        code = run([*words, *options])
        if code:
            raise RuntimeError(f"{name}: exit code {code}")
        checks = json.loads((out / name / CHECKS_NAME).read_text(encoding="utf-8"))
        found = {"records": checks["records"], "left_out": checks["codes"]}
        expected = {key: planted[key] for key in found}
        if found != expected:
            raise RuntimeError(f"{name}: {found} instead of {expected}")
        digests[name] = sample_digest(out / name)
    return digests


def sample_digest(root: Path) -> str:
    """xxh3 of all samples of a dataset in order, whatever shards they lie in."""
    dataset = open_dataset(root)
    reader, digest = ShardReader(dataset), xxhash.xxh3_128()
    columns = [name for name in dataset.samples.column_names if name != "shard"]
    for number, row in enumerate(dataset.samples.select(columns).to_pylist()):
        digest.update(json.dumps(row, sort_keys=True).encode())
        for extension, content in sorted(reader.read(number).items()):
            digest.update(f"{extension} {len(content)}\n".encode() + content)
    reader.close()
    return digest.hexdigest()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("twin", type=Path)
    parser.add_argument("out", type=Path, help="folder of the datasets")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--shard-samples", default="1024")
    options = parser.parse_args()
    try:
        chosen = ["--workers", options.workers, "--shard-samples", options.shard_samples]
        for name, digest in convert_all(options.twin, options.out, chosen).items():
            print(f"{name:<21} {digest}")
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
