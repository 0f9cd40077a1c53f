"""Networks, and what is inside them.

`load_model` brings a classifier (pixels in, logits out) or the detector; layers are found and
recorded by name; a target says which score is explained. `small_networks`,
`small_transformer` and `small_kinds` train on `pictures.bird_or_tree` scenes within seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        "efficientnet_lite",
        "small_kinds",
        "small_networks",
        "small_segmentation",
        "small_transformer",
        "ssd_mobilenet",
    ],
    {
        "applications": ["APPLICATIONS", "local_weights"],
        "attending": ["capture_attention"],
        "black_box": ["black_box"],
        "boxes": ["EDGES", "SIZES", "decode", "in_pixels", "measure", "overlaps"],
        "capturing": [
            "activates",
            "capture",
            "capture_before_activation",
            "code_at",
            "outputs_from",
        ],
        "cards": ["TYPED", "extended", "files_of", "own_cards", "read_card", "typed", "write_card"],
        "dense": ["component", "pixel", "places", "region"],
        "detection": [
            "Detection",
            "Detector",
            "all_boxes",
            "box_class",
            "box_edge",
            "box_objectness",
            "box_size",
            "choose",
            "follow",
        ],
        "endings": [
            "TASKS",
            "function_of",
            "is_dense",
            "pixel_classes",
            "probabilities",
            "still_says",
            "task_of",
        ],
        "efficientnet_lite": ["VARIANTS", "enlarged"],
        "first_look": [
            "Tried",
            "better_order",
            "described",
            "labelled",
            "marked",
            "truth",
            "try_inputs",
            "write_example",
        ],
        "foreign": ["BlackBox", "fingerprint"],
        "inputs": ["PREPROCESSING", "Preprocess"],
        "labels": [
            "class_index",
            "class_names",
            "coco_labels",
            "imagenet_labels",
            "imagenet_wnids",
            "model_class",
            "name_classes",
            "read_labels",
        ],
        "layers": ["ATTENTION", "find_layer", "replaced_calls", "up_to", "walk"],
        "load": ["DETECTOR", "EMBEDDED", "Classifier", "load_model", "return_networks"],
        "maps": [
            "NEED_ONLY_SCORES",
            "check_layer",
            "default_layer",
            "map_layers",
            "read_tokens",
            "stages",
        ],
        "shapes": ["is_spatial", "layer_shape", "output_shapes"],
        "targets": [
            "check_target",
            "fixed_target",
            "logits_of",
            "outputs_of",
            "score",
            "scores",
            "target_classes",
        ],
    },
)
