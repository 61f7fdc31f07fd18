"""TensorRT's real Python classes on a machine without its libraries, and stand-ins that are as strict as they are.

`real_tensorrt` imports the bindings over three stub libraries. A `Stand` takes the place of one object of a real class:
it has the real attributes only, and its methods take what the real docstring signatures say, by name, number and type.
"""

import ctypes
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
"""Everything that the bindings need from the libraries; all of it returns a null pointer here."""


def real_tensorrt(folder: Path):
    """Return the module with TensorRT's classes: the installed TensorRT, or the bindings over stubs in `folder`."""
    for name in ("tensorrt", "tensorrt_bindings"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the stubs of TensorRT's libraries")
    if not sys.platform.startswith("linux"):
        pytest.skip("TensorRT's bindings are for Linux")
    source = folder / "stub.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for library in LIBRARIES:
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        ctypes.CDLL(str(folder / library))
    return importlib.import_module("tensorrt_bindings")


class Stand:
    """Stands in for an object of a real TensorRT class."""

    def __init__(self, trt, kind: str, **behaviour):
        """Take the place of `trt.<kind>`.

        Args:
            trt: the real module.
            kind: name of the class.
            behaviour: method -> function with the same arguments, or property -> value. A method without one may not
                be called, a property without one may not be read before it is set.
        """
        cls = getattr(trt, kind)
        for name in behaviour:
            assert hasattr(cls, name), f"TensorRT's {kind} has no {name}"
        self.__dict__.update(_trt=trt, _kind=kind, _class=cls, _behaviour=behaviour)

    def __getattr__(self, name):
        if not hasattr(self._class, name):
            raise AttributeError(f"TensorRT's {self._kind} has no {name}")
        if name not in self._behaviour:
            raise AssertionError(f"this test gives {self._kind}.{name} no behaviour")
        value = self._behaviour[name]
        real = inspect.getattr_static(self._class, name)
        return value if isinstance(real, property) else strict(self._trt, f"{self._kind}.{name}", real.__doc__, value)

    def __setattr__(self, name, value):
        real = inspect.getattr_static(self._class, name, None)
        if not isinstance(real, property) or real.fset is None:
            raise AttributeError(f"TensorRT's {self._kind} has no {name} that can be set")
        (signature,) = signatures(self._trt, f"x{real.fset.__doc__}")
        self._call_setter(signature, name, value)

    def _call_setter(self, signature, name, value):
        wanted = list(signature.parameters.values())[-1].annotation
        if not fits(self._trt, value, wanted):
            raise TypeError(f"{self._kind}.{name} takes {wanted}, got {value!r}")
        self._behaviour[name] = value


def strict(trt, name: str, doc: str, function):
    """Return `function` behind the signatures of a real method's docstring; arguments and result must fit them."""
    allowed = signatures(trt, doc)

    def call(*args, **kwargs):
        for signature in allowed:
            try:
                bound = signature.bind(None, *args, **kwargs)
            except TypeError:
                continue
            kinds = {key: parameter.annotation for key, parameter in signature.parameters.items()}
            if all(fits(trt, value, kinds[key]) for key, value in bound.arguments.items() if key != "self"):
                result = function(*args, **kwargs)
                assert fits(trt, result, signature.return_annotation), f"{name} returns {signature.return_annotation}"
                return result
        raise TypeError(f"{name} takes {[str(s) for s in allowed]}, got {args} {kwargs}")

    return call


def signatures(trt, doc: str) -> list[inspect.Signature]:
    """Read the signatures that pybind11 writes into a docstring: one line, or one numbered line per overload."""
    lines = re.findall(r"^(?:\d+\. )?\w+\((.*)\) -> (.+)$", doc, flags=re.MULTILINE)
    assert lines, f"no signature in {doc!r}"
    made = []
    for arguments, result in lines:
        parameters = []
        for text in split(arguments):
            declared, _, default = text.partition(" = ")
            name, _, kind = declared.partition(": ")
            empty = inspect.Parameter.empty
            kept = default if default else empty
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=kept, annotation=kind)
            )
        made.append(inspect.Signature(parameters, return_annotation=result))
    return made


def split(text: str) -> list[str]:
    """Cut at the commas that are in no bracket."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def fits(trt, value, kind: str) -> bool:
    """Whether pybind11 would take a value for a type as it is written in a docstring."""
    if kind.startswith("list["):
        return isinstance(value, list) and all(fits(trt, item, kind[5:-1]) for item in value)
    if kind == "None":
        return value is None
    simple = {"str": str, "bool": bool, "tuple": tuple, "list": list, "int": int}
    if kind in simple:
        return isinstance(value, simple[kind])
    if kind == "typing.SupportsInt":
        return isinstance(value, typing.SupportsInt)
    if kind == "typing_extensions.Buffer":
        return isinstance(value, bytes | bytearray | memoryview)
    name = {"IParserError": "ParserError"}.get(re.split(r"\.|::", kind)[-1], re.split(r"\.|::", kind)[-1])
    if name == "Dims":
        return isinstance(value, tuple | list) and all(isinstance(size, int) for size in value)
    if name == "IHostMemory":
        return value is None or isinstance(value, bytes | Stand)
    if isinstance(value, Stand):
        return value._kind == name
    cls = getattr(trt, name, None)
    assert cls is not None, f"TensorRT has no {name}, of which {kind} speaks"
    pointer = name.startswith("I") or name in ("Builder", "Runtime")
    return isinstance(value, cls) or (value is None and pointer)
