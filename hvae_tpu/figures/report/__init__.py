"""Report about a run: one HTML file without any network requests."""

from hvae_tpu.figures.report.page import build

__all__ = ['build']
