"""Where a grid becomes finer: at bends, the worst first, in the middle of a block, and never where it may not."""

from profiler.grid import Shape
from profiler.refinement import refined

CONTEXTS = (8, 520, 1032, 2056)


def decodes(latency):
    return {Shape(1, context): latency(context) for context in CONTEXTS}


def test_a_straight_line_needs_no_more_points():
    assert refined(decodes(lambda context: 1.0 + context / 100), (), 10) == []


def test_both_sides_of_a_bend_are_measured_and_the_worst_first():
    found = refined(decodes(lambda context: 1.0 if context < 600 else context / 100), (), 10)
    contexts = [shape.decode_ctx for shape in found]
    assert contexts[0] in (72, 728)
    assert set(contexts) >= {72, 728}
    assert all(shape.decode_seqs == 1 for shape in found)
    assert refined(decodes(lambda context: 1.0 if context < 600 else context / 100), (), 1) == found[:1]
    assert all(context % 16 == 8 for context in contexts)


def test_points_that_are_there_or_held_out_are_not_measured_again():
    latency_s = decodes(lambda context: 1.0 if context < 600 else context / 100)
    found = refined(latency_s, (Shape(1, 72),), 10)
    assert Shape(1, 72) not in found
    assert not set(found) & set(latency_s)


def test_batches_prompts_and_mixed_iterations_bend_too():
    step = {1: 1.0, 4: 1.0, 16: 9.0, 64: 9.5}
    batches = {Shape(batch, 8): value for batch, value in step.items()}
    assert Shape(8, 8) in refined(batches, (), 10)
    prompts = {Shape(0, 0, 1, 16 * batch, 0): value for batch, value in step.items()}
    assert {shape.prefill_seqs for shape in refined(prompts, (), 10)} == {1}
    mixed = {Shape(batch, 8, 1, 64, 0): value for batch, value in step.items()}
    assert Shape(8, 8, 1, 64, 0) in refined(mixed, (), 10)


def test_neighbours_are_not_divided_for_ever():
    latency_s = {Shape(batch, 8): float(batch == 3) + 1 for batch in (2, 3, 4)}
    assert refined(latency_s, (), 10) == []
