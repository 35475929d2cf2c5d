"""Rules of filing: no I/O, no clock, no framework."""
