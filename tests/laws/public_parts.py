"""Which public names are parts of a collaboration, told by what they can do."""

import inspect

import comity as co

ROLES = {
    "method": ("init", "share", "expect", "update"),
    "participant": ("contribute",),
    "combiner": ("lift", "lower"),
    "transform": ("encode", "decode", "contracts"),
    "channel": ("setup", "seal", "open"),
    "engine": ("connect",),
}
CHECKS = {"participant": "check_method"} | {role: f"check_{role}" for role in ROLES if role != "participant"}


def public_parts() -> dict[str, str]:
    """Name to role, of every public class that is a part."""
    classes = {name: getattr(co, name) for name in co.__all__ if inspect.isclass(getattr(co, name))}
    return {
        name: role
        for name, c in classes.items()
        for role, can in ROLES.items()
        if all(hasattr(c, word) for word in can)
    }
