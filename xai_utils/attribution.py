"""Every attribution technique under one name: `method(model, images, target=None, **settings) -> maps`.

- `model`: a Keras model (`classifier.model`), images to logits.
- `images`: one batch `(N, H, W, C)` in the model's pixel range (0..255 for the networks of `models`).
- `target`: None (each image's top class), a class index or name, N of them, or a callable `outputs -> (N,)` scores.
- `maps`: float32 `(N, h, w)`, raw: not resized, not normalised, not coloured; that is `show`'s work.

A batch gives what its images give one by one, and the model is left as it was.
"""

from xai_utils.activation_only import cam, eigen_cam, score_cam
from xai_utils.class_activation import cams, grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from xai_utils.gradients import (
    gradient_x_input,
    integrated_gradients,
    pixel_gradient,
    saliency,
    smooth_grad,
    var_grad,
)
from xai_utils.guided import deconvnet, guided_backprop, guided_grad_cam
from xai_utils.perturbation import occlusion, rise
from xai_utils.superpixels import kernel_shap, lime

TECHNIQUES = {
    method.__name__: method
    for method in (
        saliency, gradient_x_input, smooth_grad, var_grad, integrated_gradients, guided_backprop, deconvnet,
        guided_grad_cam, cam, grad_cam, grad_cam_plus_plus, layer_cam, hires_cam, xgrad_cam, score_cam, eigen_cam,
        occlusion, rise, lime, kernel_shap,
    )
}  # fmt: skip

__all__ = ["TECHNIQUES", "cams", "pixel_gradient", *TECHNIQUES]
