"""Figures with text alternatives, the stepper, and what a notebook tells its report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "drawing": ["GREY", "Drawing", "Layer", "look", "picture", "placed", "read_drawing"],
        "figures": [
            "CLIP",
            "COLOURS",
            "Box",
            "Tile",
            "as_rgb",
            "boxes",
            "draw_boxes",
            "figure",
            "heat_map",
            "light",
            "overlay",
            "panel",
            "png",
            "scale",
            "subplots",
            "tiles",
        ],
        "record": [
            "RECORD",
            "USED",
            "Ended",
            "counted",
            "end",
            "one_answer_only",
            "record",
            "show_value",
            "text",
            "used",
        ],
        "widgets": ["progress", "stepper"],
    },
)
