"""Reading a config: YAML without surprises, overrides, relative paths, and every problem at once, by file and key."""

from __future__ import annotations

import difflib
import os
import typing
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from stpatch.config import REFERENCE_PACKAGES, Config
from stpatch.errors import ConfigError, StpatchError, one_or_many


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, and texts with a NUL, which no path may hold."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if "\0" in text:
        raise yaml.constructor.ConstructorError(None, None, "a text holds a NUL character", node.start_mark)
    return text


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, _text)


def load_config(path: Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read, override and validate a config.

    Parameters
    ----------
    path
        The YAML file. Relative paths in it are taken from its folder.
    overrides
        ``section.key=value`` texts, the value parsed as YAML.

    Raises
    ------
    ConfigError, ProblemsError
        Every problem at once, each with file and key.
    """
    if not path.is_file():
        what = "the config is a folder" if path.is_dir() else "there is no such config"
        raise ConfigError(what, where=path, hint="name an existing file; stpatch init makes one")
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the config is not valid YAML",
            where=path,
            found=" ".join(str(error).split()),
            hint="correct the line that is named: indent with spaces, and put a space after every colon",
        ) from error
    if not isinstance(values, dict):
        raise ConfigError("the config is not a mapping", where=path, expected="sections, at least dataset and slides")
    for text in overrides:
        _override(values, text)
    return parse_config(values, where=path, base=path.parent)


def parse_config(values: dict[str, Any], *, where: object = "config", base: Path | None = None) -> Config:
    """Validate plain values; relative paths are taken from `base`."""
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise one_or_many([_problem(items, where) for items in _by_key(error)]) from None
    if base is not None:
        config = _anchored(config, base)
    _check_folders(config, where)
    return config


def _check_folders(config: Config, where: object) -> None:
    output = Path(os.path.normpath(config.output_folder.absolute()))
    if not output.name:
        raise ConfigError(
            "the dataset cannot be the root folder",
            where=f"{where}, key dataset.output",
            found=output,
            hint="name a folder of its own: dataset.output",
        )
    work = Path(os.path.normpath(config.work_dir.absolute()))
    if work.is_relative_to(output):
        raise ConfigError(
            "the work dir lies in the dataset's folder",
            where=f"{where}, key dataset.work_dir",
            found=f"{work} in {output}",
            hint="choose a dataset.work_dir outside of dataset.output, or leave it out",
        )


def _override(values: dict[str, Any], text: str) -> None:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError("an override has no value", where="--set", found=text, expected="section.key=value")
    *parents, last = key.split(".")
    place = values
    for name in parents:
        child = place.setdefault(name, {})
        if not isinstance(child, dict):
            child = place[name] = {}
        place = child
    try:
        place[last] = yaml.load(value, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(
            "an override is not valid YAML",
            where=f"--set {key}",
            found=" ".join(str(error).split()),
            hint="quote the value: --set 'section.key=value'",
        ) from error


def _by_key(error: ValidationError) -> list[list[Any]]:
    """Group what is wrong by key: a key of several allowed forms is one problem, not one a form."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    for item in error.errors():
        groups.setdefault(tuple(_keys(item)), []).append(item)
    return list(groups.values())


_EXPECTED = {
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a section: keys with values",
    "dict_type": "keys with values",
    "path_type": "a path",
}
"""What pydantic's names of Python types are in YAML."""


def _problem(items: list[Any], where: object) -> StpatchError:
    """Return the problem of one key; several items say the forms that it may have."""
    item = items[0]
    keys = _keys(item)
    key = ".".join(keys) or "(whole config)"
    place = f"{where}, key {key}"
    if item["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.5)
        return ConfigError(
            f"unknown key {keys[-1]!r}",
            where=place,
            expected=f"one of {', '.join(known)}" if known else None,
            hint=f"did you mean {near[0]!r}?" if near else "remove it",
        )
    if item["type"] == "missing":
        return ConfigError(
            f"key {key} is required", where=place, hint="add it; stpatch init writes a config with every key"
        )
    messages = [_EXPECTED.get(item["type"], str(item["msg"])).removeprefix("Value error, ") for item in items]
    found = None if item["type"] == "value_error" else repr(item["input"])
    return ConfigError(f"key {key} is not valid", where=place, found=found, expected="; or: ".join(messages))


def _keys(item: Any) -> list[str]:
    """Return a problem's keys, without the names that pydantic adds for the branches of a union."""
    keys = [str(part) for part in item["loc"]]
    end = len(keys) - (item["type"] == "extra_forbidden")  # the user's own word, whatever it looks like
    branches = ("str", "int", "float")
    visible = [key for key in keys[:end] if "[" not in key and not key.startswith("constrained-")]
    return [key for key in visible if key not in branches] + keys[end:]


def _known_keys(keys: list[str]) -> list[str]:
    model: type[BaseModel] = Config
    for key in keys:
        field = model.model_fields.get(key)
        if field is None:
            return []
        kinds = [field.annotation, *typing.get_args(field.annotation)]
        nested = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _anchored(config: Config, base: Path) -> Config:
    """Take the config's relative paths from the config's folder."""

    def at(path: Path | None) -> Path | None:
        return None if path is None else base / path.expanduser()

    output = config.dataset.output
    if isinstance(output, str):  # a URL: what is local lies beside the config
        place: dict[str, Any] = {"output": output, "work_dir": at(config.work_dir)}
    else:
        place = {"output": at(output), "work_dir": at(config.dataset.work_dir)}

    place["extends"] = at(config.dataset.extends)

    def genes_at(genes: Any) -> Any:
        return at(genes) if isinstance(genes, Path) else genes

    candidates = config.channels.candidates
    if candidates is not None:
        candidates = candidates.model_copy(update={"genes": genes_at(candidates.genes)})
    genes = config.ingest.genes
    return config.model_copy(
        update={
            "dataset": config.dataset.model_copy(update=place),
            "slides": config.slides.model_copy(update={"sheet": at(config.slides.sheet), **_slides_at(config, base)}),
            "ingest": config.ingest.model_copy(
                update={
                    "genes": genes.model_copy(
                        update={
                            "map": at(genes.map),
                            "vocabulary": at(genes.vocabulary),
                            "reference": _reference_at(genes.reference, base),
                        }
                    )
                }
            ),
            "channels": config.channels.model_copy(
                update={"genes": genes_at(config.channels.genes), "candidates": candidates}
            ),
            "crop": config.crop.model_copy(update={"exclude": at(config.crop.exclude)}),
        }
    )


def _reference_at(reference: str | None, base: Path) -> str | None:
    """Return the gene reference's path; the name of a package that ships one stays as it is."""
    if reference is None or reference in REFERENCE_PACKAGES:
        return reference
    return str(base / Path(reference).expanduser())


def _slides_at(config: Config, base: Path) -> dict[str, Any]:
    slides = config.slides
    if slides.glob is not None:
        globs = [slides.glob] if isinstance(slides.glob, str) else slides.glob
        return {"glob": [str(base / glob) for glob in globs]}
    if slides.entries is not None:
        return {"entries": [entry.model_copy(update={"path": str(base / entry.path)}) for entry in slides.entries]}
    return {}
