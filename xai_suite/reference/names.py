"""What the library offers: the names of its wings, and what is said of each."""

import ast
import importlib
import inspect
import textwrap
from dataclasses import dataclass

import xai_utils

WINGS = tuple(name for name in xai_utils.__all__ if name not in ("keras", "tf"))


@dataclass(frozen=True)
class Name:
    """A public name.

    Attributes:
        wing: the wing that offers it.
        name: as it is written after the wing's: `grad_cam`, `bird_or_tree.draw`, `Detector.find`.
        thing: function, class, method or constant.
    """

    wing: str
    name: str
    thing: object

    @property
    def is_constant(self) -> bool:
        return not callable(self.thing)

    @property
    def doc(self) -> str:
        """The docstring; what a constant is."""
        if not self.is_constant:
            return inspect.getdoc(self.thing) or ""
        held = self.thing
        keys = isinstance(held, dict) and all(isinstance(key, str) for key in held)
        return ", ".join(f"`{key}`" for key in held) if keys else f"`{held!r:.300}`"

    @property
    def summary(self) -> str:
        return self.doc.partition("\n")[0]

    @property
    def signature(self) -> str:
        """How it is called, on one line, as its author wrote it; empty for what needs nothing."""
        if self.is_constant or inspect.isclass(self.thing):
            return ""
        if [*inspect.signature(self.thing).parameters] == ["self"]:  # properties among others
            return ""
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(self.thing)))
        node = ast.parse(source).body[0]
        node.body, node.decorator_list = [ast.Expr(ast.Constant(...))], []
        return ast.unparse(node).partition("\n")[0].removesuffix(":")


def names_of(wing: str) -> list[Name]:
    """The public names of a wing, functions and classes with their methods first, then constants.

    Modules that a wing offers whole are listed by what they define. TensorFlow and Keras
    themselves, which `engine` hands on, have documents of their own.
    """
    face, found = importlib.import_module(f"xai_utils.{wing}"), []
    for name in face.__all__:
        thing = getattr(face, name)
        if inspect.ismodule(thing) and thing.__name__.startswith("xai_utils."):
            for inner, part in vars(thing).items():
                if getattr(part, "__module__", "") == thing.__name__ and inner[0] != "_":
                    found += _with_methods(wing, f"{name}.{inner}", part)
        elif not inspect.ismodule(thing):
            found += _with_methods(wing, name, thing)
    return sorted(found, key=lambda name: name.is_constant)


def _with_methods(wing: str, name: str, thing) -> list[Name]:
    """A name, and the methods of its own that a class adds to those it inherits."""
    found = [Name(wing, name, thing)]
    for method, part in vars(thing).items() if inspect.isclass(thing) else ():
        part = part.fget if isinstance(part, property) else part
        part = getattr(part, "__func__", part)  # of a classmethod
        own = method[0] != "_" and not any(hasattr(base, method) for base in thing.__mro__[1:])
        if own and inspect.isfunction(part):
            found.append(Name(wing, f"{name}.{method}", part))
    return found
