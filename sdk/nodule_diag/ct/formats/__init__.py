"""CT file formats, a module each; `registry` is the one list of what can be read."""
