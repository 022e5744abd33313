"""From a trained model to a bundle: ONNX export, parity, case base and model card (needs the ``export`` extra)."""
