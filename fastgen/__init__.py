"""fastgen: offline batch generation of synthetic training images with a per-image image-prompt weight."""

__version__ = "0.1.0"
