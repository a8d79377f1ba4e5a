"""What a run on the GPU needs. Imports nothing heavy before it is asked."""

from __future__ import annotations

INSTALL_NVDIFFRAST = (
    "pip install setuptools wheel ninja && "
    "pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast.git@v0.4.0"
)
"""It compiles against the torch that is installed: with build isolation it would not find one."""


def missing() -> str | None:
    """What keeps CUDA from being used here, with the remedy; None when nothing does."""
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return "this build of torch has no CUDA; install one that has (https://pytorch.org/get-started)"
        return "torch finds no CUDA GPU; nvidia-smi shows whether the driver does"
    return nvdiffrast_problem()


def nvdiffrast_problem() -> str | None:
    """Why the package nvdiffrast cannot be imported, with the remedy; None when it can."""
    try:
        import nvdiffrast.torch  # noqa: F401
    except (ImportError, OSError) as error:
        return f"the package nvdiffrast is missing or does not fit this torch ({error}); {INSTALL_NVDIFFRAST}"
    return None
