"""Kernels in Triton for what lies between matrix products and attention, each in one pass over its rows.

As inference engines fuse it (vLLM's ``rotary_embedding`` with ``reshape_and_cache``, ``fused_add_rms_norm``,
``silu_and_mul``): rotation with the write to the cache, an addition to the residual stream with the norm that follows,
an activation with the product that it gates. Arithmetic is in fp32.
"""

import triton
import triton.language as tl


@triton.jit
def place_heads(
    qkv,
    queries,
    keys,
    values,
    slots,
    positions,
    rotary,
    query_weight,
    key_weight,
    row_stride,
    table_size,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    HALF: tl.constexpr,
    NORMED: tl.constexpr,
    FIRST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``BLOCK`` heads of one row: norms and rotates queries and keys, and writes keys and values to the row's slot.

    Args:
        qkv: ``(rows, (HEADS + 2 * KV_HEADS) * HEAD_DIM)``, ``row_stride`` elements from row to row.
        queries: ``(rows, HEADS * HEAD_DIM)``, dense.
        keys, values: one layer's cache, ``(slots, KV_HEADS, HEAD_DIM)``.
        slots, positions: of every row.
        rotary: cosines, then sines, ``(2, table_size / HALF, HALF)``; the first ``2 * HALF`` dimensions are rotated in
            halves (RoFormer, arXiv:2104.09864, §3.2). None with ``HALF`` 0.
        query_weight, key_weight: of the norm of each head, ``(HEAD_DIM,)``; None without ``NORMED``.
        FIRST: the head that program 0 begins with: ``HEADS`` where queries stay as they are.
    """
    row = tl.program_id(0).to(tl.int64)
    head = FIRST + tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    dim = tl.arange(0, PADDED_DIM)
    here = (head < HEADS + 2 * KV_HEADS)[:, None] & (dim < HEAD_DIM)[None, :]
    is_query, is_value = head < HEADS, head >= HEADS + KV_HEADS
    source = qkv + row * row_stride + head[:, None] * HEAD_DIM
    x = tl.load(source + dim[None, :], mask=here, other=0.0).to(tl.float32)
    factor = 1.0
    if NORMED:
        factor = 1.0 / tl.sqrt(tl.sum(x * x, 1) / HEAD_DIM + eps)
        factor = tl.where(is_value, 1.0, factor)[:, None]
        x = x * factor * _weight_of_heads(query_weight, key_weight, dim, is_query, is_value, HEAD_DIM)
    if HALF > 0:
        partner = tl.where(dim < HALF, dim + HALF, dim - HALF)
        turned = dim < 2 * HALF
        other = tl.load(source + partner[None, :], mask=here & turned[None, :], other=0.0).to(tl.float32)
        if NORMED:
            other = other * factor
            other *= _weight_of_heads(query_weight, key_weight, partner, is_query, is_value, HEAD_DIM)
        angle = rotary + tl.load(positions + row) * HALF + dim % HALF
        cosine = tl.load(angle, mask=turned, other=1.0).to(tl.float32)
        sine = tl.load(angle + table_size, mask=turned, other=0.0).to(tl.float32)
        sine = tl.where(dim < HALF, -sine, sine)
        x = tl.where(is_value[:, None], x, x * cosine[None, :] + other * sine[None, :])
    x = x.to(keys.dtype.element_ty)
    if FIRST < HEADS:
        place = queries + (row * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
        tl.store(place, x, mask=here & is_query[:, None])
    slot = tl.load(slots + row) * KV_HEADS
    place = (slot + head - HEADS)[:, None] * HEAD_DIM + dim[None, :]
    tl.store(keys + place, x, mask=here & (~is_query & ~is_value)[:, None])
    tl.store(values + place - KV_HEADS * HEAD_DIM, x, mask=here & is_value[:, None])


@triton.jit
def _weight_of_heads(query_weight, key_weight, dim, is_query, is_value, HEAD_DIM: tl.constexpr):
    """What each element of queries and keys is multiplied with; one for values."""
    inside = (dim >= 0) & (dim < HEAD_DIM)
    mine = tl.load(query_weight + dim, mask=inside, other=0.0).to(tl.float32)[None, :]
    theirs = tl.load(key_weight + dim, mask=inside, other=0.0).to(tl.float32)[None, :]
    return tl.where(is_value[:, None], 1.0, tl.where(is_query[:, None], mine, theirs))


@triton.jit
def add_and_norm(
    x,
    residual,
    total,
    out,
    weight,
    bias,
    row_stride,
    out_stride,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
    CENTRED: tl.constexpr,
):
    """One row: ``total = residual + x``, and its norm to ``out``.

    Args:
        x: ``(rows, WIDTH)``, ``row_stride`` elements from row to row.
        residual, total: ``(rows, WIDTH)``, dense, and may be the same; None where nothing is added.
        out: ``(rows, WIDTH)``, ``out_stride`` elements from row to row; may be ``x``.
        weight, bias: ``(WIDTH,)``; the bias may be None.
        OFFSET: whether one is added to the weight.
        CENTRED: layer norm (arXiv:1607.06450, eq. 3) instead of root-mean-square norm (arXiv:1910.07467, eq. 4).
    """
    row, index = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    here = index < WIDTH
    value = tl.load(x + row * row_stride + index, mask=here, other=0.0).to(tl.float32)
    if residual is not None:
        value += tl.load(residual + row * WIDTH + index, mask=here, other=0.0).to(tl.float32)
        value = value.to(out.dtype.element_ty)  # as it is kept
        tl.store(total + row * WIDTH + index, value, mask=here)
        value = value.to(tl.float32)
    if CENTRED:
        value = tl.where(here, value - tl.sum(value, 0) / WIDTH, 0.0)
    value = value / tl.sqrt(tl.sum(value * value, 0) / WIDTH + eps)
    factor = tl.load(weight + index, mask=here, other=0.0).to(tl.float32)
    if OFFSET:
        factor += 1.0
    value *= factor
    if bias is not None:
        value += tl.load(bias + index, mask=here, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + index, value.to(out.dtype.element_ty), mask=here)


@triton.jit
def activate_and_multiply(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr, SILU: tl.constexpr):
    """``BLOCK`` elements of one row: SiLU, or GELU by tanh (arXiv:1606.08415, §2), of the first half times the second.

    Args:
        gate_up: ``(rows, 2 * WIDTH)``, dense.
        out: ``(rows, WIDTH)``.
    """
    row = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = index < WIDTH
    source = gate_up + row * 2 * WIDTH + index
    gate = tl.load(source, mask=here, other=0.0).to(tl.float32)
    up = tl.load(source + WIDTH, mask=here, other=0.0).to(tl.float32)
    # x sigmoid(x); tanh(u) is 2 sigmoid(2 u) - 1
    inner = gate if SILU else 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
    falling = tl.exp(-tl.abs(inner))
    sigmoid = tl.where(inner >= 0, 1.0, falling) / (1.0 + falling)
    tl.store(out + row * WIDTH + index, (gate * sigmoid * up).to(out.dtype.element_ty), mask=here)
