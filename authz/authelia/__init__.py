"""The part of Authelia's configuration that authz.yaml implies.

Law: it is a function of authz.yaml alone, in the keys of Authelia 4.39; no secret is read for it
and none is in it.
"""

from authz.authelia.render import Implied, implied

__all__ = ["Implied", "implied"]
