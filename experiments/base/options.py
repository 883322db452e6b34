"""Option groups: frozen dataclasses whose fields carry a type, a default, a help text and an allowed range.

A group is written once and read by exactly one owner: an encoder, a pooler, a task, the head or the optimiser. The same
annotations make the command line, the JSON form and the checks.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from experiments.base.errors import UsageError, unknown


@dataclasses.dataclass(frozen=True)
class Interval:
    """The allowed values of a number, written as in mathematics: `Interval("(0, 1]")`."""

    text: str

    def __contains__(self, value: float) -> bool:
        low, high = (float(end) for end in self.text[1:-1].split(","))
        above = value >= low if self.text[0] == "[" else value > low
        below = value <= high if self.text[-1] == "]" else value < high
        return above and below


@dataclasses.dataclass(frozen=True)
class Mark:
    """What a field's annotation says of results: `Annotated[Path | None, NOT_DECISIVE]`."""

    kind: Literal["not decisive", "repeat", "added", "decides the objective"]
    before: Any = None

    def leaves_out(self, value: Any) -> bool:
        """Tell whether a value is left out of what decides a result."""
        return self.kind == "not decisive" or (self.kind == "added" and value == self.before)


NOT_DECISIVE = Mark("not decisive")
"""The option does not decide a result: where data lie, on which devices a run trains."""
REPEAT = Mark("repeat")
"""The option tells the runs of one configuration apart: the seed, the fold."""
DECIDES_OBJECTIVE = Mark("decides the objective")
"""The option of a task decides what is learned where no objective is named."""


def added(before: Any) -> Mark:
    """Mark an option that came later: at the value that stands for how it was before, it is left out of names.

    So cells and checkpoints that are older than the option keep their names.
    """
    return Mark("added", before)


def marks(hint: Any) -> list[Mark]:
    """Return the marks of an annotation."""
    return [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Mark)]


def flag(path: str) -> str:
    """Return the command-line name of a field: `pool.p_init` -> `--pool.p-init`."""
    return "--" + path.replace("_", "-")


def leaves(options: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted name, annotation, value) of every field, groups entered in order."""
    hints = get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hints[field.name], value


def validate(options: Any) -> None:
    """Raise UsageError at the first value that lies outside its interval."""
    for path, hint, value in leaves(options):
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Interval) and value not in mark:
                raise UsageError(f"{flag(path)} {value} is outside its range: choose a value in {mark.text}.")


def to_dict(options: Any) -> dict[str, Any]:
    """Return the nested dictionary that JSON can hold."""
    result = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, tuple):
            value = [str(each) if isinstance(each, Path) else each for each in value]
        result[field.name] = str(value) if isinstance(value, Path) else value
    return result


def from_dict(default: Any, values: Any, prefix: str = "") -> Any:
    """Return `default` with the given values; an unknown key or a wrong type is an error, an absent key is not."""
    if not isinstance(values, dict):
        raise UsageError(f"{prefix.rstrip('.')} must be a JSON object, got {type(values).__name__}.")
    hints = get_type_hints(type(default))
    names = [field.name for field in dataclasses.fields(default)]
    for key in values:
        if key not in names:
            raise unknown("configuration key", prefix + key, [prefix + name for name in names])
    changes = {}
    for key, value in values.items():
        group = getattr(default, key)
        if dataclasses.is_dataclass(group):
            changes[key] = from_dict(group, value, f"{prefix}{key}.")
        else:
            changes[key] = _checked(value, hints[key], prefix + key)
    return dataclasses.replace(default, **changes)


def _checked(value: Any, hint: Any, path: str) -> Any:
    """Return a JSON value as the annotated type, or raise."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise unknown(f"value of {path}", str(value), get_args(hint))
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and NoneType in allowed:
        return None
    if Path in allowed and isinstance(value, str) and "\0" not in value:
        return Path(value)
    if float in allowed and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if type(value) in allowed:
        return value
    names = " or ".join(kind.__name__ for kind in allowed)
    raise UsageError(f"configuration key {path!r} must be {names}, got {value!r}.")


def decisive(options: Any) -> dict[str, Any]:
    """Return the options that decide a result, by dotted name."""
    return {
        path: value for path, hint, value in leaves(options) if not any(mark.leaves_out(value) for mark in marks(hint))
    }


def changes(options: Any, default: Any) -> dict[str, Any]:
    """Return the deciding options that differ from the default, by dotted name."""
    before = decisive(default)
    return {path: value for path, value in decisive(options).items() if value != before.get(path, ...)}


def repeats(options: Any) -> set[str]:
    """Return the names of the options that tell the runs of one configuration apart, as `seed`."""
    return {path for path, hint, _ in leaves(options) if REPEAT in marks(hint)}


def deciding(options: Any) -> set[str]:
    """Return the names of the options that decide the objective."""
    return {path for path, hint, _ in leaves(options) if DECIDES_OBJECTIVE in marks(hint)}


def changed(options: Any, default: Any) -> str:
    """Return the options that differ from the default, without seed and fold, as text: "a.b=3, c=4"."""
    apart = repeats(options)
    return in_words({path: value for path, value in changes(options, default).items() if path not in apart})


def in_words(values: dict[str, Any]) -> str:
    """Return options as text: "a.b=3, c=4"."""
    return ", ".join(f"{path}={value}" for path, value in values.items())


def as_arguments(values: dict[str, Any]) -> list[str]:
    """Return the command line that sets options by their dotted names."""
    arguments = []
    for path, value in values.items():
        group, _, name = path.rpartition(".")
        if value is False:
            arguments.append(flag(f"{group}.no_{name}".lstrip(".")))
        else:
            arguments += [flag(path)] if value is True else [flag(path), str(value)]
    return arguments
