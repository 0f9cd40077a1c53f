"""TensorFlow and Keras, compiled functions, checks of a batch, whole files, words of errors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "backend": [
            "PIXELS",
            "cached",
            "check_images",
            "check_model",
            "compiled",
            "computed_on",
            "float_type",
            "forward",
            "in_float32",
            "in_parts",
            "in_python",
            "keras",
            "no_gradient",
            "pixel_range",
            "tf",
            "widened",
            "with_float_input",
        ],
        "files": ["DATA_FOLDER", "written_whole"],
        "words": ["first_line", "nearest"],
    },
)
