"""The interactive report: what the file holds, and what it does in a browser."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from flatjax.evaluation import viewer
from flatjax.evaluation.scoring import Scored, measures_of
from flatjax.evaluation.viewer import Table
from tests.support.browser import CHROMIUM, Page, contents

HOSTILE = "</script><img src=x onerror='window.broken=1'><b>&amp;"
METHODS = {"first": "flat", "second <i>": "vanilla", "third": "unet"}


def scored(states=3, slices=3, seed=0, shape=(24, 20), name="a"):
    """A volume by a method whose states come closer to the target."""
    rng = np.random.default_rng(seed)
    target = np.stack([np.add.outer(np.arange(shape[0]), np.arange(shape[1])) / 42
                       for _ in range(slices)]).astype(np.float32)
    target += np.random.default_rng(7).uniform(0, 0.1, target.shape).astype(np.float32)
    errors = rng.normal(0, 0.1, (states, *target.shape))
    moving = np.abs(target + errors * np.linspace(1, 0.3, states)[:, None, None, None])
    zeros, moving = np.zeros((states, slices)), moving.astype(np.float32)
    return Scored(name, target, moving[0], moving[-1], None, np.arange(states), moving,
                  np.linspace(1, 0, states), zeros, zeros, zeros, zeros[0], 4.0, states - 1)


def views(volume, most=viewer.SLICES):
    return viewer.views(volume, measures_of(volume, along=True), most)


def write(path, runs, title="title", tables=()):
    viewer.write(path, title, "told", runs, {name: METHODS.get(name, "flat") for name in runs},
                 tables)
    return path.read_text(), contents(path)


def gray(data, state):
    """An image of the file, 8 bits."""
    file = io.BytesIO(base64.b64decode(data["images"][state["image"]]))
    return np.asarray(Image.open(file).convert("L"))


def eight_bits(image, white):
    return np.rint(np.clip(image / white, 0, 1) * 255)


def test_a_report_asks_for_nothing_but_itself(tmp_path):
    text, _ = write(tmp_path / "report.html", {"first": views(scored())})
    assert "default-src 'none'" in text
    assert [*re.findall(r"https?://[^'\"]*", text)] == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<(link|script|img|iframe)[^>]+(src|href)=\"(?!data:)", text)
    assert not re.search(r"@import|\burl\(|fetch\(|XMLHttpRequest", text) and text.isascii()


def test_target_start_and_result_are_exact_and_scores_are_of_the_images_before(tmp_path):
    volume = scored()
    kept = measures_of(volume, along=True)
    _, data = write(tmp_path / "report.html", {"first": views(volume)})
    white = volume.target.max()
    for at, one in enumerate(data["slices"]):
        (target,), (start,), states = one["panels"]
        np.testing.assert_array_equal(gray(data, target), eight_bits(volume.target[at], white))
        np.testing.assert_array_equal(gray(data, start), eight_bits(volume.zero_filled[at], white))
        np.testing.assert_array_equal(gray(data, states[-1]),
                                      eight_bits(volume.reconstruction[at], white))
        np.testing.assert_allclose(gray(data, states[1]), eight_bits(volume.states[1, at], white),
                                   atol=60)
        assert states[0]["image"] == start["image"], "each image is there once"
        np.testing.assert_allclose([state["psnr"] for state in states], kept.states["psnr"][:, at],
                                   atol=1e-4)
        assert start["ssim"] == pytest.approx(states[0]["ssim"], abs=1e-4)
    assert [state["time"] for state in states] == [1, 0.5, 0]
    assert [one["name"] for one in data["panels"]] == ["target", "zero-filled", "first"]


def test_without_a_target_there_are_no_scores(tmp_path):
    volume = scored()
    shown = [viewer.view("scan", at, 3, volume.zero_filled[at], *volume.states[:, at], white=1.0)
             for at in range(3)]
    _, data = write(tmp_path / "report.html", {"first": shown})
    assert [one["name"] for one in data["panels"]] == ["zero-filled", "first"]
    assert data["slices"][1]["name"] == "scan, slice 2 of 3"
    assert not data["target"] and data["start"] == 1
    assert len(data["slices"][0]["panels"][1]) == 3
    assert data["slices"][0]["panels"][1][0]["psnr"] is None


def test_names_are_data_and_never_markup(tmp_path):
    text, data = write(tmp_path / "report.html", {HOSTILE: views(scored(name=HOSTILE))}, HOSTILE,
                       [Table(HOSTILE, [HOSTILE], [[HOSTILE]])])
    assert "<img" not in text and "<b>" not in text and text.count("</script>") == 2
    assert data["title"] == data["panels"][2]["name"] == data["tables"][0]["rows"][0][0] == HOSTILE


def test_a_report_keeps_its_size_by_states_first_and_then_by_slices(tmp_path, monkeypatch):
    runs = {name: views(scored(states=9, slices=4, seed=seed))
            for seed, name in enumerate(METHODS)}
    text, whole = write(tmp_path / "report.html", runs)

    def pictured(data):
        return [[state["time"] for state in states if state["image"] is not None]
                for states in data["slices"][0]["panels"]]

    assert len(pictured(whole)[2]) == 9 and len(whole["slices"]) == 4
    monkeypatch.setattr(viewer, "_LIMIT", len(text) - 4000)
    shorter, data = write(tmp_path / "report.html", runs)
    assert len(shorter) <= len(text) - 4000 and len(data["slices"]) == 4
    times = pictured(data)[2]
    assert 2 <= len(times) < 9 and (times[0], times[-1]) == (1, 0)
    assert len([state["psnr"] for state in data["slices"][0]["panels"][2]]) == 9
    page = len(text) - len(json.dumps(whole))
    monkeypatch.setattr(viewer, "_LIMIT", page + 20_000)
    shortest, data = write(tmp_path / "report.html", runs)
    assert 1 <= len(data["slices"]) < 4 and len(pictured(data)[2]) == 2
    assert len(data["panels"]) == 5 and len(shortest) < len(shorter)


def test_only_slices_that_all_runs_have_are_shown(tmp_path):
    runs = {"first": views(scored()), "second": views(scored(seed=1), most=1)}
    _, data = write(tmp_path / "report.html", runs)
    assert [one["name"] for one in data["slices"]] == ["a, slice 2 of 3"]
    viewer.write(tmp_path / "none.html", "", "", {"first": []}, {"first": "flat"})
    assert not (tmp_path / "none.html").exists()


def test_slices_are_spread_and_no_edge_comes_before_the_middle():
    assert viewer.spread(3, 16) == [0, 1, 2]
    assert viewer.spread(9, 1) == [4]
    assert viewer.spread(48, 4) == [6, 18, 30, 42]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "a report.html"
    runs = {name: views(scored(seed=seed, states=2 if name == "third" else 3, name=HOSTILE))
            for seed, name in enumerate(METHODS)}
    write(path, runs, HOSTILE, [Table("Scores", ["run", "PSNR", "parameters"], [
        ["a", "9.5 ± 1", "1,200"], ["b", "10.1 ± 1", "300"], ["c", "", "20,000"]])])
    return path


@pytest.fixture(scope="module")
def page(report):
    with Page(report) as opened:
        yield opened


browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def pixels(page, panel):
    """The colors `[y, x, 3]` of a panel's image, before it is zoomed."""
    found = page.run("""(shown => {
        const canvas = Object.assign(document.createElement('canvas'), {width: 20, height: 24});
        const context = canvas.getContext('2d', {willReadFrequently: true});
        context.drawImage(shown, 0, 0);
        return [...context.getImageData(0, 0, 20, 24).data];
    })""" + f"(panels[{panel}].colored)")
    return np.array(found, np.uint8).reshape(24, 20, 4)[..., :3]


