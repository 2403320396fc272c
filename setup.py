"""Compile the native kernels with the package, where torch and a C++ compiler are at hand; never a reason to fail.

`pip install --no-build-isolation .` lets the build see the torch that is installed; in pip's isolated build there is
none, and the kernels are compiled on first use instead. Everything else stands in pyproject.toml.
"""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
KERNELS = ROOT / "src" / "elastic_cnn" / "kernels"


def load_builder():
    spec = importlib.util.spec_from_file_location("elastic_kernels_build", KERNELS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildKernels(build_ext):
    """Writes each part's library beside `kernels/build.py`: in the wheel, or in the checkout for editable installs."""

    def run(self):
        if self.editable_mode:
            self.inplace = True
        super().run()

    def build_extension(self, ext):
        builder = load_builder()
        folder = KERNELS if self.inplace else Path(self.build_lib, "elastic_cnn", "kernels")
        try:
            path = builder.build(ext.part, folder)
            path.with_suffix(".lock").unlink(missing_ok=True)
            shutil.rmtree(path.parent / "objects", ignore_errors=True)
        except Exception as error:  # whatever it is, the plain form serves
            print(f"elastic-cnn: {ext.part} kernels not compiled: {error}", file=sys.stderr)

    def get_ext_filename(self, fullname):
        part = fullname.rsplit("_", 1)[-1]
        return str(Path("elastic_cnn", "kernels", load_builder().library_name(part)))

    def get_outputs(self):
        return [path for path in super().get_outputs() if Path(path).exists()]

    def get_output_mapping(self):
        return {}


def extensions():
    builder = load_builder()
    if builder.why_not() or importlib.util.find_spec("torch") is None:
        return []
    found = []
    for part in builder.PARTS:
        if builder.sources(part):
            extension = Extension(f"elastic_cnn.kernels.elastic_{part}", sources=[], optional=True)
            extension.part = part
            found.append(extension)
    return found


def long_description():
    """The README with its links made absolute, for pages that show it without the files beside it.

    They lead to the `Repository` of pyproject.toml; while it names none, links become plain text and pictures go.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r'^Repository = "(\S+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        text = re.sub(r"!\[[^]]*\]\((?!https?:)[^)]+\)\n*", "", text)
        return re.sub(r"\[([^]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text)
    home = found[1].rstrip("/")
    text = re.sub(r"(!\[[^]]*\])\((?!https?:)([^)]+)\)", rf"\1({home}/raw/main/\2)", text)
    return re.sub(r"(\[[^]]+\])\((?!https?:|#)([^)]+)\)", rf"\1({home}/blob/main/\2)", text)


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels},
    long_description=long_description(),
    long_description_content_type="text/markdown",
)
