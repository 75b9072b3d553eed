"""Kernels in Triton: attention over a paged cache, with contexts split and put together, and weights of eight bits.

Sources: FlashAttention-2 (arXiv:2307.08691, §3.1) for the tiles, Flash-Decoding (Dao et al., 2023) for the splits,
PagedAttention (arXiv:2309.06180, §4.1) for keys that are read where their block tables say, Gemma 2
(arXiv:2408.00118, §2) for capped scores. A tile's rows are the queries of one sequence times the heads that share a
key head. Softmax is in base two, as the device has it.

A tile is four integers: the first token row, how many queries it has, how many keys its first query sees (each
further query sees one more), and where in ``pages`` its sequence's block table begins.
"""

import torch
import triton
import triton.language as tl

_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def product_type(like: torch.Tensor) -> tl.dtype:
    """What matrix products of such a tensor take: its own type, but on a CPU, where the interpreter has only fp32."""
    return tl.float32 if like.device.type == "cpu" else _TYPES[like.dtype]


@triton.jit(do_not_specialize_on_alignment=["tiles", "pages"])
def attend_tile(
    queries,
    keys,
    values,
    out,
    partial,
    partial_lse,
    tiles,
    pages,
    row_stride,
    scale,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    WINDOW: tl.constexpr,
    CAP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLITS: tl.constexpr,
    PRODUCT: tl.constexpr,
):
    """One tile, one key head, one part of the keys; to ``out``, or with several parts to ``partial``.

    Args:
        queries: ``(rows, KV_HEADS * GROUP * HEAD_DIM)``, ``row_stride`` elements from row to row.
        keys, values: one layer's cache, ``(blocks, PAGE, KV_HEADS, HEAD_DIM)``.
        out: like ``queries``, dense.
        partial: ``(tiles, KV_HEADS, SPLITS, BLOCK_M, PADDED_DIM)`` in fp32.
        partial_lse: base-two logarithm of each row's sum of weights, ``(tiles, KV_HEADS, SPLITS, BLOCK_M)``.
        tiles: ``(tiles, 4)``.
        pages: block tables end to end.
        scale: of the scores, times log2(e); of capped ones twice that, by the cap.
        WINDOW: how many keys a query sees at most; 0 for all. Steps of keys before all windows are skipped.
        CAP: of the scores, times log2(e); 0 for none.
        PRODUCT: the type that matrix products take.
    """
    tile, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(tiles + 4 * tile)
    count = tl.load(tiles + 4 * tile + 1).to(tl.int32)
    seen = tl.load(tiles + 4 * tile + 2).to(tl.int32)
    pages += tl.load(tiles + 4 * tile + 3)
    index = tl.arange(0, BLOCK_M)
    query = index // GROUP
    columns = (head * GROUP + index % GROUP) * HEAD_DIM
    dims = tl.arange(0, PADDED_DIM)
    live = (query < count)[:, None] & (dims < HEAD_DIM)[None, :]
    block = tl.load(queries + ((row + query) * row_stride + columns)[:, None] + dims, mask=live, other=0.0)
    block = block.to(PRODUCT)
    total = seen + count - 1
    least = tl.maximum(seen - WINDOW, 0) // BLOCK_N * BLOCK_N if WINDOW else 0
    share = tl.cdiv(tl.cdiv(total - least, BLOCK_N), SPLITS) * BLOCK_N
    first = tl.minimum(least + split * share, total)
    stop = tl.minimum(first + share, total)
    seen_by_all = first + tl.maximum(tl.minimum(seen, stop) - first, 0) // BLOCK_N * BLOCK_N
    oldest = seen + query - WINDOW
    last = tl.minimum(seen + query, stop)
    acc = tl.zeros([BLOCK_M, PADDED_DIM], dtype=tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    weight = tl.zeros([BLOCK_M], dtype=tl.float32)
    keys += head * HEAD_DIM
    values += head * HEAD_DIM
    if WINDOW:
        hidden = tl.maximum(total - WINDOW - first, 0)
        first_whole = tl.minimum(first + tl.cdiv(hidden, BLOCK_N) * BLOCK_N, stop)
        for start in range(first, first_whole, BLOCK_N):
            acc, peak, weight = _step(
                block, keys, values, pages, start, oldest, last, scale, acc, peak, weight,
                KV_HEADS, HEAD_DIM, PADDED_DIM, PAGE, WINDOW, CAP, BLOCK_N, PRODUCT, True,
            )  # fmt: skip
        first = first_whole
        seen_by_all = tl.maximum(seen_by_all, first)
    for start in range(first, seen_by_all, BLOCK_N):
        acc, peak, weight = _step(
            block, keys, values, pages, start, oldest, last, scale, acc, peak, weight,
            KV_HEADS, HEAD_DIM, PADDED_DIM, PAGE, WINDOW, CAP, BLOCK_N, PRODUCT, False,
        )  # fmt: skip
    for start in range(seen_by_all, stop, BLOCK_N):
        acc, peak, weight = _step(
            block, keys, values, pages, start, oldest, last, scale, acc, peak, weight,
            KV_HEADS, HEAD_DIM, PADDED_DIM, PAGE, WINDOW, CAP, BLOCK_N, PRODUCT, True,
        )  # fmt: skip
    some = tl.where(weight == 0, 1.0, weight)
    acc = acc / some[:, None]
    if SPLITS == 1:
        place = ((row + query) * (KV_HEADS * GROUP * HEAD_DIM) + columns)[:, None] + dims
        tl.store(out + place, acc.to(out.dtype.element_ty), mask=live)
    else:
        place = ((tile * KV_HEADS + head) * SPLITS + split) * BLOCK_M + index
        lse = tl.where(weight == 0, float("-inf"), peak + tl.log2(some))
        tl.store(partial + place[:, None] * PADDED_DIM + dims, acc, mask=live)
        tl.store(partial_lse + place, lse, mask=query < count)


@triton.jit
def _step(
    block, keys, values, pages, start, oldest, last, scale, acc, peak, weight,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    WINDOW: tl.constexpr,
    CAP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRODUCT: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """``BLOCK_N`` more keys from position ``start``; masked where a row sees those in [``oldest``, ``last``) only."""
    position = start + tl.arange(0, BLOCK_N)
    dims = tl.arange(0, PADDED_DIM)
    inside = dims < HEAD_DIM
    here = position < (tl.max(last, 0) if MASKED else start + BLOCK_N)
    page = tl.load(pages + position // PAGE, mask=here, other=0)
    place = (page * PAGE + position % PAGE) * (KV_HEADS * HEAD_DIM)
    key = tl.load(keys + place[None, :] + dims[:, None], mask=inside[:, None] & here[None, :], other=0.0)
    scores = tl.dot(block, key.to(PRODUCT), input_precision="ieee") * scale
    if CAP != 0.0:  # the compiler takes no float for a condition, though the interpreter does
        scores = CAP - 2 * CAP / (tl.exp2(scores) + 1)  # tanh(x) = 1 - 2 / (exp(2 x) + 1)
    if MASKED:
        visible = position[None, :] < last[:, None]
        if WINDOW:
            visible &= position[None, :] >= oldest[:, None]
        scores = tl.where(visible, scores, float("-inf"))
    top = tl.maximum(peak, tl.max(scores, 1))
    base = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp2(scores - base[:, None])
    kept = tl.exp2(peak - base)
    value = tl.load(values + place[:, None] + dims[None, :], mask=here[:, None] & inside[None, :], other=0.0)
    acc = tl.dot(weights.to(PRODUCT), value.to(PRODUCT), acc * kept[:, None], input_precision="ieee")
    return acc, top, weight * kept + tl.sum(weights, 1)


@triton.jit(do_not_specialize_on_alignment=["tiles"])
def combine_splits(
    out,
    partial,
    partial_lse,
    tiles,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """One row of one tile and key head: its parts by their shares of the weight; arrays as in ``attend_tile``."""
    tile, head, index = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(tiles + 4 * tile)
    count = tl.load(tiles + 4 * tile + 1)
    query = index // GROUP
    if query < count:
        dims = tl.arange(0, PADDED_DIM)
        inside = dims < HEAD_DIM
        place = ((tile * KV_HEADS + head) * SPLITS + tl.arange(0, SPLITS)) * BLOCK_M + index
        lse = tl.load(partial_lse + place)
        share = tl.exp2(lse - tl.max(lse, 0))
        parts = tl.load(partial + place[:, None] * PADDED_DIM + dims, mask=inside[None, :], other=0.0)
        mixed = tl.sum(parts * share[:, None], 0) / tl.sum(share, 0)
        column = (head * GROUP + index % GROUP) * HEAD_DIM
        place = (row + query) * (KV_HEADS * GROUP * HEAD_DIM) + column + dims
        tl.store(out + place, mixed.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def multiply_quantized(
    x,
    matrix,
    scale,
    bias,
    out,
    rows,
    outputs,
    depth,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRODUCT: tl.constexpr,
    FP8: tl.constexpr,
):
    """``BLOCK_N`` outputs of all rows: weights of eight bits become ``PRODUCT`` between memory and matrix unit.

    Args:
        x: ``(rows, depth)``, dense; at most ``BLOCK_M`` rows.
        matrix: ``(outputs, depth)``, int8, or the bits of e4m3 with ``FP8``.
        scale: ``(outputs,)``.
        bias: ``(outputs,)`` or None.
        out: ``(rows, outputs)``.
    """
    row = tl.arange(0, BLOCK_M)
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    here, inside = row < rows, output < outputs
    acc = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    for start in range(0, depth, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        some = k < depth
        left = tl.load(x + row[:, None] * depth + k[None, :], mask=here[:, None] & some[None, :], other=0.0)
        right = tl.load(
            matrix + output[None, :] * depth + k[:, None], mask=some[:, None] & inside[None, :], other=0
        )
        if FP8:
            right = right.to(tl.float8e4nv, bitcast=True)
        acc = tl.dot(left.to(PRODUCT), right.to(PRODUCT), acc, input_precision="ieee")
    acc *= tl.load(scale + output, mask=inside, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        acc += tl.load(bias + output, mask=inside, other=0.0).to(tl.float32)[None, :]
    place = out + row[:, None] * outputs + output[None, :]
    tl.store(place, acc.to(out.dtype.element_ty), mask=here[:, None] & inside[None, :])
