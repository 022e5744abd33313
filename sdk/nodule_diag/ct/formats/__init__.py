"""CT file formats, a module each."""
