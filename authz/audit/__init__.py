"""The audit trail: what was decided, as chained records in Redis (docs/audit.md)."""
