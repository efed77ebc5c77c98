"""The strings under the fields of models, as descriptions in their schemas.

pydantic reads them where a model asks for it, when its class is made; that would cost every command line that searches.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel


def with_parts(models: Iterable[type[BaseModel]]) -> set[type[BaseModel]]:
    """Models and those that their fields are made of."""
    found: set[type[BaseModel]] = set()
    todo = list(models)
    while todo:
        model = todo.pop()
        if model not in found:
            found.add(model)
            todo += [part for field in model.model_fields.values() for part in _models_in(field.annotation)]
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put the strings under a model's own and inherited fields into its schema."""
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each is not BaseModel:
            for name, text in _under_fields(each).items():
                schema["properties"][name]["description"] = text


def _under_fields(model: type[BaseModel]) -> dict[str, str]:
    definition = _classes(model.__module__)[model.__name__]
    return {
        field.target.id: inspect.cleandoc(under.value.value)
        for field, under in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and field.target.id in model.model_fields
        and isinstance(under, ast.Expr)
        and isinstance(under.value, ast.Constant)
        and isinstance(under.value.value, str)
    }


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module, as they are written: parsed once, where `inspect` would parse it for each class."""
    body = ast.parse(inspect.getsource(sys.modules[module])).body
    return {statement.name: statement for statement in body if isinstance(statement, ast.ClassDef)}
