"""Envoy's whole configuration, rendered from authz.yaml.

Whatever Envoy must know, down to the metadata documents, follows from the configuration and from
where the parts are; nothing in the rendered files is to be changed by hand.
"""

import warnings

from pydantic.warnings import PydanticDeprecatedSince212

from authz.config.load import Settings
from authz.envoy.files import RENDERED_FILE

with warnings.catch_warnings():
    # The classes of envoy-data-plane 2.2 were generated for an older pydantic and say so each
    # time they are made: nothing that an operator could mend.
    warnings.simplefilter("ignore", PydanticDeprecatedSince212)
    from authz.envoy.render import bootstrap
    from authz.envoy.render.settings import Topology, envoy_settings, rendered_from

__all__ = ["Topology", "fragment", "render", "render_watched"]


def render(settings: Settings, where: Topology) -> dict[str, str]:
    """Return the text of every file that Envoy reads, by name; `envoy.yaml` is the first.

    They belong in `where.folder`: envoy.yaml names the others there.
    """
    return bootstrap.files(envoy_settings(settings, where), where)


def render_watched(settings: Settings, where: Topology) -> dict[str, str]:
    """Return the text of every file of an Envoy that follows changes, by name.

    They are to be written by `files.replace_files`, which knows in which order.
    """
    found = bootstrap.watched_files(envoy_settings(settings, where, watched=True), where)
    return {**found, RENDERED_FILE: rendered_from(settings, where)}


def fragment(settings: Settings, where: Topology) -> str:
    """Return the filters, clusters and routes alone, for people who have an Envoy."""
    return bootstrap.fragment(envoy_settings(settings, where), where)
