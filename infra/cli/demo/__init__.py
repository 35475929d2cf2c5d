"""`yidi demo`: one story of several visits, each really settled over all its sites."""
