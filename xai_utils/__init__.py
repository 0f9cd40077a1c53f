"""What image models look at: models, pictures, attribution, and how to show them. Each room is imported by its name."""

# No imports here: `import xai_utils.runner` and the site must start without TensorFlow.
__version__ = "0.1.0"
