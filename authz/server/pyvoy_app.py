"""The name under which pyvoy finds the application: `authz.server.pyvoy_app:application`."""

import os

from authz.server.pyvoy_host import EmbeddedApp

application = EmbeddedApp(os.environ)
