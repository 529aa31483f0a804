"""Figures: interactive curves for the report, still ones for papers, heat maps on images."""
