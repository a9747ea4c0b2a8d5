"""Automatic1111's WebUI as a host: training happens in the checkpoint that it has loaded."""
