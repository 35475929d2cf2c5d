"""Real traffic against a network that is broken on purpose, and what must still be true of it.

`plan` says what breaks when, `injure` breaks and heals, `traffic` calls the front doors and keeps
every answer, `check` asks the databases and the front doors whether all of them are still true.
"""
