"""Measurements: operators against their peers, models against timm, and the documents they fill."""
