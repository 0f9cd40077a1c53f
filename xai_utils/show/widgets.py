"""Widgets for people: frames to step through, live and in a report, and a progress bar."""

from html import escape

from matplotlib.figure import Figure

from xai_utils.show.drawing import PNG, picture
from xai_utils.show.figures import light
from xai_utils.show.layers import encoder


def stepper(frames, labels, alts=None, title="step", value=0, dropdown=False):
    """Show pictures one at a time, chosen with a slider (mouse, touch or arrow keys).

    Displays one output: a live widget for Jupyter and, in the same bundle, HTML for the report. The
    HTML holds no script: the report's own page script moves the slider, and without any script the
    first frame is still there.

    Args:
        frames: matplotlib figures, each stored as `light` does, or PNG bytes; one a frame.
        labels: one short text a frame.
        alts: one description a frame; default the labels.
        title: what the slider steps through.
        value: index of the frame shown first.
        dropdown: in Jupyter choose from a list of the labels instead, for frames without an order.

    Raises:
        ValueError: no frames, unequal lengths, a frame that is neither a figure nor a
            PNG, or an index out of range.
    """
    from IPython.display import display

    frames, labels = list(frames), [str(label) for label in labels]
    alts = labels if alts is None else [str(alt) for alt in alts]
    if not frames:
        raise ValueError("stepper needs at least one frame")
    if not len(frames) == len(labels) == len(alts):
        raise ValueError(
            f"stepper: {len(frames)} frames, {len(labels)} labels and {len(alts)} alts; give one of"
            " each"
        )
    for index, frame in enumerate(frames):
        if not isinstance(frame, Figure) and not (isinstance(frame, bytes) and frame[:8] == PNG):
            raise ValueError(f"stepper: frame {index} is neither a figure nor PNG bytes")
    if not 0 <= value < len(frames):
        raise ValueError(f"stepper: value {value} is not a frame index, 0 to {len(frames) - 1}")

    once = encoder()
    frames = [light(frame, once) if isinstance(frame, Figure) else frame for frame in frames]
    live = (
        (_choice if dropdown else _live)(frames, labels, alts, title, value)
        if len(frames) > 1
        else {}
    )
    plain = {
        "text/plain": f"{title}: {', '.join(labels)}",
        "text/html": _html(frames, labels, alts, title, value),
    }
    display(live | plain, raw=True)


def progress(title="loss"):
    """A bar for a long computation: a function to call as `(step, steps, losses)`.

    It draws the step and the mean loss. It shows itself at the first call and is drawn anew at most
    a hundred times; at the end a line of text is left.

    Args:
        title: what the mean of `losses` is called.

    Returns:
        A function of `step`, `steps` and `losses`, numbers.
    """
    from IPython.display import display

    shown = None

    def update(step, steps, losses):
        nonlocal shown
        if step % max(steps // 100, 1) and step != steps:
            return
        text = f"step {step} of {steps}, {title} {sum(losses) / len(losses):.3g}"
        bar = "" if step == steps else f'<progress max="{steps}" value="{step}"></progress> '
        bundle = {"text/plain": text, "text/html": f"<div>{bar}{escape(text)}</div>"}
        if shown is None:
            shown = display(bundle, raw=True, display_id=True)
        else:
            shown.update(bundle, raw=True)

    return update


def _html(frames, labels, alts, title, value):
    images = [
        picture(
            frame,
            alt,
            f'loading="lazy" data-label="{escape(label)}"{"" if index == value else " hidden"}',
        )
        for index, (frame, label, alt) in enumerate(zip(frames, labels, alts))
    ]
    control = ""
    if len(frames) > 1:
        control = (
            f'<label>{escape(title)} <input type="range" min="0" max="{len(frames) - 1}" step="1" '
            f'value="{value}" autocomplete="off" aria-valuetext="{escape(labels[value])}"></label> '
        )
    return (
        f'<figure class="stepper" role="group" aria-label="{escape(title)}">{"".join(images)}'
        f"<figcaption>{control}<output>{escape(labels[value])}</output></figcaption></figure>"
    )


def _live(frames, labels, alts, title, value):
    """The live widget's mime bundle: frames stay in the kernel, one at a time is sent."""
    import ipywidgets

    last = len(frames) - 1
    image = _image(frames, alts, value)
    slider = ipywidgets.IntSlider(
        value,
        0,
        last,
        description=title,
        readout=False,
        continuous_update=True,
        style={"description_width": "initial"},
    )
    play = ipywidgets.Play(value=value, min=0, max=last, interval=600, show_repeat=False)
    label = ipywidgets.Label(labels[value])

    def show(change):
        image.value, label.value = picture(frames[change.new], alts[change.new]), labels[change.new]

    slider.observe(show, "value")
    ipywidgets.jslink((play, "value"), (slider, "value"))
    return ipywidgets.VBox([image, ipywidgets.HBox([play, slider, label])])._repr_mimebundle_()


def _choice(frames, labels, alts, title, value):
    """The live widget with a drop-down list in place of the slider; labels may repeat."""
    import ipywidgets

    image = _image(frames, alts, value)
    options = [(label, index) for index, label in enumerate(labels)]
    choice = ipywidgets.Dropdown(
        options=options, value=value, description=title, style={"description_width": "initial"}
    )

    def show(change):
        image.value = picture(frames[change.new], alts[change.new])

    choice.observe(show, "value")
    return ipywidgets.VBox([choice, image])._repr_mimebundle_()


def _image(frames, alts, value):
    import ipywidgets

    return ipywidgets.HTML(picture(frames[value], alts[value]))
