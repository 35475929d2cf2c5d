"""Rules of enrollment: no I/O, no clock, no framework."""
