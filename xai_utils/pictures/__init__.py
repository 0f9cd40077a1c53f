"""Pictures: loading and preparing them, drawn scenes with exact masks, transforms, grids.

Named pictures come with every installation (`image_names()`); your own go by path, or lie in
`data/images/`. `bird_or_tree` and `lamp_or_buoy` draw scenes whose truth is known, `textures`
stripes, dots, checks and colours.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["bird_or_tree", "lamp_or_buoy", "textures"],
    {
        "grids": ["shrink", "tile"],
        "load": [
            "IMAGES_FOLDER",
            "PICTURES",
            "RESIZINGS",
            "SCENES",
            "SUFFIXES",
            "PictureError",
            "decode_image",
            "image_names",
            "load_image",
            "load_mask",
            "prepare",
        ],
        "scenes": ["Scene", "background_of", "draw_mushroom", "draw_umbrella"],
        "transforms": [
            "TRANSFORMS",
            "apply",
            "blur",
            "brightness",
            "contrast",
            "covers_for",
            "filling",
            "flip_horizontal",
            "flip_vertical",
            "grey",
            "jpeg",
            "masked",
            "noise",
            "resize_map",
            "rotate",
            "shift",
            "squeeze",
            "undo",
            "warped",
            "zoom",
        ],
    },
)
