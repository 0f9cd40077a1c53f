"""Ask public programs of two groups for the attention maps of a small random transformer, once.

Run by a developer, never at run time, in an environment of its own:

    pip install torch einops numpy
    git clone https://github.com/jacobgil/vit-explain
    git clone https://github.com/hila-chefer/Transformer-Explainability
    git clone https://github.com/hila-chefer/Transformer-MM-Explainability
    python tools/attention_of_peers.py vit-explain Transformer-Explainability \
        Transformer-MM-Explainability

It writes `tests/peers/attention.npz`, with which `tests/peers/test_attention_of_peers.py` compares.
Their code is imported from where it lies and is no part of this project. What each one gives:

- `vit_rollout.py` of vit-explain: attention rollout, scaled to 1; heads by mean, and by max.
- `ViT_explanation_generator.py` of Transformer-Explainability: attention rollout. Its `ViT_new.py`
  is the network of all of them, with weights of our own.
- `Transformer_MM_explainability_ViT.ipynb` of Transformer-MM-Explainability: the relevance of
  Chefer, Gur & Wolf (ICCV 2021) in the cell that defines `generate_relevance`.

The stored numbers are of torch 2.13.0 and the files at vit-explain 1d68f22, Transformer-
Explainability 6b4f311 and Transformer-MM-Explainability 2f4172d. `helpers.py` and `weight_init.py`
of Transformer-Explainability, which load and draw weights, were stand-ins then: all weights are
drawn here.
"""

import argparse
import gc
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

STORED = Path(__file__).resolve().parent.parent / "tests" / "peers" / "attention.npz"
SIZE, PATCH, WIDTH, HEADS, DEPTH, CLASSES = 16, 4, 12, 3, 3, 5
PICTURES, CLASS = 2, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("vit_explain", "explainability", "mm_explainability"):
        parser.add_argument(name, type=Path, help="a clone of the repository")
    given = parser.parse_args()
    _without_pictures()
    sys.path[:0] = [str(given.vit_explain), str(given.explainability)]
    from baselines.ViT.ViT_explanation_generator import GradCam
    from baselines.ViT.ViT_new import VisionTransformer
    from vit_rollout import VITAttentionRollout

    relevance = _of_a_notebook(given.mm_explainability / "Transformer_MM_explainability_ViT.ipynb")
    model = _network(VisionTransformer)
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand((PICTURES, 3, SIZE, SIZE), generator=generator)
    found = {"logits": model(pictures).detach().numpy()}
    each = pictures.split(1)  # all of them take one picture
    for heads in ("mean", "max"):
        rollout = VITAttentionRollout(model, head_fusion=heads, discard_ratio=0)
        found[f"vit_explain_{heads}"] = np.stack([rollout(one) for one in each])
    rollout = GradCam(model).generate_rollout
    found["chefer_rollout"] = np.concatenate([rollout(one).numpy() for one in each])
    found["chefer_relevance"] = np.stack([relevance(model, one, CLASS).numpy() for one in each])
    weights = {f"weights/{key}": value.numpy() for key, value in model.state_dict().items()}
    np.savez_compressed(STORED, pictures=pictures.permute(0, 2, 3, 1).numpy(), **found, **weights)
    print(f"{STORED}: {', '.join(found)}")


def _without_pictures() -> None:
    """Let what is imported to read and draw pictures, and a GPU, be missing."""
    for name, part in (("cv2", ""), ("PIL", "Image"), ("torchvision", "transforms")):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
            setattr(sys.modules[name], part, None)
    torch.Tensor.cuda = lambda self: self


def _of_a_notebook(path: Path):
    """`generate_relevance`, as a cell of the notebook defines it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (source,) = [
        "".join(c["source"]) for c in cells if "def generate_relevance" in "".join(c["source"])
    ]
    names = {"torch": torch, "np": np, "gc": gc}
    exec(source, names)
    return names["generate_relevance"]


def _network(kind) -> torch.nn.Module:
    """A transformer whose attention is far from even: its weights are larger than first weights."""
    model = kind(SIZE, PATCH, 3, CLASSES, WIDTH, DEPTH, HEADS, mlp_ratio=2, qkv_bias=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=generator))
    return model.eval()


if __name__ == "__main__":
    main()