def view(page):
    return page.run("[state.zoom, state.x, state.y, state.level, state.width]")


def label(page, panel):
    return page.run(f"panels[{panel}].canvas.getAttribute('aria-label')")


@browser
def test_it_opens_without_an_error_and_shows_the_images_of_the_file(page):
    assert page.errors == [] and page.run("window.broken") is None
    assert page.run("document.title") == HOSTILE
    volume = scored(seed=1)
    at = page.run("state.slice")
    np.testing.assert_array_equal(
        pixels(page, 3)[..., 1], eight_bits(volume.reconstruction[at], volume.target.max()))
    assert "second <i>" in label(page, 3) and "step 2 of 2" in label(page, 3)
    seen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    assert seen.shape == (1000, 1400, 3) and seen.std() > 20


@browser
def test_keys_change_cascade_slice_window_zoom_and_what_is_shown(page):
    volume = scored()
    white = volume.target.max()
    before = pixels(page, 2)
    page.press("ArrowLeft")
    assert "step 1 of 2" in label(page, 2) and "step 0 of 1" in label(page, 4)
    assert page.run("$('step').value") == "1" and (pixels(page, 2) != before).any()
    page.press("ArrowRight")
    np.testing.assert_array_equal(pixels(page, 2), before)
    page.press("ArrowDown")
    np.testing.assert_array_equal(pixels(page, 0)[..., 0], eight_bits(volume.target[2], white))
    page.press("ArrowUp")
    page.press("e")
    difference = np.abs(eight_bits(volume.reconstruction[1], white)
                        - eight_bits(volume.target[1], white))
    colored = pixels(page, 2).astype(int)
    assert np.ptp(colored, axis=2).max() > 50 and label(page, 2).startswith("error map of first")
    darkest, brightest = (colored.sum(2)[difference == end].mean()
                          for end in (difference.min(), difference.max()))
    assert darkest < brightest and np.ptp(pixels(page, 0), axis=2).max() == 0
    page.press("e")
    page.press("t")
    np.testing.assert_array_equal(pixels(page, 2), pixels(page, 0))
    page.press("t")
    page.press("b")
    page.press("c")
    assert pixels(page, 2).mean() > before.mean()
    page.press("+")
    page.press("ArrowRight", shift=True)
    zoom, x, y, level, width = view(page)
    assert zoom > 1 and x > 0.5 and y == 0.5 and level < 0.5 and width < 1
    page.press("0")
    assert view(page) == [1, 0.5, 0.5, 0.5, 1]
    np.testing.assert_array_equal(pixels(page, 2), before)


