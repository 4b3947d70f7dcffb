"""Why am I not downloading? Small probes, each of which answers with findings, and a verdict about them all."""
