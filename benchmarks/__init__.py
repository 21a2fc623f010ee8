"""Figures, measured side by side in one run, beside the floors that the repository keeps."""
