"""Concept vectors, and the test whether a score depends on a concept (TCAV)."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.utils.class_weight import compute_sample_weight

from xai_utils.concepts.codes import checked_layer, codes, slopes
from xai_utils.engine import check_images, keras
from xai_utils.metrics import holm

OTHERS = 20  # times as many other pictures as a concept has, see `tcav`
CHANCE = 0.05  # that a verdict on concepts that are nothing is wrong, over all tested together
EQUAL = 1e-6  # of the largest number in a code: what rounding makes of no difference
FOLDS = 5  # of the cross-validation: as many pictures are the fewest a concept can have


class ConceptVector(NamedTuple):
    """The direction of a concept in a layer's code, and how well it tells its pictures.

    Attributes:
        vector: float32 `(K,)`, of length 1, towards the concept; a step along it changes the code
            by as much.
        accuracy: share of pictures that were held out and told rightly, concept and other pictures
            counting the same; one half is chance.
        layer: whose code it is.
    """

    vector: np.ndarray
    accuracy: float
    layer: str


class TestedConcept(NamedTuple):
    """What `tcav` found for one concept at one layer.

    Attributes:
        concept: its name.
        layer: name or path.
        score: the TCAV score: share of the pictures whose score grows with the concept, 0 to 1, the
            mean over the sets of other pictures it was told from.
        slope: how much the pictures' score grows on average with one step along the concept's
            vector, in logits per unit of the layer.
        chance: float64 `(sets,)`, the share for each random concept.
        chance_slopes: float64 `(sets,)`, the slope for each random concept.
        p: of a random concept's slope being as far from the mean of all, on either side; before
            correction.
        p_corrected: after Holm's correction over all that were tested together.
        accuracy: of the concept's vectors on pictures held out, see `ConceptVector`.
    """

    __test__ = False  # not a test, whatever pytest makes of its name

    concept: str
    layer: str
    score: float
    slope: float
    chance: np.ndarray
    chance_slopes: np.ndarray
    p: float
    p_corrected: float
    accuracy: float

    @property
    def verdict(self) -> str:
        """`counts for` or `counts against` the score, compared with random concepts, or `nothing`.

        Nothing is what chance reaches: a corrected p above 0.05.
        """
        if not self.p_corrected <= CHANCE:  # nor if p is nan
            return "nothing"
        return "counts for" if self.slope > self.chance_slopes.mean() else "counts against"


def concept_vector(
    model: keras.Model, concept, others, layer: str | None = None, seed: int = 0
) -> ConceptVector:
    """The normal of a linear classifier that tells a concept's pictures from others.

    Ridge regression of 1 for the concept and -1 for the others, which count the same; the codes
    are means over the layer's places.
    Source: Kim et al., "Interpretability beyond feature attribution: quantitative testing with
    concept activation vectors (TCAV)" (ICML 2018), section 3.2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        concept: pictures of the concept `(N, H, W, C)`, at least 5, in the model's pixel range.
        others: pictures without it, at least 5.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`, tokens that are a
            grid of places, or `(N, K)`; default the one whose map is pooled or flattened before the
            head.
        seed: of the five parts that take turns in being held out.

    Returns:
        A `ConceptVector`.

    Raises:
        ValueError: bad images, too few pictures, an unknown layer, one without a code, codes that
            are not finite, or two mean codes that are the same.
    """
    here, there = (_enough(of, codes(model, of, layer)) for of in (concept, others))
    name = checked_layer(model, check_images(model, concept).shape, layer, places=False)
    return ConceptVector(_normal(here, there), _accuracy(here, there, seed), name)


def concept_map(
    model: keras.Model, images, target=None, vector: ConceptVector | None = None
) -> np.ndarray:
    """Where the score would grow with more of a concept: its derivative by place, `dS/dA . v`.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        vector: of `concept_vector`, from a layer that returns a map.

    Returns:
        float32 maps `(N, h, w)`, signed, in logits per unit of the layer and position.

    Raises:
        ValueError: bad images or target, no vector, or a layer without spatial extent.
    """
    if not isinstance(vector, ConceptVector):
        raise ValueError(f"vector is what concept_vector returns, not {type(vector).__name__}")
    layer = checked_layer(model, check_images(model, images).shape, vector.layer)
    return slopes(model, images, target, layer) @ vector.vector


def tcav(
    model: keras.Model,
    images,
    target,
    concepts: Mapping[str, np.ndarray],
    others,
    layers: Sequence[str | None] = (None,),
    sets: int = 199,
    against: int = 3,
    seed: int = 0,
    progress: Callable | None = None,
) -> list[TestedConcept]:
    """Does a class's score depend on concepts, more than on random sets of pictures?

    The TCAV score is the share of pictures whose score grows along the concept's vector, `dS/dA . v
    > 0`. Random concepts, as many pictures drawn from half of the others, are told from the same
    `against` sets of the other half as the concept is. `p` is the rank of the concept's slope, the
    mean of `dS/dA . v`, among theirs, from the mean of all: the share itself cannot be tested, for
    under a linear head every direction's is 0 or 1. `p_corrected` counts all layers and concepts.
    Random concepts come from few pictures and are too much like each other; slightly fewer pictures
    in each make up for most of it. Of concepts that are nothing, with 20 times as many others, 5 to
    8 in 100 were found at 0.05 (300 to 400 draws each: random codes of 6, 48 and 64 channels, and
    both last layers of a small network).
    Source: Kim et al. (ICML 2018), sections 3.3 to 3.5; the paper tests shares with Student's t.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: pictures of the class whose score is asked about.
        target: the class: an index or name, or a callable `outputs -> (N,)`.
        concepts: name to pictures `(N, H, W, C)`, at least 5 each.
        others: pictures without the concepts, 20 times as many as the largest concept has, or more.
        layers: names or paths; None is the one whose map is pooled or flattened before the head.
        sets: how many random concepts; `p` is never below `1 / (sets + 1)`.
        against: sets of other pictures that each concept is told from.
        seed: of what is drawn.
        progress: called as `(done, all)`, a step for each concept and layer.

    Returns:
        A `TestedConcept` for each concept and layer, concept by concept.

    Raises:
        ValueError: bad images or target, no concept, too few pictures, an unknown layer or one
            without a code, others that are the same again, codes or slopes that are not finite, a
            concept whose mean code is the others', or so few `sets` that no corrected p could be as
            low as 0.05.
    """
    if not isinstance(concepts, Mapping):
        raise ValueError(f"concepts maps names to pictures; it is no {type(concepts).__name__}")
    if isinstance(layers, str):
        raise ValueError(f"layers is a list of layers, such as [{layers!r}], not one name")
    tests = len(concepts) * len(layers)
    if not tests:
        raise ValueError("say which concepts and which layers: tcav was given none")
    if tests > CHANCE * (sets + 1):
        raise ValueError(
            f"with {sets} random sets no p of {tests} tests, corrected, can be as low as {CHANCE}:"
            f" sets must be at least {round(tests / CHANCE) - 1}"
        )
    if not np.size(images):
        raise ValueError("images is empty: give pictures of the class whose score is asked about")
    for name, of in {**concepts, "others": others}.items():
        _enough(of, of, name)
    largest = max(map(len, concepts.values()))
    if len(others) < OTHERS * largest:
        raise ValueError(
            f"others has {len(others)} pictures and a concept {largest}, so that random concepts"
            f" would be too much like each other: give at least {OTHERS * largest}, or fewer of"
            " the concept"
        )
    found = []
    for layer in layers:
        of_class = slopes(model, images, target, layer)
        of_class = of_class.sum(axis=tuple(range(1, of_class.ndim - 1)))
        code_of_others = codes(model, others, layer)
        if (different := len(np.unique(code_of_others, axis=0))) < OTHERS * largest:
            raise ValueError(
                f"others has {len(others)} pictures, but only {different} different codes at layer"
                f" {layer!r}: the same pictures again are no more pictures"
            )
        name = checked_layer(model, check_images(model, images).shape, layer, places=False)
        chance = {}  # concepts of as many pictures share their random concepts
        for concept, pictures in concepts.items():
            count = len(pictures)
            if count not in chance:
                rng = np.random.default_rng([seed, count])
                chance[count] = _chance(count, code_of_others, of_class, sets, against, rng)
            tested = _tested(codes(model, pictures, layer), of_class, *chance[count])
            found.append(TestedConcept(concept, name, *tested))
            if progress:
                progress(len(found), tests)
    corrected = holm([tested.p for tested in found])
    found = [one._replace(p_corrected=float(p)) for one, p in zip(found, corrected, strict=True)]
    return sorted(found, key=lambda tested: [*concepts].index(tested.concept))


def _chance(count, others, of_class, sets, against, rng) -> tuple[list, np.ndarray]:
    """Sets of other pictures to be told from, and how the score grows with random concepts.

    These come from few pictures, so their means spread around the mean of those, less than the mean
    of new pictures does, as 1 / n to 1 / n + 1 / m: slightly fewer pictures each make up for it.
    """
    told_from, drawn_from = np.array_split(rng.permutation(len(others)), 2)
    counterparts = [others[rng.choice(told_from, count, replace=False)] for _ in range(against)]
    fewer = round(1 / (1 / count + 1 / len(drawn_from)))
    random = [others[rng.choice(drawn_from, fewer)] for _ in range(sets)]
    return counterparts, np.array([_growth(of_class, one, counterparts) for one in random])


def _growth(of_class, concept, counterparts) -> list[np.ndarray]:
    """The derivative along the concept's vectors, `(counterparts, pictures)`."""
    return [of_class @ _normal(concept, other) for other in counterparts]


def _tested(concept, of_class, counterparts, random) -> tuple:
    """What a `TestedConcept` holds of one concept at one layer, not corrected yet."""
    growth = np.array([_growth(of_class, concept, counterparts), *random])
    shares, slopes_ = (growth > 0).mean(axis=(1, 2)), growth.mean(axis=(1, 2))
    away = np.abs(slopes_ - slopes_.mean())
    p = float((away >= away[0]).mean())  # the concept counts as one of them
    accuracy = float(np.mean([_accuracy(concept, other, 0) for other in counterparts]))
    return float(shares[0]), float(slopes_[0]), shares[1:], slopes_[1:], p, p, accuracy


def _normal(concept: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The unit normal towards the concept."""
    codes_, kinds = _labelled(concept, others)
    apart = np.abs(concept.mean(axis=0, dtype=float) - others.mean(axis=0, dtype=float)).max()
    if apart <= EQUAL * np.abs(codes_).max():
        raise ValueError(
            "the concept's pictures and the others have the same mean code, so there is no"
            " direction from these to those: are they the same pictures?"
        )
    normal = _ridge(codes_).fit(codes_, kinds, compute_sample_weight("balanced", kinds)).coef_
    return (normal / np.linalg.norm(normal)).astype(np.float32)


def _accuracy(concept: np.ndarray, others: np.ndarray, seed: int) -> float:
    codes_, kinds = _labelled(concept, others)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    weight = {"sample_weight": compute_sample_weight("balanced", kinds)}
    told = cross_val_predict(_ridge(codes_), codes_, kinds, cv=folds, params=weight)
    return float(balanced_accuracy_score(kinds, np.where(told > 0, 1, -1)))


def _ridge(codes_: np.ndarray) -> Ridge:
    """Its penalty weighs as much as the error: a layer has more channels than there are pictures.

    It is one number for all channels, in the codes' own units: a channel that hardly varies says
    little, however well it tells the pictures apart.
    """
    return Ridge(len(codes_) * float(codes_.var(axis=0).mean()))


def _labelled(concept, others) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([concept, others]), np.repeat([1, -1], [len(concept), len(others)])


def _enough(pictures, found, name: str = "a concept, and the others,"):
    if len(pictures) < FOLDS:
        raise ValueError(f"{name} needs at least {FOLDS} pictures, not {len(pictures)}")
    return found
