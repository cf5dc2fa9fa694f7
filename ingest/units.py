"""Split units (I6): which files belong together on one side of the train, validation and test split."""

from collections.abc import Iterable, Mapping

from sourcecode.fingerprints import stable_share

# From the coarsest to the finest.
LEVELS = ("repository", "top", "directory", "file")


def unit_prefix(level: str, path: str) -> str:
    """Return the part of a path that names its unit; the whole repository's is empty."""
    if level == "repository":
        return ""
    if level == "top":
        return path.partition("/")[0]
    return (path.rpartition("/")[0] or ".") if level == "directory" else path


def count_units(paths: Iterable[str]) -> dict[str, int]:
    """Count the units that paths make at each level."""
    seen: dict[str, set[str]] = {level: set() for level in LEVELS}
    for path in paths:
        for level, prefixes in seen.items():
            prefixes.add(unit_prefix(level, path))
    return {level: len(prefixes) for level, prefixes in seen.items()}


def decide_level(num_units: Mapping[str, int], *, origin: str, min_units: int) -> str:
    """Return the coarsest level with enough units, the finest if none has; a crawled source is one unit."""
    if origin == "crawler":
        return "repository"
    return next((level for level in LEVELS if num_units.get(level, 0) >= min_units), LEVELS[-1])


def make_unit(key: str, level: str, path: str) -> str:
    """Return the unit's name, unique over all sources."""
    return f"{key}:{unit_prefix(level, path)}"


def decide_split(unit: str, *, train_share: float, validation_share: float) -> str:
    """Return train, validation or test by the unit's name alone: the same on every machine and in every year."""
    share = stable_share(unit)
    if share < train_share:
        return "train"
    return "validation" if share < train_share + validation_share else "test"
