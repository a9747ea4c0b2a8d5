"""Train Stable Diffusion adapters against the checkpoint a WebUI has already loaded."""

__version__ = "0.1.0"
