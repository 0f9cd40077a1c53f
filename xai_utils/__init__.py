"""What image models look at: networks, pictures, attribution, metrics, and how to show them.

From the ground up: `engine`, `pictures`, `models` and `show`, then `attribution`, `synthesis` and
`metrics`, and `concepts` on them. A wing is loaded when it is first used, so that `from xai_utils
import show` does not start TensorFlow. `tf` and `keras` are TensorFlow and Keras, started without
their chatter.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["attribution", "concepts", "engine", "metrics", "models", "pictures", "show", "synthesis"],
    {"engine": ["keras", "tf"]},
)
