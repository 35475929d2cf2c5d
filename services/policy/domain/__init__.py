"""Pure rules of the policy service: no transport, no database, no clock."""
