"""The explorer's controls. What they compute is in `state`, what it looks like in `drawing`."""

import asyncio
import contextlib
import hashlib
import math
import time

import ipywidgets

from xai_suite.explorer import drawing
from xai_suite.explorer.parts import find_parts, read_others
from xai_suite.explorer.state import (
    QUICK,
    SLOW,
    State,
    answer,
    change,
    check_new_run,
    crop,
    layer_names,
    likeliest,
    load_classifier,
    not_offered,
    possible_runs,
    region,
    save_picture,
    save_run,
)
from xai_utils import pictures
from xai_utils.attribution import left_out, spoken
from xai_utils.engine import first_line
from xai_utils.models import APPLICATIONS, DETECTOR, EMBEDDED, own_cards

PATIENCE = 0.5  # seconds that an answer may take before it is said that it is being computed
PAUSE = 0.2  # seconds in which another wish can come before the parts are computed
COST = (  # measured on two processors; an answer from before costs nothing
    "with efficientnet_lite0 about 4 seconds of processor time for the first picture, 2 for each"
    " other; larger networks take longer"
)
KEPT = 50  # drawn parts that are shown again without being computed
GRID = 8  # cells along each side of the picture that is clicked on
NO_SECOND, LAST_LAYER, UPLOADED = "none", "last (default)", "your upload"


def explore(
    model: str = "efficientnet_lite0",
    image: str = "cat",
    technique: str = "grad_cam",
    second: str = "",
):
    """Display the explorer: live in Jupyter and Voilà, its first answer as plain HTML in a report.

    Args:
        model: network to begin with, a name or path known to `models.load_model`.
        image: picture to begin with, a name or path.
        technique: technique to begin with, and a second one beside it (none if empty).
    """
    from IPython.display import display

    made = Explorer(model, image, technique, second or NO_SECOND)
    plain = {
        "text/plain": "the explorer",
        "text/html": made.alert.value + made.figure.value + made.table.value,
    }
    display(made.view._repr_mimebundle_() | plain, raw=True)


