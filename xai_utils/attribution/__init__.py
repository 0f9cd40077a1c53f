"""Every attribution technique: `method(model, images, target=None, **settings) -> maps`.

- `model`: a Keras model (`classifier.model`), images to logits.
- `images`: one batch `(N, H, W, C)` in the model's pixel range (0..255 for the networks of
  `models`).
- `target`: None (each image's top class), a class index or name, N of them, or a callable
  `outputs -> (N,)` scores.
- `maps`: float32 `(N, h, w)`, raw: not resized, not normalised, not coloured; that is `show`'s
  work.

A batch gives what its images give one by one, and the model is left as it was.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["rules"],
    {
        "attending": [
            "attention",
            "attention_relevance",
            "attention_rollout",
            "gradient_attention",
            "raw_attention",
        ],
        "baselines": ["FLOORS", "centre", "centre_map", "edges", "random", "random_maps"],
        "class_activation": [
            "CAMS",
            "ablation_cam",
            "cam",
            "cams",
            "eigen_cam",
            "grad_cam",
            "grad_cam_plus_plus",
            "hires_cam",
            "layer_cam",
            "score_cam",
            "xgrad_cam",
        ],
        "d_rise": ["d_rise"],
        "deep_lift": ["deep_lift"],
        "full_grad": ["full_grad"],
        "extremal": ["extremal_perturbation"],
        "gradients": [
            "gradient_shap",
            "gradient_x_input",
            "integrated_gradients",
            "pixel_gradient",
            "saliency",
            "smooth_grad",
            "var_grad",
        ],
        "guided": ["deconvnet", "guided_backprop", "guided_grad_cam"],
        "techniques": [
            "ABOUT",
            "METHODS",
            "TECHNIQUES",
            "left_out",
            "parse",
            "short_names",
            "undefined_for",
        ],
        "names": ["NAMES", "spoken"],
        "regions": ["colour_regions", "ranked_regions", "xrai"],
        "perturbation": ["occlusion", "rise", "rise_masks", "sobol"],
        "sensitivity": ["sobol_design", "total_indices"],
        "relevance": ["channel_relevance", "conservation", "lrp"],
        "superpixels": ["kept_scores", "kernel_shap", "lime", "mean_colours", "superpixels"],
    },
)
