"""Write tests/peers/numbers.npz: what Captum and zennit say of small networks.

Both need PyTorch, so they run in an environment of their own, from the repository's root:

    python3 -m venv peers
    peers/bin/pip install torch==2.14.1 torchvision==0.29.1 captum==0.9.0 zennit==0.5.1
    peers/bin/python tools/peers.py

The networks and their weights are those of tests/peers/networks.py, from its seeds; the tests build
them in Keras. Maps are stored as `network/technique`, float32 `(N, 16, 16)`, added up over the
channels, and the scores that are explained as `network/scores`. `as_it_comes` is a peer unmended.
"""

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from captum.attr import DeepLift, DeepLiftShap
from captum.attr._core import deep_lift
from torch import nn
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlusFlat
from zennit.layer import Sum

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "peers"))
import networks


class Branch(nn.Module):
    def __init__(self, steps, shortcut):
        super().__init__()
        self.steps, self.shortcut, self.sum = steps, shortcut, Sum()

    def forward(self, x):
        return self.sum(torch.stack([self.steps(x), self.shortcut(x)], dim=-1))


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)  # zennit has a rule for it, and none for `x.mean`

    def forward(self, x):
        return self.pool(x).flatten(1)


class Flat(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)  # in Keras' order


class Copy(nn.Module):
    def forward(self, x):
        return x.clone()


def in_torch(name, copies=False) -> nn.Module:
    """A network of `networks` as a module, in inference mode.

    Captum loses its rule of a ReLU whose output is itself what a max-pooling takes, for both set a
    hook on one tensor; a copy in between gives each its own.
    """
    arrays = networks.numbers(name)

    def take(module, *names, order=None):
        for key in names:
            value = torch.from_numpy(next(arrays))
            value = value.permute(order) if order and value.ndim > 1 else value
            getattr(module, key).data.copy_(value)
        return module

    def of(steps):
        made = []
        for kind, about in steps:
            if kind == "conv":
                settings = {"stride": about["stride"], "groups": about["groups"]}
                half = about["kernel"] // 2
                layer = nn.Conv2d(
                    about["channels"], about["out"], about["kernel"], padding=half, **settings
                )
                made.append(take(layer, "weight", "bias", order=(3, 2, 0, 1)))
            elif kind == "dense":
                layer = nn.Linear(about["size"], about["out"])
                made.append(take(layer, "weight", "bias", order=(1, 0)))
            elif kind == "norm":
                layer = nn.BatchNorm2d(about["channels"], eps=1e-5)
                made.append(take(layer, "weight", "bias", "running_mean", "running_var"))
            elif kind == "branch":
                steps, shortcut = of(about["steps"]), of(about["shortcut"])
                made.append(Branch(steps, shortcut))
            else:
                kinds = {"relu": nn.ReLU, "relu6": nn.ReLU6, "mean": Mean, "flat": Flat}
                made.append(nn.MaxPool2d(2) if kind == "pool" else kinds[kind]())
                made += [Copy()] if copies else []
        return nn.Sequential(*made)

    return of(networks.NETWORKS[name]).eval()


def captums(name, images, baselines) -> dict:
    """DeepLIFT as it comes; and DeepLIFT and DeepSHAP with a rule for ReLU6, and with copies."""
    target = networks.TARGET
    as_it_comes = DeepLift(in_torch(name)).attribute(images, baselines[:1], target=target)
    model = in_torch(name, copies=True)
    deep_lift.SUPPORTED_NON_LINEAR[nn.ReLU6] = deep_lift.nonlinear
    mended = DeepLift(model).attribute(images, baselines[:1], target=target)
    shap = DeepLiftShap(model).attribute(images, baselines, target=target)
    del deep_lift.SUPPORTED_NON_LINEAR[nn.ReLU6]
    return {"deep_lift_as_it_comes": as_it_comes, "deep_lift": mended, "deep_shap": shap}


class Folded(SequentialMergeBatchNorm):
    """Leaves a normalisation that was folded as the identity.

    As it comes it still divides by the root of 1 + eps.
    """

    @staticmethod
    def merge_batch_norm(modules, batch_norm):
        SequentialMergeBatchNorm.merge_batch_norm(modules, batch_norm)
        batch_norm.weight.data = batch_norm.weight.data * (1 + batch_norm.eps) ** 0.5


def zennits(name, images) -> dict:
    """LRP of three composites, of the score, with normalisation folded into the convolutions.

    As it comes 1e-6 is added to whatever is divided by, to each sign's part alone too.
    """
    low, high = -torch.ones_like(images[:1]), torch.ones_like(images[:1])
    composites = {
        "epsilon_plus_flat": EpsilonPlusFlat,
        "epsilon_gamma_box": partial(EpsilonGammaBox, low=low, high=high),
        "epsilon_alpha2_beta1": EpsilonAlpha2Beta1,
    }
    one = torch.eye(networks.CLASSES)[networks.TARGET]
    maps = {}
    for rule, composite in composites.items():
        mended = composite(canonizers=[Folded()], stabilizer=1e-12)
        as_it_comes = composite(canonizers=[SequentialMergeBatchNorm()])
        for label, chosen in ((rule, mended), (f"{rule}_as_it_comes", as_it_comes)):
            with Gradient(in_torch(name), chosen) as attributor:
                _, maps[label] = attributor(images, lambda scores: scores * one)
    return maps


def main() -> None:
    images, baselines = (
        torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()
        for values in (networks.IMAGES, networks.BASELINES)
    )
    stored = {"versions": np.array([f"{p} {version(p)}" for p in ("torch", "captum", "zennit")])}
    for name in networks.NETWORKS:
        with torch.no_grad():
            stored[f"{name}/scores"] = in_torch(name)(images)[:, networks.TARGET].numpy()
        for technique, maps in (captums(name, images, baselines) | zennits(name, images)).items():
            stored[f"{name}/{technique}"] = maps.detach().sum(1).numpy()
    np.savez_compressed(networks.STORED, **stored)
    for key, values in stored.items():
        print(key, values.shape, values if values.ndim == 1 else values.sum((1, 2)))


if __name__ == "__main__":
    main()
