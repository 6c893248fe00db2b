"""Updates: another version is put beside the running one, tried, and kept or left again."""
