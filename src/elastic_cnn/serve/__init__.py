"""A network behind HTTP: photos in, classes out; a page to drop photos on, and a description of the interface."""

from elastic_cnn.serve.app import make_app
from elastic_cnn.serve.engine import Engine, ServeOptions
from elastic_cnn.serve.run import serve

__all__ = ["Engine", "ServeOptions", "make_app", "serve"]
