"""Matrix products by library and precision, with gradients, and the threads that compute them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers of glibc's mallopt().
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # the largest that glibc accepts
_KEPT_BYTES = 256 << 20


def prepare_process(threads: int) -> None:
    """Let torch, products and compiled loops use ``threads`` threads, and keep freed memory in the process.

    Every step needs the same megabytes. Memory that is returned to the system comes back as pages to be
    cleared, which takes up to a tenth of a step; glibc is set to keep it.
    """
    torch.set_num_threads(threads)
    threadpool_limits(1, user_api="blas")  # see products.on_all_threads
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            allocator = ctypes.CDLL(None)
            allocator.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
            allocator.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


Sums = TypeVar("Sums")


def in_parts(rows: int, work: Callable[[int, int], Sums]) -> list[Sums]:
    """Results of ``work(first, last)`` for each part of [0, rows); the parts run at the same time."""
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(0, rows)]
    edges = [rows * part // threads for part in range(threads + 1)]
    return list(_pool(threads).map(work, edges[:-1], edges[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool of threads, started on first use."""
    return ThreadPoolExecutor(threads, thread_name_prefix="loops")


Product = Callable[[Tensor, Tensor], Tensor]
"""(…, m, k) times (…, k, n) → (…, m, n), in the dtype of the first; values only, without autograd."""


_LONG, _STEP = 512, 256  # lengths from _LONG on are padded to multiples of _STEP in bfloat16
_PROCESSORS = Path("/proc/cpuinfo")


def torch_product(a: Tensor, b: Tensor) -> Tensor:
    """Product by torch, on any device."""
    return a @ b


def numpy_product(a: Tensor, b: Tensor) -> Tensor:
    """Product by NumPy's BLAS, on the CPU."""
    return torch.from_numpy(np.matmul(a.detach().numpy(), b.detach().numpy()))


def bfloat16_product(a: Tensor, b: Tensor) -> Tensor:
    """Product in bfloat16: factors and result have three digits and the range of float32."""
    product = _rounded(a) @ _rounded(b)
    return product[..., : a.shape[-2], : b.shape[-1]].to(a.dtype)


def _rounded(x: Tensor) -> Tensor:
    """Values in bfloat16; long dimensions are padded with zeros so that few shapes occur.

    oneDNN compiles and caches a primitive per shape. With a different number of nodes in every batch that
    would take longer than the products, and a gigabyte.
    """
    if x.stride(-2) == 1 and x.stride(-1) != 1:
        return _rounded(x.transpose(-1, -2)).transpose(-1, -2)
    rows, columns = x.shape[-2:]
    wanted = [length if length < _LONG else -(-length // _STEP) * _STEP for length in (rows, columns)]
    if wanted == [rows, columns]:
        return x.bfloat16()
    out = x.new_zeros((*x.shape[:-2], *wanted), dtype=torch.bfloat16)
    out[..., :rows, :columns] = x
    return out


def choose_product(precision: str, device: str) -> Product:
    """The fastest product in ``precision`` on ``device``.

    On AMD processors MKL, which torch uses, is far slower than NumPy's OpenBLAS. The choice depends on the
    processor's vendor, not on a measurement: libraries round differently, and a run must repeat bit for bit.
    """
    if precision == "bfloat16":
        return bfloat16_product
    if device == "cpu" and _torch_has_mkl() and _is_amd() and _numpy_has_openblas():
        return numpy_product
    return torch_product


def _is_amd() -> bool:
    with suppress(OSError):
        return "AuthenticAMD" in _PROCESSORS.read_text(encoding="utf-8")
    return False


def _torch_has_mkl() -> bool:
    return bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]


def _numpy_has_openblas() -> bool:
    build: Any = np.show_config(mode="dicts")
    return "openblas" in build["Build Dependencies"]["blas"]["name"]


def on_all_threads(product: Product, a: Tensor, b: Tensor) -> Tensor:
    """``product`` of a and b on all threads; not to be called from a part of :func:`~.threads.in_parts`.

    torch uses its own threads. NumPy's BLAS is limited to one, since its threads would spin on the same
    cores; each of our threads multiplies a part of a's rows instead.
    """
    if product is not numpy_product:
        return product(a, b)
    parts = in_parts(a.shape[-2], lambda first, last: product(a[..., first:last, :], b))
    return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


class _Times(torch.autograd.Function):
    """a @ b or a @ bᵀ. The gradient of a transposed b is computed untransposed: a view would be copied later."""

    @staticmethod
    def forward(ctx, a, b, transposed, product):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(a, b)
        ctx.transposed, ctx.product = transposed, product
        return on_all_threads(product, a.detach(), b.detach().transpose(-1, -2) if transposed else b.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):  # type: ignore[no-untyped-def]
        a, b = ctx.saved_tensors
        d_a = d_b = None
        if ctx.needs_input_grad[0]:
            d_a = on_all_threads(ctx.product, d_out, b if ctx.transposed else b.transpose(-1, -2))
        if ctx.needs_input_grad[1]:
            left, right = (d_out, a) if ctx.transposed else (a, d_out)
            d_b = on_all_threads(ctx.product, left.transpose(-1, -2), right)
        return d_a, d_b, None, None


def times(a: Tensor, b: Tensor, product: Product) -> Tensor:
    """(…, m, k) times (…, k, n) → (…, m, n), with gradients."""
    out: Tensor = _Times.apply(a, b, False, product)  # type: ignore[no-untyped-call]
    return out


def times_transposed(a: Tensor, b: Tensor, product: Product) -> Tensor:
    """(…, m, k) times the transpose of (…, n, k) → (…, m, n), with gradients."""
    out: Tensor = _Times.apply(a, b, True, product)  # type: ignore[no-untyped-call]
    return out
