"""Export of traces, metrics and log lines by OTLP; nothing here is loaded but where it is used."""
