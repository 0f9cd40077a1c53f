"""A technique has one name in code, `grad_cam`, and one for people, Grad-CAM.

Light on purpose: the index of the reports asks for names, and computes nothing.
"""

NAMES = {
    "saliency": "saliency",
    "gradient_x_input": "gradient × input",
    "smooth_grad": "SmoothGrad",
    "var_grad": "VarGrad",
    "integrated_gradients": "integrated gradients",
    "deep_lift": "DeepLIFT",
    "gradient_shap": "GradientSHAP",
    "xrai": "XRAI",
    "full_grad": "FullGrad",
    "guided_backprop": "guided backpropagation",
    "deconvnet": "DeconvNet",
    "guided_grad_cam": "guided Grad-CAM",
    "lrp": "LRP",
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "layer_cam": "LayerCAM",
    "hires_cam": "HiResCAM",
    "xgrad_cam": "XGrad-CAM",
    "score_cam": "Score-CAM",
    "ablation_cam": "Ablation-CAM",
    "eigen_cam": "Eigen-CAM",
    "raw_attention": "raw attention",
    "attention_rollout": "attention rollout",
    "gradient_attention": "gradient attention",
    "attention_relevance": "attention relevance",
    "occlusion": "occlusion",
    "rise": "RISE",
    "d_rise": "D-RISE",
    "sobol": "Sobol indices",
    "extremal_perturbation": "extremal perturbation",
    "lime": "LIME",
    "kernel_shap": "Kernel SHAP",
    "random": "random",
    "edges": "edges",
    "centre": "centre",
}


def spoken(technique: str) -> str:
    """A technique's name as people write it.

    Args:
        technique: its name in code, also with settings as in `rise:masks=500`. Any other name
            is given back with spaces for underscores.

    Returns:
        Such as `Grad-CAM`, or `RISE (masks=500)`.
    """
    name, _, settings = technique.partition(":")
    words = NAMES.get(name, name.replace("_", " "))
    return f"{words} ({settings.replace(',', ', ')})" if settings else words
