"""The part of Authelia's configuration that authz.yaml implies, in the keys of Authelia 4.39."""

from authz.authelia.render import Implied, implied

__all__ = ["Implied", "implied"]
