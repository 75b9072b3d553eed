"""What models take while they are loaded, and how many KV blocks are left beside them."""

import gc

import pytest
import torch

from profiler import memory
from profiler.engine import engine as engine_module
from profiler.engine import weights as weights_module
from profiler.engine.cache import BLOCK_SIZE
from profiler.engine.engine import Engine
from profiler.engine.weights import RandomWeights, random_weights
from profiler.memory import affordable_blocks
from simslm.catalog.models import load_model

GIB = 2**30


@pytest.fixture
def only_new():
    """The collector walks over what was made since, and not over all that a test process has imported."""
    gc.collect()
    gc.freeze()


def live_bytes():
    """Of all tensors that were made since, and are there now."""
    tensors = [
        each for each in gc.get_objects() if issubclass(type(each), torch.Tensor) and not each.is_mkldnn
    ]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("name", ["opt", "llama", "gemma2"])
def test_no_more_than_a_layer_is_there_twice(make_tiny, monkeypatch, only_new, name):
    """Without packing, as on a GPU: seen whenever a linear layer is made, its parts still there beside it."""
    sizes = {"num_layers": 12, "hidden_size": 64, "intermediate_size": 256, "vocab_size": 500}
    architecture = make_tiny(name, **sizes, **({"sliding_window_layers": 6} if name == "gemma2" else {}))
    seen, before = [], live_bytes()

    def plain(weight, bias):
        seen.append(live_bytes() - before)
        return lambda x: torch.nn.functional.linear(x, weight, bias)

    monkeypatch.setattr(weights_module, "_packed", lambda weight: None)
    monkeypatch.setattr(engine_module, "linear", plain)
    engine = Engine(architecture, dtype="fp32", num_blocks=1, block_size=1, attention="fused")
    others = sum(t.nbytes for t in (*engine.cache.keys, *engine.cache.values))
    others += 0 if engine.model.steps._rotary is None else engine.model.steps._rotary.nbytes
    whole = architecture.weight_bytes("fp32")
    assert whole <= live_bytes() - before <= 1.01 * whole + others
    assert max(seen) <= whole + memory._layer_bytes(architecture, "fp32") + others + 0.01 * whole


@pytest.mark.parametrize(("model", "free"), [("opt-6.7b", 6), ("qwen2.5-7b", 4.5), ("llama-3.1-8b", 3.5)])
def test_models_of_seven_billion_weights_fit_a_card_of_24_gb(monkeypatch, model, free):
    """An L4 has 22.5 GiB, of which torch itself takes half a GiB."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (22 * GIB, int(22.5 * GIB)))
    monkeypatch.setattr(memory, "release_freed_memory", lambda device: None)
    a = load_model(model)
    blocks = affordable_blocks(a, "cuda:0", "bf16")
    assert blocks * BLOCK_SIZE * a.kv_bytes_per_token("bf16") > free * GIB


def test_weights_do_not_depend_on_the_order_in_which_they_are_taken(llama):
    whole = random_weights(llama, torch.float32, seed=3)
    taken = RandomWeights(llama, torch.float32, seed=3)
    for name in reversed(whole):
        assert torch.equal(taken.pop(name), whole[name])
    assert taken.pop("embedding", None) is None
    with pytest.raises(KeyError):
        taken.pop("embedding")
    assert not torch.equal(RandomWeights(llama, torch.float32, seed=4).pop("embedding"), whole["embedding"])
