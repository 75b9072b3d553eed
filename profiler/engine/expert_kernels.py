"""Kernels in Triton for mixtures of experts: choosing, grouping, and products by the experts that were chosen.

Facts from vLLM's ``fused_moe`` (rows sorted by expert on the device, rows gathered by the product itself, the router's
share applied in the last one). Here a program has an expert of its own and walks through that expert's rows, so that
the grid depends on shapes alone: nothing is read back, and a recording holds for any routing.

An *assignment* is one of the experts of one row: number ``row * PER_TOKEN + slot``.
"""

import triton
import triton.language as tl


@triton.jit
def choose_experts(
    logits,
    shares,
    chosen,
    EXPERTS: tl.constexpr,
    PADDED: tl.constexpr,
    PER_TOKEN: tl.constexpr,
    SLOTS: tl.constexpr,
    NORMALISED: tl.constexpr,
):
    """One row: softmax over all experts in fp32, and the ``PER_TOKEN`` largest.

    Args:
        logits: ``(rows, EXPERTS)``, dense.
        shares, chosen: ``(rows, PER_TOKEN)``, fp32 and int32.
        PADDED, SLOTS: ``EXPERTS`` and ``PER_TOKEN``, up to a power of two.
        NORMALISED: whether the shares are to sum to one.
    """
    row = tl.program_id(0).to(tl.int64)
    expert, slot = tl.arange(0, PADDED), tl.arange(0, SLOTS)
    scores = tl.load(logits + row * EXPERTS + expert, mask=expert < EXPERTS, other=float("-inf")).to(
        tl.float32
    )
    weights = tl.exp(scores - tl.max(scores, 0))
    weights = weights / tl.sum(weights, 0)
    weights = tl.where(expert < EXPERTS, weights, -1.0)
    largest = tl.zeros([SLOTS], dtype=tl.float32)
    which = tl.zeros([SLOTS], dtype=tl.int32)
    for j in range(PER_TOKEN):
        best = tl.argmax(weights, 0)
        largest = tl.where(slot == j, tl.max(weights, 0), largest)
        which = tl.where(slot == j, best, which)
        weights = tl.where(expert == best, -1.0, weights)
    if NORMALISED:
        largest = largest / tl.sum(largest, 0)
    place = row * PER_TOKEN + slot
    tl.store(shares + place, largest, mask=slot < PER_TOKEN)
    tl.store(chosen + place, which, mask=slot < PER_TOKEN)


@triton.jit(do_not_specialize=["assignments"])
def group_by_expert(chosen, order, bounds, assignments, BLOCK: tl.constexpr):
    """One expert: its assignments, in their order, after those of the experts before it.

    Args:
        chosen: ``(assignments,)``, int32.
        order: assignments by expert, ``(assignments,)``, int32.
        bounds: where in ``order`` each expert's begin and end, ``(experts, 2)``, int32.
    """
    expert, index = tl.program_id(0), tl.arange(0, BLOCK)
    before = tl.zeros([BLOCK], dtype=tl.int32)
    for start in range(0, assignments, BLOCK):
        here = start + index < assignments
        before += (tl.load(chosen + start + index, mask=here, other=expert) < expert).to(tl.int32)
    place = tl.sum(before, 0)
    tl.store(bounds + 2 * expert, place)
    for start in range(0, assignments, BLOCK):
        here = start + index < assignments
        own = (tl.load(chosen + start + index, mask=here, other=-1) == expert).to(tl.int32)
        tl.store(order + place + tl.cumsum(own, 0) - 1, start + index, mask=own == 1)
        place += tl.sum(own, 0)
    tl.store(bounds + 2 * expert + 1, place)


@triton.jit
def multiply_by_experts(
    x,
    matrix,
    scale,
    order,
    bounds,
    shares,
    out,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
    PER_ROW: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRODUCT: tl.constexpr,
    FP8: tl.constexpr,
):
    """``BLOCK_N`` outputs of one expert, for its rows ``BLOCK_M`` at a time; programs of axis 0 take turns with them.

    Args:
        x: ``(assignments / PER_ROW, DEPTH)``, dense.
        matrix: ``(experts, OUTPUTS, DEPTH)``; with ``GATED`` twice as many outputs, the gate's first.
        scale: of matrices of eight bits, ``(experts, outputs)``, or None.
        order, bounds: as ``group_by_expert`` leaves them.
        shares: what each assignment's result is multiplied by, or None.
        out: ``(assignments, OUTPUTS)``; with ``GATED`` ``silu(gate) * up``.
        PRODUCT: the type that matrix products take.
        FP8: whether the eight bits are those of e4m3.
    """
    part, tile, expert = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    first, stop = tl.load(bounds + 2 * expert), tl.load(bounds + 2 * expert + 1)
    output = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = output < OUTPUTS
    height: tl.constexpr = 2 * OUTPUTS if GATED else OUTPUTS
    lower: tl.constexpr = height - OUTPUTS
    matrix += expert * height * DEPTH
    for start in range(first + part * BLOCK_M, stop, BLOCK_M * tl.num_programs(0)):
        place = start + tl.arange(0, BLOCK_M)
        here = place < stop
        row = tl.load(order + place, mask=here, other=0).to(tl.int64)
        source = x + (row // PER_ROW)[:, None] * DEPTH
        acc = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
        gate = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
        for at in range(0, DEPTH, BLOCK_K):
            k = at + tl.arange(0, BLOCK_K)
            left = tl.load(source + k[None, :], mask=here[:, None] & (k < DEPTH)[None, :], other=0.0).to(
                PRODUCT
            )
            right = _weights(matrix, lower + output, inside, k, DEPTH, PRODUCT, FP8)
            acc = tl.dot(left, right, acc, input_precision="ieee")
            if GATED:
                right = _weights(matrix, output, inside, k, DEPTH, PRODUCT, FP8)
                gate = tl.dot(left, right, gate, input_precision="ieee")
        if scale is not None:
            acc *= _scale(scale, expert * height + lower + output, inside)
        if GATED:
            if scale is not None:
                gate *= _scale(scale, expert * height + output, inside)
            acc *= gate / (1.0 + tl.exp(-gate))
        if shares is not None:
            acc *= tl.load(shares + row, mask=here, other=0.0)[:, None]
        target = out + row[:, None] * OUTPUTS + output[None, :]
        tl.store(target, acc.to(out.dtype.element_ty), mask=here[:, None] & inside[None, :])


@triton.jit
def _weights(matrix, output, inside, k, DEPTH: tl.constexpr, PRODUCT: tl.constexpr, FP8: tl.constexpr):
    """A tile of a matrix, transposed: ``(k, output)``."""
    some = (k < DEPTH)[:, None] & inside[None, :]
    tile = tl.load(matrix + output[None, :] * DEPTH + k[:, None], mask=some, other=0)
    if FP8:
        tile = tile.to(tl.float8e4nv, bitcast=True)
    return tile.to(PRODUCT)


@triton.jit
def _scale(scale, output, inside):
    return tl.load(scale + output, mask=inside, other=0.0).to(tl.float32)[None, :]
