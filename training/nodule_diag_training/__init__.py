"""Training of the synergic model (needs the ``train`` extra). Nothing here is imported by the runtime."""
