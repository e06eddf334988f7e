"""Hooks that other packages bring, by entry point. Their node types are found by `schemas.custom`."""

from __future__ import annotations

from importlib.metadata import entry_points

from schemas.errors import SettingsError
from workers.engine.hooks import Hook

HOOKS = "flo.hooks"


def load_hooks() -> tuple[Hook, ...]:
    """Make one of each installed hook class, in the order of their names. Raises SettingsError for one that breaks."""
    hooks: list[Hook] = []
    for entry in sorted(entry_points(group=HOOKS), key=lambda entry: entry.name):
        try:
            hook = entry.load()()
        except Exception as mistake:  # anyone's code, at import
            what = f'the hook "{entry.name}" ({entry.value}) can\'t be loaded: {type(mistake).__name__}: {mistake}'
            raise SettingsError(f"{what}; mend or uninstall its package") from mistake
        if not isinstance(hook, Hook):
            raise SettingsError(
                f'the hook "{entry.name}" ({entry.value}) must be a subclass of workers.engine.hooks.Hook; given '
                f"{type(hook).__name__}"
            )
        hooks.append(hook)
    return tuple(hooks)
