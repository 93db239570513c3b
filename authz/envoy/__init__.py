"""Everything that speaks Envoy: the ext_authz codec and the configuration renderer."""
