"""What can go wrong in an export, with the exit code that the command gives for it."""

from collections.abc import Callable


class ExportError(Exception):
    """One line for the user; `code` is the exit code."""

    code = 1


class UsageError(ExportError):
    """The request makes no sense as given."""

    code = 2


class InputError(ExportError):
    """A file or folder that was given cannot be used."""

    code = 3


class BundleError(ExportError):
    """A bundle that was given cannot be used."""

    code = 4


def refuse_keys(
    name: str, problems: dict[str, list[str]], show: Callable[[list[str]], str]
) -> None:
    """Raises where keys of a state dict do not fit: kind of problem → keys, told by `show`."""
    told = [f"{len(keys)} keys {what} ({show(keys)})" for what, keys in problems.items() if keys]
    if told:
        raise InputError(f"{name}: {'; '.join(told)}")


def listing(items: list[str], limit: int = 4) -> str:
    """`a, b, c, d and 7 more`"""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
