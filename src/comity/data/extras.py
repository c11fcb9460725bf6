"""Libraries that only some users need."""

from importlib import import_module
from typing import Any

from comity.core.errors import ConfigError


def need(module: str, extra: str) -> Any:
    """A library that comes with an extra.

    Args:
        module: its import name.
        extra: the extra of comity that brings it.

    Raises:
        ConfigError: it is not installed; says how to install it.

    Example:
        >>> need("json", "tables").dumps([1])
        '[1]'
    """
    try:
        return import_module(module)
    except ImportError as missing:
        raise ConfigError(f"{module} is needed for tables. Install it: pip install 'comity[{extra}]'") from missing
