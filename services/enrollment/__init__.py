"""Enrollment 参保: who is insured where. The only schema that holds names and ID numbers."""
