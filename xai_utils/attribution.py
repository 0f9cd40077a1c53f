"""Every attribution technique under one name: `method(model, images, target=None, **settings) -> maps`.

- `model`: a Keras model (`classifier.model`), images to logits.
- `images`: one batch `(N, H, W, C)` in the model's pixel range (0..255 for the networks of `models`).
- `target`: None (each image's top class), a class index, N indices, or a callable `outputs -> (N,)` scores.
- `maps`: float32 `(N, h, w)`, raw: not resized, not normalised, not coloured; that is `show`'s work.

A batch gives what its images give one by one, and the model is left as it was.
"""

from xai_utils.class_activation import cam, grad_cam
from xai_utils.gradients import pixel_gradient, saliency

__all__ = ["cam", "grad_cam", "pixel_gradient", "saliency"]
