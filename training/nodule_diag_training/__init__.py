"""Training of the synergic model (needs the ``train`` extra). The runtime imports nothing from here."""
