"""The decision, pure: values in, values out. No I/O, no clock, no log, no other package."""
