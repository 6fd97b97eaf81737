import html
import json
import re
import shutil
from pathlib import Path

import pytest

from monitoring.curves import Line, draw_lines
from monitoring.report.page import write_report
from pokevla.errors import UsageError


@pytest.fixture(scope="session")
def page(finished_pipeline: Path) -> str:
    return write_report([finished_pipeline], finished_pipeline / "report.html").read_text()


def test_it_refers_to_nothing_outside_itself(page: str) -> None:
    assert "http" not in re.sub(r'data:[^"]*', "", page)
    addresses = re.findall(r'(?:src|href)="([^"]*)', page)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "url(" not in page


def test_it_embeds_pictures_video_and_curves(page: str) -> None:
    kinds = {kind: page.count(f"data:{kind};base64") for kind in ("image/png", "video/mp4")}
    assert kinds["image/png"] == 2  # sheet of a trial, points after (none before)
    assert kinds["video/mp4"] == 1
    assert page.count("<svg ") >= 10


def test_captions_say_what_came_out_and_what_was_asked_for(page: str) -> None:
    captions = [html.unescape(text) for text in re.findall(r"<figcaption><b>(.*?)</figcaption>", page)]
    assert len(captions) == 2  # a video and a sheet of masks
    for caption in captions:
        assert "solved after 120 steps, mask IoU 0.61" in caption
        assert "“pick up the <bbq> sauce”" in caption
    assert "2.5 a second: the videos play at the speed of the real robot" in page


def test_a_chart_has_the_value_of_every_point_under_the_pointer(page: str) -> None:
    charts = [json.loads(html.unescape(text)) for text in re.findall(r"data-points='([^']*)'", page)]
    points = charts[0]
    assert [point["step"] for point in points] == list(range(10, 101, 10))
    assert points[0]["values"][0]["text"] == "1.4"
    assert 'addEventListener("pointermove"' in page


def test_it_follows_the_readers_dark_mode_and_fits_a_phone(page: str) -> None:
    assert "@media (prefers-color-scheme: dark)" in page
    colours = set(re.findall(r"#[0-9a-f]{6}", page.split("</style>")[1]))
    assert colours == set(), "only the style sheet names colours, so that all of them change"
    cells = [
        cell for row in re.findall(r"<tr>\s*<td.*?</tr>", page, re.DOTALL) for cell in re.findall(r"<td[^>]*>", row)
    ]
    assert all("data-label" in cell or "head" in cell or "wide" in cell or "below" in cell for cell in cells)


def test_the_machine_that_trained_is_named_not_the_one_that_writes(pipeline: Path) -> None:
    start = {"hosts": ["gpu17"], "devices": ["NVIDIA H200"], "ranks": 8, "cpus": 96, "memory_gib": 1000.2}
    manifest = {"commit": "0123456789abcdef", "python": "3.11.1", "packages": {"torch": "2.0.0"}, "machines": [start]}
    (pipeline / "posttrain" / "manifest.json").write_text(json.dumps(manifest))
    page = write_report([pipeline], pipeline / "report.html").read_text()
    trained_on = page.split("<h2>Trained on</h2>")[1]
    for text in ("gpu17", "NVIDIA H200", "96", "1000 GiB", "2.0.0", "3.11.1"):
        assert f"<b>{text}</b>" in trained_on
    assert "trained on <b>gpu17</b>" in page


def test_it_says_what_must_be_known_before_believing(page: str) -> None:
    for label in ("SAM teacher (preset mini) has random weights", "starts from random weights", "fast rendering"):
        assert label in page


def test_names_of_others_are_escaped(page: str) -> None:
    assert "the &lt;bbq&gt; sauce" in page


def test_single_runs_have_a_report_too(pipeline: Path) -> None:
    out = write_report([pipeline / "posttrain", pipeline / "evaluation"], pipeline / "part.html")
    assert "Post-training of PokeVLA" in out.read_text()


def test_every_run_of_a_pipeline_is_shown_controls_last(pipeline: Path) -> None:
    blind = Path(shutil.copytree(pipeline / "posttrain", pipeline / "blind"))
    recipe = blind / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("data: {", "data: {blank_images: true, "))
    page = write_report([pipeline], pipeline / "report.html").read_text()
    titles = re.findall(r"<h2>(P[^<:]*ing of [^<:]*?)(?: <small|</h2>)", page)  # not that of the comparison
    assert titles == ["Pre-training of PokeVLM", "Post-training of PokeVLA", "Post-training of PokeVLA without images"]
    assert "without images was trained without images" in page


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a pipeline, run or evaluation"):
        write_report([tmp_path], tmp_path / "report.html")


def test_policies_of_any_name_have_their_own_videos(pipeline: Path) -> None:
    evaluation = pipeline / "evaluation"
    summary = json.loads((evaluation / "summary.json").read_text())
    for part in (summary["policies"], summary["settings"]["policies"]):
        part["trained [8]"] = part["trained"]
        part["trained-t3"] = part["trained"]
    (evaluation / "summary.json").write_text(json.dumps(summary))
    (video,) = (evaluation / "videos").glob("trained-libero_object-t*.mp4")
    shutil.copyfile(video, video.with_name(video.name.replace("trained", "trained [8]")))
    page = write_report([pipeline], pipeline / "report.html").read_text()
    assert page.count("data:video/mp4;base64") == 2
    assert "<b>trained [8]</b> <small" in page


def test_a_run_of_any_name_has_its_curve(tmp_path: Path) -> None:
    lines = [Line("_hidden $\\frac$ {", [(1, 1.0), (2, 0.5)], 0), Line("b", [(1, 1.0), (2, 0.5)], 1)]
    assert [curve.label for curve in draw_lines(lines, "", logarithmic=False).curves] == ["_hidden $\\frac$ {", "b"]
