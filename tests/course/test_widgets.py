import base64
import io
import json
import re
import threading
import time

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from nic_helpers.course.widgets import NOT_LIVE, WIDGET_MIME, Frame, explore, live, ordered
from nic_helpers.images import to_uint8

RAMP = torch.linspace(0, 1, 24).expand(3, 16, 24)


def two_axes(**options):
    frames = {(e, c): Frame({"source": RAMP, "attacked": RAMP * e / 8}, f"{e} <{c}>") for e in (2, 8) for c in ("a", "b")}
    return explore({"ε": [2, 8], "codec": ["a", "b"]}, frames, **options)


def pixels(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_a_move_shows_the_frame_of_the_chosen_labels_in_little_time():
    shown = two_axes()
    slider, choice = shown.controls if shown.widget else ()
    assert slider.continuous_update is False and [o for _, o in choice.options] == ["a", "b"]
    began = time.perf_counter()
    slider.value, choice.value = 8, "b"
    assert time.perf_counter() - began < 0.4  # two moves
    assert shown.key == (8, "b") and "8 &lt;b&gt;" in shown.text.value
    assert (torch.from_numpy(to_uint8(RAMP)).numpy() == pixels(shown.images["attacked"].value)).all(), "lossless"


def test_two_pictures_take_turns_in_one_place():
    shown = two_axes(flicker=("source", "attacked"))
    assert shown.widget and shown.turns.value == "source"
    boxes = shown.widget.children[1:3][1].children
    assert [box.layout.display for box in boxes] == [None, "none"]
    shown.turns.value = "attacked"
    assert [box.layout.display for box in boxes] == ["none", None]
    shown.play.value = 1
    shown.play.value = 0
    assert shown.turns.value == "source"


def test_a_notebook_gets_a_widget_and_a_player_with_each_picture_once():
    shown = two_axes(describes="a <ramp>")
    bundle = shown._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", WIDGET_MIME} and bundle["text/plain"] == "4 frames by ε, codec"
    page = bundle["text/html"]
    uris = re.findall(r"data:image/(?:png|webp);base64,[\w+/=]+", page)
    different = {p.data for frame in shown.frames.values() for p in frame.values()}
    assert {base64.b64decode(uri.partition(",")[2]) for uri in uris} == different
    # the first frame stands in two images of the page, and there only
    assert len(uris) == len(different) and len(re.findall(r"<img ", page)) == 2
    assert "http" not in page and 'alt="a &lt;ramp&gt;: source"' in page and "<noscript>" in page
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, flags=re.S)[1])
    assert data["texts"][0] == "2 <a>" and data["sizes"] == [2, 2]


def test_figures_are_frames_and_are_not_drawn_again():
    def bars(height):
        figure, ax = plt.subplots(figsize=(2, 1))
        ax.bar([0], [height])
        return figure

    before = plt.get_fignums()
    shown = explore({"step": ["1", "2"]}, {str(k): Frame({"bars": bars(k)}) for k in (1, 2)})
    assert plt.get_fignums() == before and shown.frames[("1",)]["bars"].size == (240, 120)
    assert shown.widget.children[0].children[0].description == "step"


@pytest.mark.parametrize(
    ("labels", "slider"),
    [
        (["2/255", "8/255"], True),
        (["clean", "2/255", "8/255"], True),
        (["λ = 0.1", "λ = 1"], True),
        ([1, 2, 3], True),
        (["hyperprior", "mbt2018"], False),
        (["clean", "8/255"], False),
        (["8/255"], False),
    ],
)
def test_a_scale_gets_a_slider_and_names_a_list(labels, slider):
    assert ordered(labels) is slider


FRAME = Frame({"p": RAMP})


@pytest.mark.parametrize(
    ("axes", "frames", "options", "says"),
    [
        ({}, {}, {}, "at least one axis"),
        ({"a": []}, {}, {}, "'a' has no labels"),
        ({"a": [1, 1]}, {1: FRAME}, {}, "twice"),
        ({"a": [1, 2]}, {1: FRAME}, {}, "1 of 2 combinations have no frame, first (2,)"),
        ({"a": [1]}, {1: FRAME, 2: FRAME}, {}, "no combination"),
        ({"a": [1]}, {1: RAMP}, {}, "write Frame("),
        ({"a": [1]}, {1: Frame({})}, {}, "no pictures"),
        ({"a": [1, 2]}, {1: FRAME, 2: Frame({"q": RAMP})}, {}, "same names"),
        ({"a": [1, 2]}, {1: FRAME, 2: Frame({"p": RAMP[:, :8]})}, {}, "one size"),
        ({"a": [1]}, {1: Frame({"p": RAMP, "q": RAMP[:, :8]})}, {"flicker": ("p", "q")}, "one size"),
        ({"a": [1]}, {1: FRAME}, {"flicker": ("p", "q")}, "two of the pictures' names"),
        ({"a": [1]}, {1: Frame({"p": RAMP[None]})}, {}, "x[0]"),
        ({"a": [1]}, {1: Frame({"p": RAMP * 255})}, {}, "clamp"),
        ({"a": [1]}, {1: Frame({"p": RAMP * float("nan")})}, {}, "clamp"),
        ({"a": [1]}, {1: Frame({"p": (RAMP * 255).byte()})}, {}, "/ 255"),
        ({"a": [1]}, {1: Frame({"p": RAMP.numpy()})}, {}, "give a tensor"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(axes, frames, options, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        explore(axes, frames, **options)


def test_a_button_runs_a_generator_and_shows_where_it_is():
    begun = []

    def steps():
        begun.append(True)
        for k in range(3):
            yield k / 2, RAMP * k / 2, f"step {k}"

    button = live(steps, button="Break it")
    bundle = button._repr_mimebundle_()
    assert not begun and NOT_LIVE in bundle["text/html"] and bundle["text/plain"] == NOT_LIVE and WIDGET_MIME in bundle
    assert button.start.description == "Break it" and button.cancel.disabled
    button.start.click()
    button.wait(20)
    assert button.progress.value == 1 and "step 2" in button.text.value and button.image.value
    assert not button.start.disabled and button.cancel.disabled


def test_cancel_ends_the_work_and_the_generator():
    shown, closed = threading.Event(), threading.Event()

    def steps():
        try:
            while True:
                yield 0.1, None, "working on it"
                shown.set()
                time.sleep(0.005)
        finally:
            closed.set()

    button = live(steps)
    button.begin()
    assert shown.wait(20)
    button.begin()  # a second press does nothing
    button.cancel.click()
    button.wait(20)
    assert closed.is_set() and "Stopped" in button.text.value and not button.start.disabled


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: None, "must yield"),
        (lambda: iter([(0.5, RAMP[None], "")]), "x[0]"),
        (lambda: iter([0.5]), "must yield"),
    ],
)
def test_an_error_of_the_work_is_told_under_the_button(steps, says):
    button = live(steps)
    button.begin()
    button.wait(20)
    assert says in button.text.value and not button.start.disabled
    with pytest.raises(ValueError, match="without brackets"):
        live(3)