class Explorer:
    """The controls and what they show.

    `view` holds all. A failure becomes a line in `alert` and changes nothing. While an answer is
    computed, and after a failure, the one before stays, marked as old.

    Attributes:
        took: techniques and layer -> seconds of their last answer by this network.
        loaded: what was typed for the network that answers; empty before the first.
        refused: why the last model that was asked for in vain could not be loaded.
        shown: the answer that is shown, in words; empty before the first.
        made: layer, class, picture and what is searched -> drawn parts, by this network.
        others: layer and names of the pictures offered -> those that are searched, by this network.
        waiting: the task that computes parts; what is wished for next cancels it.
        step: what that task is doing, as `busy` shows it; empty if there is none.
    """

    def __init__(self, model: str, image: str, technique: str, second: str):
        self.classifier = self.source = self.images = None
        self.source_name, self.loaded, self.shown, self.quiet, self.took = "", "", "", False, {}
        self.made, self.others, self.waiting, self.step = {}, {}, None, ""
        self.refused = "no model is loaded"
        self._make_controls(model, image, technique, second)
        self._arrange()
        self._observe()
        self._size_cells((1, 1))
        self._try(self._load_model, None)
        if self.images is None:
            self._try(self._load_picture, None)

    # --- controls ---------------------------------------------------------------------------------

    def _make_controls(self, model, image, technique, second):
        names = list(dict.fromkeys([image, *pictures.image_names()]))
        self.picture = _control(ipywidgets.Dropdown, "picture", options=names, value=image)
        self.upload = ipywidgets.FileUpload(
            accept="image/*", description="upload a picture", layout={"width": "200px"}
        )
        networks = [*EMBEDDED, *own_cards(), *APPLICATIONS]
        networks.remove(DETECTOR)
        self.model = _control(
            ipywidgets.Combobox, "model", value=model, options=networks, continuous_update=False
        )
        self.classes = _control(ipywidgets.Dropdown, "one of its top classes", options=[("", -1)])
        self.named = _control(
            ipywidgets.Combobox,
            "or any class",
            placeholder="a name, then Enter",
            continuous_update=False,
        )
        named = _named(QUICK + SLOW)
        self.technique = _control(ipywidgets.Dropdown, "technique", options=named, value=technique)
        self.second = _control(
            ipywidgets.Dropdown, "beside it", options=[(NO_SECOND,) * 2, *named], value=second
        )
        self.layer = _control(ipywidgets.Dropdown, "layer (CAMs, parts)", options=[LAST_LAYER])
        self.wants_parts = _control(ipywidgets.Checkbox, "parts and neighbours", value=False)
        self.wants_parts.tooltip = (
            "the factors that this picture's score rests on most, and the pictures that the network"
            f" finds most alike, at the layer chosen: {COST}"
        )
        self.crop_columns = _span("crop across, %", (0, 100))
        self.crop_rows = _span("crop down, %", (0, 100))
        self.brightness = _slider("brightness, grey levels", -160, 160)
        self.flip = _control(ipywidgets.Checkbox, "flip left and right", value=False)
        self.shift = _slider("shift right, pixels", -100, 100)
        self.columns = _span("cover across, %", (0, 0))
        self.rows = _span("cover down, %", (0, 0))
        self.mask, self.keep = _slider("mask top, %", 0, 95), _slider("keep top, %", 0, 95)
        self.reset = ipywidgets.Button(description="dials back to zero")
        self.notebook = _control(ipywidgets.Dropdown, "report of", options=["21_grad_cam"])
        self.run_name = _control(ipywidgets.Text, "name", value="my_find")
        self.save = ipywidgets.Button(description="save as run file")
        self.alert, self.status = ipywidgets.HTML(), ipywidgets.HTML()
        self.busy, self.note = ipywidgets.HTML(), ipywidgets.HTML()
        self.figure, self.table = ipywidgets.HTML(), ipywidgets.HTML()
        self.parts = ipywidgets.HTML()
        self.base = ipywidgets.HTML(layout={"grid_area": "1 / 1 / 2 / 2", "margin": "0"})

    def _cells(self):
        """A grid of buttons over the picture: a click covers a cell, another one shows it again."""
        self.cells = []
        for row in range(GRID):
            for column in range(GRID):
                text = f"cover row {row + 1}, column {column + 1} of {GRID}"
                button = ipywidgets.Button(tooltip=text, layout={"margin": "0"})
                button.style.button_color = "transparent"
                button.on_click(lambda _, place=(column, row): self._cover(place))
                self.cells.append(button)
        self.grid = ipywidgets.GridBox(
            self.cells,
            layout={
                "margin": "0",
                "grid_gap": "0",
                "grid_area": "1 / 1 / 2 / 2",
            },
        )
        self.both = ipywidgets.GridBox([self.base, self.grid], layout={"overflow": "hidden"})
        return self.both

    def _size_cells(self, shape):
        """Cells that together cover a picture of that height and width."""
        width, height = drawing.size_of(shape)
        self.both.layout.grid_template_columns = f"{width}px"
        self.grid.layout.grid_template_columns = f"repeat({GRID}, {width // GRID}px)"
        for cell in self.cells:
            cell.layout.width, cell.layout.height = f"{width // GRID}px", f"{height // GRID}px"

    def _arrange(self):
        question = ipywidgets.HTML("<b>The picture.</b> Click where it should be covered.")
        choose = [
            self.picture,
            self.upload,
            self.crop_columns,
            self.crop_rows,
            self.model,
            self.classes,
            self.named,
            self.technique,
            self.second,
            self.layer,
            self.wants_parts,
        ]
        dials = [
            self.brightness,
            self.flip,
            self.shift,
            self.columns,
            self.rows,
            self.mask,
            self.keep,
            self.reset,
        ]
        row = {"flex_flow": "row wrap", "align_items": "flex-start"}
        column = {"width": "min(480px, 100%)"}
        keep = ipywidgets.HBox([self.notebook, self.run_name, self.save], layout=row)
        columns = [ipywidgets.VBox(controls, layout=column) for controls in (choose, dials)]
        self.view = ipywidgets.VBox(
            [
                ipywidgets.HBox(columns, layout=row),
                ipywidgets.HTML(drawing.STYLE),
                self.alert,
                self.busy,
                self.note,
                ipywidgets.HBox(
                    [ipywidgets.VBox([question, self._cells()]), self.figure, self.table],
                    layout=row,
                ),
                self.status,
                self.parts,
                keep,
            ]
        )

    def _observe(self):
        on = {
            self.model: self._load_model,
            self.picture: self._load_picture,
            self.upload: self._load_upload,
            self.crop_columns: self._crop,
            self.crop_rows: self._crop,
            self.classes: self._choose_class,
            self.named: self._name_class,
            self.technique: self._draw,
            self.second: self._draw,
            self.wants_parts: self._want_parts,
        }
        for control in (
            self.layer,
            self.brightness,
            self.flip,
            self.shift,
            self.columns,
            self.rows,
            self.mask,
            self.keep,
        ):
            on[control] = self._draw
        for control, act in on.items():
            control.observe(lambda change, act=act: self.quiet or self._try(act, change), "value")
        self.reset.on_click(lambda _: self._try(self._reset, None))
        self.save.on_click(lambda _: self._try(self._save, None))

    # --- what they do -----------------------------------------------------------------------------

    def _try(self, act, change):
        """Do it; a failure of any kind is told under the controls, and the explorer goes on."""
        try:
            self.alert.value = ""
            act(change)
        except Exception as error:
            self.alert.value = drawing.alert(first_line(error))
        finally:
            self.busy.value = self.step

    def _wait_for(self, what: str):
        """Say at once what is being done; the answer that is shown meanwhile is an old one."""
        self._mark_old()
        later = " What you change meanwhile is answered next." if self.shown else ""
        self.busy.value = drawing.told(f"{what} ...{later}")

    def _mark_old(self):
        if self.shown:
            self.figure.add_class(drawing.OLD)
            self.table.add_class(drawing.OLD)
            self.parts.add_class(drawing.OLD)
            self.status.value = drawing.told(f"Shown is the answer before: {self.shown}.")

    def _mark_new(self, status: str):
        self.figure.remove_class(drawing.OLD)
        self.table.remove_class(drawing.OLD)
        if not self.waiting:
            self.parts.remove_class(drawing.OLD)
        self.status.value = status

    def _set(self, **values):
        """Set controls (`layer=`) or what they offer (`layer_options=`), without acting on each."""
        self.quiet = True
        try:
            for name, value in values.items():
                trait = "options" if name.endswith("_options") else "value"
                setattr(getattr(self, name.removesuffix("_options")), trait, value)
        finally:
            self.quiet = False

    def _load_model(self, _):
        old, status = drawing.OLD in self.figure._dom_classes, self.status.value
        self._wait_for(f"Loading {self.model.value}")
        try:
            loaded = load_classifier(self.model.value)
        except ValueError as error:
            self.refused = str(error)
            if self.classifier is not None:  # which goes on answering
                self._set(model=self.loaded)
                old or self._mark_new(status)
            raise
        self.loaded = self.model.value
        before, self.classifier, self.took = self.classifier, loaded, {}
        self._forget_parts()
        self._size_cells(loaded.input_size)
        self._set(
            layer_options=[LAST_LAYER, *layer_names(loaded)],
            named_options=sorted(set(loaded.labels)),
        )
        lost = self._offer(not_offered(loaded))
        same = before is not None and before.channels == loaded.channels
        if same and self.source is not None:
            self._prepare(keep_class=before.labels == loaded.labels)
        elif self.picture.value == UPLOADED:
            self._load_upload(None)
        else:
            self._load_picture(None)
        if lost:
            raise ValueError(left_out(lost))

    def _offer(self, without: dict[str, str]) -> dict[str, str]:
        """Offer all techniques but these; those of them that were chosen give way to others.

        Returns:
            What was chosen and is no longer there, with the reasons.
        """
        offered = [name for name in QUICK + SLOW if name not in without]
        chosen = {"technique": self.technique.value, "second": self.second.value}
        first = "grad_cam" if "grad_cam" in offered else offered[0]
        kept = {
            "technique": first if chosen["technique"] in without else chosen["technique"],
            "second": NO_SECOND if chosen["second"] in without else chosen["second"],
        }
        named = _named(offered)
        options = {"technique_options": named, "second_options": [(NO_SECOND,) * 2, *named]}
        self._set(**options, **kept)
        return {name: without[name] for name in chosen.values() if name in without}

    def _load_picture(self, _):
        if self.picture.value == UPLOADED:
            return
        name = self.picture.value
        with self._old_after_failure():
            self._take(pictures.load_image(name, self._channels()), name)

    def _load_upload(self, _):
        if not self.upload.value:
            return
        sent = self.upload.value[-1]
        content = bytes(sent["content"])
        with self._old_after_failure():
            self._take(pictures.decode_image(content, sent["name"], self._channels()), "")
        options = [UPLOADED, *(name for name in self.picture.options if name != UPLOADED)]
        self._set(picture_options=options, picture=UPLOADED)

    def _channels(self) -> int:
        return 3 if self.classifier is None else self.classifier.channels

    def _take(self, source, name):
        self._prepare(keep_class=False, taken=(source, name))

    def _crop(self, _):
        with self._old_after_failure():
            self._prepare(keep_class=True)

    @contextlib.contextmanager
    def _old_after_failure(self):
        try:
            yield
        except Exception:
            self._leave_parts()
            self._mark_old()
            raise

    def _prepare(self, keep_class: bool, taken=None):
        """Bring the picture to the network, and ask what it is.

        A picture and name that are `taken` replace those before, and their crop, once that went
        well.

        Explained is the likeliest class, or the one that was before: then the answers can be
        compared, and a note tells of another likeliest class.
        """
        if self.classifier is None:
            raise ValueError(f"{self.refused}; choose a model, such as {next(iter(EMBEDDED))}")
        if taken:
            part = crop(taken[0])
        else:
            part = crop(self.source, _shares(self.crop_columns), _shares(self.crop_rows))
        images = self.classifier.prepare(part)
        self.untouched = self.classifier.predict(images)[0]
        self.images = images
        if taken:
            self.source, self.source_name = taken
            self._set(crop_columns=(0, 100), crop_rows=(0, 100))
        top = likeliest(self.classifier, self.untouched)
        first, keep_class = top[0][0], keep_class and self.classes.value >= 0  # -1: none yet
        named = self.named.value if keep_class else ""
        explained = self.classes.value if keep_class else first
        if explained not in {index for index, _, _ in top}:
            top.append((explained, self.classifier.labels[explained], self.untouched[explained]))
        options = [
            (f"{drawing.plain(name)}  {self.classifier.written(chance)}", index)
            for index, name, chance in top
        ]
        self._set(classes_options=options, classes=explained, named=named)
        self.note.value = ""
        if explained != first:
            stays, other = (drawing.plain(self.classifier.labels[i]) for i in (explained, first))
            self.note.value = drawing.told(
                f"Explained is still {stays}; the likeliest class of this picture is {other}."
            )
        self._draw(None)

    def _choose_class(self, _):
        self.note.value = ""
        self._draw(None)

    def _name_class(self, _):
        text = self.named.value.strip()
        if not text:
            return
        index = self.classifier.class_index(text)
        if index not in {offered for _, offered in self.classes.options}:
            chosen = [(f"{drawing.plain(self.classifier.labels[index])}  (chosen)", index)]
            self._set(classes_options=[*self.classes.options, *chosen])
        self._set(classes=index)
        self._choose_class(None)

    def _cover(self, place):
        spans = [(round(100 * at / GRID), round(100 * (at + 1) / GRID)) for at in place]
        if (self.columns.value, self.rows.value) == tuple(spans):
            spans = [(0, 0), (0, 0)]
        self._set(columns=spans[0], rows=spans[1])
        self._try(self._draw, None)

    def _reset(self, _):
        self._set(brightness=0, flip=False, shift=0, columns=(0, 0), rows=(0, 0), mask=0, keep=0)
        self._draw(None)

    def _state(self) -> State:
        techniques = [self.technique.value] + [
            name for name in [self.second.value] if name != NO_SECOND
        ]
        layer = None if self.layer.value == LAST_LAYER else self.layer.value
        return State(
            self.classes.value,
            tuple(dict.fromkeys(techniques)),
            layer,
            self.brightness.value,
            self.flip.value,
            self.shift.value,
            _shares(self.columns),
            _shares(self.rows),
            self.mask.value / 100,
            self.keep.value / 100,
        )

    def _draw(self, _):
        if self.images is None:
            raise ValueError("there is no picture yet: choose or upload one")
        start, state = time.perf_counter(), self._state()
        for slider in (self.brightness, self.shift, self.columns, self.rows, self.mask, self.keep):
            slider.continuous_update = not (
                self.wants_parts.value or set(state.techniques) & set(SLOW)
            )
        asked = f"{' and '.join(map(spoken, state.techniques))} for "
        asked += drawing.plain(self.classifier.labels[state.target])
        if self.took.get((state.techniques, state.layer), math.inf) > PATIENCE:
            self._wait_for(f"Computing {asked}")
            self._show_picture(change(self.images, state)[0], state)
        with self._old_after_failure():
            now = answer(self.classifier, self.images, state, self.untouched)
        self._show_picture(now.seen, state)
        self.figure.value = drawing.figure(self.classifier, state, now)
        self.table.value = drawing.table(self.classifier, state, now)
        self.shown = f"{asked}, by {self.classifier.name}"
        seconds = time.perf_counter() - start
        self.took[state.techniques, state.layer] = seconds
        self._mark_new(drawing.status(self.classifier, now, 1000 * seconds))
        runs = list(possible_runs(self.classifier, state, ""))
        if list(self.notebook.options) != runs:
            self.notebook.options = runs
        self._show_parts(state, now.seen)

    # --- parts and neighbours ---------------------------------------------------------------------

    def _want_parts(self, _):
        self._forget_parts()  # a picture's file may be another since the box was ticked before
        self._draw(None)

    def _show_parts(self, state: State, seen):
        """Show the parts of what is seen if they are wished for, from before or in a while.

        In a kernel they are computed once it has nothing else to do; a wish that comes first
        cancels them.
        """
        self._leave_parts()
        if not self.wants_parts.value:
            self._parts_are("")
            return
        names = tuple(name for name in self.picture.options if name != UPLOADED)
        content = hashlib.sha256(seen.tobytes()).hexdigest()
        key = state.layer, state.target, content, self.source_name, names
        if key in self.made:
            self._parts_are(self.made[key])
            return
        self.parts.add_class(drawing.OLD)
        work = self._compute_parts(key, self.classifier, state, seen)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a script, not a kernel
            asyncio.run(work)
        else:
            self.waiting = loop.create_task(work)

    def _forget_parts(self):
        """What was computed is no longer true."""
        self._leave_parts()
        self.made, self.others = {}, {}

    def _leave_parts(self):
        """What is being computed is no longer wished for."""
        if self.waiting:
            self.waiting.cancel()
        self.waiting, self.step = None, ""

    async def _compute_parts(self, key, classifier, state: State, seen):
        """In steps, between which the kernel answers what else is wished for."""
        layer, *_, name, names = key
        try:
            if (layer, names) not in self.others:
                await self._tell_step(f"Reading the {len(names)} pictures offered")
                self.others = {(layer, names): read_others(classifier, names, layer)}
            await self._tell_step("Looking for parts and neighbours")
            found = find_parts(classifier, seen, state.target, self.others[layer, names], name)
            drawn = drawing.parts(classifier, name or UPLOADED, found, state.target)
        except Exception as error:  # of memory too: the map stays
            drawn = drawing.alert(first_line(error))
        else:
            self.made[key] = drawn
            while len(self.made) > KEPT:
                del self.made[next(iter(self.made))]
        self.busy.value, self.waiting, self.step = "", None, ""
        self._parts_are(drawn)

    async def _tell_step(self, what: str):
        self.step = drawing.told(f"{what} ... What you change meanwhile comes first.")
        self.busy.value = self.step
        await asyncio.sleep(PAUSE)

    def _parts_are(self, drawn: str):
        self.parts.value = drawn
        self.parts.remove_class(drawing.OLD)

    def _show_picture(self, seen, state: State):
        alt = f"the picture as the network sees it, {self.source_name or UPLOADED}"
        self.base.value = drawing.picture(seen, alt, region(state, seen.shape[:2]))

    def _save(self, _):
        name, image, saved = self.run_name.value.strip(), self.source_name, ""
        cropped = (self.crop_columns.value, self.crop_rows.value) != ((0, 100), (0, 100))
        possible = possible_runs(self.classifier, self._state(), image)
        check_new_run(self.notebook.value, name)
        if cropped or not image:
            part = crop(self.source, _shares(self.crop_columns), _shares(self.crop_rows))
            image = save_picture(part, name)
            saved = f" Its picture is data/images/{image}."
            possible = possible_runs(self.classifier, self._state(), image)
        path = save_run(self.notebook.value, name, possible[self.notebook.value])
        self.status.value = drawing.saved(path.stem, saved)


def _named(techniques) -> list[tuple[str, str]]:
    """Techniques as a list to choose from: how people call them, and their names."""
    return [(spoken(name), name) for name in techniques]


def _control(kind, label, **settings):
    style, layout = {"description_width": "150px"}, {"width": "min(460px, 98%)"}
    return kind(description=label, style=style, layout=layout, **settings)


def _slider(label, low, high):
    return _control(ipywidgets.IntSlider, label, value=0, min=low, max=high)


def _span(label, value):
    return _control(ipywidgets.IntRangeSlider, label, value=value, min=0, max=100)


def _shares(slider) -> tuple[float, float]:
    return tuple(percent / 100 for percent in slider.value)
