"""TensorRT engines: built here, kept in a cache of the user's."""
