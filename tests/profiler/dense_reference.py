"""A dense forward pass in float64, written apart from the engine: full attention, one sequence at a time.

It takes unfused weights by name and follows the papers and ``transformers``' reference models; nothing here
imports the engine.
"""

import math

import torch


def reference_logits(a, weights, tokens):
    """Logits ``(len(tokens), vocab_size)`` of one sequence."""
    w = {name: value.double() for name, value in weights.items()}
    x = w["embedding"][torch.tensor(tokens)]
    if "project_in" in w:
        x = x @ w["project_in"].T
    if a.scale_embeddings:
        x = x * math.sqrt(a.hidden_size)
    if "positions" in w:
        x = x + torch.stack([w["positions"][i + a.position_offset] for i in range(len(tokens))])
    for layer in range(a.num_layers):
        p = {k.removeprefix(f"layers.{layer}."): v for k, v in w.items() if k.startswith(f"layers.{layer}.")}
        x = _block(a, p, x, a.sliding_window if _is_windowed(a, layer) else None)
    if a.final_norm:
        x = _norm(a, x, w["final_norm.weight"], w.get("final_norm.bias"))
    if "project_out" in w:
        x = x @ w["project_out"].T
    logits = x @ w.get("head.weight", w["embedding"]).T
    logits = logits + w["head.bias"] if "head.bias" in w else logits
    return _capped(logits, a.logit_softcap)


def reference_greedy(a, weights, prompt, count):
    """The ``count`` tokens that greedy decoding appends to ``prompt``."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(reference_logits(a, weights, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def _is_windowed(a, layer):
    """Gemma 2: layers 0, 2, 4, ...; Mistral: all; Qwen: the last ones."""
    if a.family == "gemma2":
        return a.sliding_window_layers > 0 and layer % 2 == 0
    return layer >= a.num_layers - a.sliding_window_layers


def _block(a, p, x, window):
    if a.parallel_block:
        h = _norm(a, x, p["norm1.weight"], p.get("norm1.bias"))
        return x + _attention(a, p, h, window) + _mlp(a, p, h)
    if not a.norm_first:
        x = _norm(a, x + _attention(a, p, x, window), p["norm1.weight"], p.get("norm1.bias"))
        return _norm(a, x + _mlp(a, p, x), p["norm2.weight"], p.get("norm2.bias"))
    y = _attention(a, p, _norm(a, x, p["norm1.weight"], p.get("norm1.bias")), window)
    x = x + (_norm(a, y, p["post_norm1.weight"], None) if a.post_norms else y)
    y = _mlp(a, p, _norm(a, x, p["norm2.weight"], p.get("norm2.bias")))
    return x + (_norm(a, y, p["post_norm2.weight"], None) if a.post_norms else y)


def _linear(p, name, x):
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def _norm(a, x, weight, bias):
    if a.norm == "rmsnorm":
        return _rms(x, weight + 1 if a.family == "gemma2" else weight, a.norm_eps)
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + a.norm_eps).sqrt() * weight + bias


def _rms(x, weight, eps):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def _mlp(a, p, x):
    if "router.weight" in p:
        return torch.stack([_mixture(a, p, row) for row in x])
    up = _linear(p, "up", x)
    inner = _ACTIVATIONS[a.activation](_linear(p, "gate", x)) * up if a.gated_mlp else None
    return _linear(p, "down", _ACTIVATIONS[a.activation](up) if inner is None else inner)


def _capped(x, cap):
    return x if cap is None else cap * torch.tanh(x / cap)


def _mixture(a, p, x):
    """One row through its experts, one expert at a time."""
    scores = p["router.weight"] @ x
    shares = (scores - scores.max()).exp()
    shares = (shares / shares.sum()).tolist()
    best = sorted(range(a.num_experts), key=lambda expert: -shares[expert])[: a.num_experts_per_tok]
    total = sum(shares[expert] for expert in best) if a.norm_topk_prob else 1.0
    mixed = torch.zeros_like(x)
    for expert in best:
        both = p["experts_gate_up"][expert] @ x
        gate, up = both[: a.intermediate_size], both[a.intermediate_size :]
        mixed += shares[expert] / total * (p["experts_down"][expert] @ (_ACTIVATIONS["silu"](gate) * up))
    return mixed


def _attention(a, p, x, window):
    length, d, group = len(x), a.head_dim, a.num_heads // a.num_kv_heads
    q, k, v = (_linear(p, name, x) for name in ("q", "k", "v"))
    if a.qk_norm_across_heads:
        q, k = _rms(q, p["q_norm.weight"], a.norm_eps), _rms(k, p["k_norm.weight"], a.norm_eps)
    q, k, v = (part.reshape(length, -1, d) for part in (q, k, v))
    if a.qk_norm and not a.qk_norm_across_heads:
        q, k = _rms(q, p["q_norm.weight"], a.norm_eps), _rms(k, p["k_norm.weight"], a.norm_eps)
    if a.positions == "rotary":
        q, k = _rotary(a, q), _rotary(a, k)
    unseen = torch.ones(length, length, dtype=torch.bool).triu(1)
    if window is not None:
        unseen |= torch.ones(length, length, dtype=torch.bool).tril(-window)
    mixed = torch.zeros_like(q)
    for head in range(a.num_heads):
        scores = q[:, head] @ k[:, head // group].T / math.sqrt(a.query_pre_attn_scalar)
        scores = _capped(scores, a.attention_softcap).masked_fill(unseen, -math.inf)
        mixed[:, head] = torch.softmax(scores, -1) @ v[:, head // group]
    return _linear(p, "out", mixed.reshape(length, -1))


def _rotary(a, heads):
    """Each pair ``(j, j + half)`` of the rotated dimensions is a complex number turned by its angle."""
    half = a.rotary_dim // 2
    positions = torch.arange(len(heads)).double()
    turned = heads.clone()
    for j in range(half):
        angles = positions * a.rope_theta ** (-2 * j / a.rotary_dim)
        pair = torch.complex(heads[..., j], heads[..., j + half])
        pair = pair * torch.polar(torch.ones_like(angles), angles)[:, None]
        turned[..., j], turned[..., j + half] = pair.real, pair.imag
    return turned


_ACTIVATIONS = {
    "relu": lambda x: x.clamp(min=0),
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}
