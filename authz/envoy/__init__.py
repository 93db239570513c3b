"""What speaks to Envoy: codecs of ext_authz and ext_proc, and the configuration renderer."""
