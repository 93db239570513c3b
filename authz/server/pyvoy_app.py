"""The name under which pyvoy finds the application: `authz.server.pyvoy_app:application`."""

import os

from authz.server.inside import Inside

application = Inside(os.environ)
