"""The instruments: clocks, warm-up, power meters and the operators of an iteration."""