@browser
def test_a_slider_that_has_the_focus_keeps_its_arrows(page):
    page.run("$('level').focus()")
    page.press("ArrowLeft")
    assert page.run("state.level") == 0.49 and "step 2 of 2" in label(page, 2)
    page.run("document.activeElement.blur()")
    page.press("0")


@browser
def test_the_mouse_zooms_where_it_is_pans_all_images_and_a_double_click_resets(page):
    left, top, width, height = page.run(
        "(box => [box.x, box.y, box.width, box.height])(panels[1].canvas.getBoundingClientRect())")
    x, y = left + 0.25 * width, top + 0.75 * height
    page.mouse(("mouseWheel", x, y))
    zoom, at_x, at_y, *_ = view(page)
    assert zoom > 1 and at_x < 0.5 < at_y
    assert at_x + (0.25 - 0.5) / zoom == pytest.approx(0.25, abs=0.005), "it stays there"
    page.mouse(("mousePressed", x, y), ("mouseMoved", x - 20, y), ("mouseReleased", x - 20, y))
    assert view(page)[1] == pytest.approx(at_x + 20 / width / zoom, abs=0.005)
    drawn = page.run("panels.map(one => one.canvas.toDataURL().length)")
    page.mouse(("mousePressed", x, y), ("mouseMoved", x, y + 30), ("mouseReleased", x, y + 30),
               modifiers=8)
    assert view(page)[3] > 0.5
    for count in (1, 2):
        page.mouse(("mousePressed", x, y), ("mouseReleased", x, y), clickCount=count)
    assert view(page) == [1, 0.5, 0.5, 0.5, 1]
    assert all(a != b for a, b in zip(
        drawn, page.run("panels.map(one => one.canvas.toDataURL().length)"), strict=True))


@browser
def test_tables_are_sorted_by_numbers_and_a_slice_is_chosen_by_its_name(page):
    def click(selector):
        page.run(f"document.querySelector({selector!r}).click()")
        page.settle()
        return page.run("[...document.querySelectorAll('tbody')].map(body => [...body.rows].map("
                        "row => row.cells[0].textContent))")[0]

    assert click("th:nth-child(2) button") == ["b", "a", "c"]
    assert click("th:nth-child(2) button") == ["c", "a", "b"]
    assert click("th:nth-child(3) button") == ["c", "a", "b"]
    orders = page.run("[...document.querySelectorAll('th')].map(one => one.ariaSort)")
    assert orders[:3] == ["none", "none", "descending"]
    click("tr[data-slice='0'] button")
    assert page.run("state.slice") == 0 and "slice 1 of 3" in label(page, 0)


@browser
def test_a_click_in_the_curve_goes_to_that_time(page):
    left, top, width, height = page.run(
        "(box => [box.x, box.y, box.width, box.height])($('chart').getBoundingClientRect())")
    x, y = left + width * 170 / 320, top + height / 2
    page.mouse(("mousePressed", x, y), ("mouseReleased", x, y))
    assert page.run("state.time") == 0.5 and "step 1 of 2" in label(page, 2)
    assert page.errors == []


@browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways_and_two_fingers_zoom(report, dark):
    with Page(report, 360, 740, phone=True, dark=dark) as page:
        assert page.run("document.documentElement.scrollWidth") == 360
        light = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(245, 245, 243)"
        assert light != dark
        x, y = page.run("(box => [box.x + box.width / 2, box.y + box.height / 2])("
                        "panels[0].canvas.getBoundingClientRect())")
        for kind, apart in (("touchStart", 10), ("touchMove", 25), ("touchMove", 40)):
            page.call("Input.dispatchTouchEvent", type=kind, touchPoints=[
                {"x": x + side * apart, "y": y, "id": side + 1} for side in (-1, 1)])
        page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        page.settle()
        assert view(page)[0] > 2 and page.errors == []
