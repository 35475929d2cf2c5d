"""Pure rules of the catalogue: integers and dates in, integers and Chinese reasons out."""
