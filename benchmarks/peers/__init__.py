"""What nodule-diag is compared with: the same model and the same weights, run as other programs would."""
