"""Sample catalogues and institutions: invented data for demonstrations and tests."""
