"""From a trained model to a bundle: ONNX export, parity, case base and model card.

Needs the extra ``export``; building engines alone needs ``engines``.
"""
