"""A network behind HTTP: photos in, classes out; a page to drop photos on, and a description of the interface."""
