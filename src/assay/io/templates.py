"""Jinja environment of the HTML pages: escapes every value, and treats a misspelled name as an error."""

from __future__ import annotations

import jinja2


def template_environment(package: str) -> jinja2.Environment:
    """Return the environment over the folder ``templates`` of ``package``."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
