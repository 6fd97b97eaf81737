"""Write a synthetic twin of the nine published question sets, in the formats in which they are published.

    python benchmarks/twin/make.py TWIN --rows 300
    pokevla data convert llava TWIN/llava out/llava

Pictures are drawn: coloured shapes, tools with a handle, a gripper, at known places, so that all answers are true and
can be learnt. Rows, pictures and texts are a pure function of the options. `TWIN/twin.json` has, for each SOURCE of
`pokevla data convert`, its folder and what the conversion has to find: rows, records, and reason codes with counts.
Memory does not grow with `--rows`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.twin.conversations import write_llava, write_robopoint
from benchmarks.twin.motions import write_cosmos, write_molmoact
from benchmarks.twin.objects import write_hova, write_roborefit
from benchmarks.twin.plan import Planted, TwinSettings, Writer
from benchmarks.twin.spatial import write_refspatial, write_robospatial


@dataclass(frozen=True)
class TwinSource:
    """How a source is written."""

    folder: str
    write: Callable[[Writer], None]
    size: tuple[int, int]
    """Usual width and height of the pictures of the published set."""


SOURCES = {
    "llava": TwinSource("llava", write_llava, (640, 480)),
    "robopoint": TwinSource("robopoint", write_robopoint, (640, 480)),
    "refspatial": TwinSource("refspatial", write_refspatial, (1024, 768)),
    "refspatial-reasoning": TwinSource("refspatial", write_refspatial, (1024, 768)),
    "roborefit": TwinSource("roborefit", write_roborefit, (640, 480)),
    "robospatial": TwinSource("robospatial", write_robospatial, (640, 480)),
    "hova-ego4d": TwinSource("hova", write_hova, (1408, 1056)),
    "hova-epic100": TwinSource("hova", write_hova, (456, 256)),
    "molmoact": TwinSource("molmoact", write_molmoact, (320, 256)),
    "cosmos": TwinSource("cosmos", write_cosmos, (640, 480)),
}
"""Source of `pokevla data convert` -> its twin. Sizes: COCO, RoboPoint's renders, OpenImages, RoboRefIt's camera,
ScanNet, Ego4D and EPIC-KITCHENS frames in HOVA-500K, RT-1, AgiBot's head camera reduced."""


def write_source(name: str, root: Path, settings: TwinSettings) -> Planted:
    """Write one source below `root`; returns what its conversion has to find."""
    source = SOURCES[name]
    writer = Writer(name, root / source.folder, settings, source.size)
    source.write(writer)
    return writer.planted


def write_twin(
    root: Path, settings: TwinSettings, names: Iterable[str] = tuple(SOURCES), rows: Mapping[str, int] | None = None
) -> dict[str, Planted]:
    """Write sources and `twin.json` below `root`. `rows`: of sources that have another number than the settings say."""
    other = rows or {}
    planted = {name: write_source(name, root, replace(settings, rows=other.get(name, settings.rows))) for name in names}
    content = {
        "settings": vars(settings),
        "sources": {name: {"folder": SOURCES[name].folder, **each.to_json()} for name, each in planted.items()},
    }
    (root / "twin.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return planted


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="new or empty folder")
    parser.add_argument("--rows", type=int, default=300, help="rows of each source")
    parser.add_argument("--sources", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=0, help="distinct pictures of each source; 0: one for each row")
    parser.add_argument("--faults", type=float, default=0.0, help="share of the rows that are damaged")
    parser.add_argument("--side", type=int, default=320, help="longest side of pictures; 0: as in the published sets")
    parser.add_argument("--photos", action="store_true", help="draw on a photograph, for files of usual size")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty")
    options.out.mkdir(parents=True, exist_ok=True)
    settings = TwinSettings(options.rows, options.seed, options.pictures, options.faults, options.side, options.photos)
    for name, planted in write_twin(options.out, settings, options.sources).items():
        folder = options.out / SOURCES[name].folder
        print(f"{name:<21} {planted.rows:>8} rows {planted.records:>8} records  {folder}")


if __name__ == "__main__":
    main()
