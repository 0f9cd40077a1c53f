"""What a notebook hands to its report: numbers, sentences about them, and that it ends here."""

import math
from html import escape

RECORD = "application/vnd.xai-utils.record+json"
USED = "application/vnd.xai-utils.used+json"
LONGEST = 80  # characters of a recorded string


def record(**numbers):
    """Show `name = value` for each number and keep them for the report.

    Call it as `record(peak_inside=0.94, top="umbrella")`.

    Args:
        numbers: finite numbers (NumPy scalars and one-element tensors too), kept to 4 significant
            digits so that reruns agree, or one-line strings of at most 80 characters.

    Raises:
        ValueError: no number at all, or a value that is neither; the first of them is named.
    """
    from IPython.display import display

    clean = {name: _clean(name, value) for name, value in numbers.items()}
    if not clean:
        raise ValueError("record() needs at least one name=value")
    text = "\n".join(f"{name} = {show_value(value)}" for name, value in clean.items())
    display({RECORD: clean, "text/plain": text}, raw=True)


def used(**values):
    """Say what took the place of parameters, for a notebook that is given earlier results.

    The report's head, table and card show these in place of the parameters that counted for
    nothing.

    Args:
        values: one-line strings by the parameter's name, `model="vgg19", image="22 pictures of the
            results"`.

    Raises:
        ValueError: one that is no line of text.
    """
    from IPython.display import display

    for name, value in values.items():
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ValueError(f"used: {name} must be one line of text, got {value!r:.80}")
    text = "\n".join(f"{name}: {value}" for name, value in values.items())
    display({USED: values, "text/plain": text}, raw=True)


def counted(number, thing: str) -> str:
    """A number and what it counts, in the plural unless it is 1, for a sentence of a run.

    Args:
        number: how many, any number type.
        thing: what is counted, in the singular; its plural takes an s.

    Returns:
        Such as `1 picture` or `3 pictures`.

    Example:
        >>> counted(1, "grey level"), counted(0.5, "grey level")
        ('1 grey level', '0.5 grey levels')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"


def text(sentence: str) -> None:
    """Show a sentence that this run computed, set as prose: `text(f"{share:.0%} lies inside.")`.

    What is written in Markdown says the same of every picture and every network; a sentence about a
    result belongs here. Nothing in it is markup, so that names such as `block6a_expand_relu` stay
    as they are. Line breaks and repeated spaces count as one space.

    Args:
        sentence: one or more sentences, of at least one letter.

    Raises:
        ValueError: nothing but spaces.
    """
    from IPython.display import display

    sentence = " ".join(sentence.split())
    if not sentence:
        raise ValueError("text: there is nothing to say, give at least one sentence")
    display(
        {"text/html": f"<p>{escape(sentence, quote=False)}</p>", "text/plain": sentence}, raw=True
    )


class Ended(Exception):
    """Not a failure: a notebook says in one line why it goes no further; see `end`."""

    def _render_traceback_(self):  # IPython shows this in place of a traceback
        return [str(self)]


def end(why):
    """End the notebook here, well.

    JupyterLab's "run all" stops and shows the line. A report consists of what came before, with the
    line as a note, and counts as done.

    Args:
        why: one line, such as "The network does not see a cat, so there is no cat to explain."

    Raises:
        Ended: always, with that line.
        ValueError: `why` is not one line.
    """
    if not why.strip() or not why.isprintable():
        raise ValueError(f"end: say why in one line, not {why[:LONGEST]!r}")
    raise Ended(why)


def one_answer_only(classifier, notebook: str):
    """End the notebook here, well, if its network answers at every pixel.

    Args:
        classifier: of `models.load_model`.
        notebook: its number, as the line names it.

    Raises:
        Ended: the network's answers are no single one for a picture.
    """
    if classifier.dense:
        end(
            f"{notebook} asks for one answer a picture; {classifier.name} answers at every pixel:"
            " see 53"
        )


def _clean(name, value):
    if not name.isidentifier():
        raise ValueError(f"record: {name!r} is not a name; use letters, digits and _")
    if hasattr(value, "numpy"):  # an eager tensor
        value = value.numpy()
    if (
        hasattr(value, "item") and getattr(value, "size", 1) == 1
    ):  # a NumPy scalar or one-element array
        value = value.item()
    if isinstance(value, str):
        if not value or len(value) > LONGEST or not value.isprintable():
            raise ValueError(
                f"record: {name} must be one line of 1 to {LONGEST} characters, got"
                f" {value[:LONGEST]!r}"
            )
        return value
    if isinstance(value, (bool, int)):
        return value
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError(
            f"record: {name} must be a finite number or a short string, got {value!r:.80}"
        )
    return float(f"{value:.4g}") + 0.0  # + 0.0 turns -0.0 into 0.0


def show_value(value):
    """A parameter or a number as people write it.

    Args:
        value: of any type.

    Returns:
        Its text.

    Example:
        >>> show_value(12350.0), show_value("")
        ('12350', "''")
    """
    if isinstance(value, str):
        return value or "''"
    return repr(value).removesuffix(".0") if isinstance(value, float) else repr(value)
