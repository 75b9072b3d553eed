"""Fitting a physical cost model to measured end-to-end runs.

schedule   the iterations of a simulated run, and its metrics as sums over them: any cost re-prices them
prior      what is known of each term before anything was measured
offline    iterations measured without a server, as further evidence
fit        bounded least squares over the terms, their covariance, and what the runs do not tell
power      the energy terms, from the power of the same runs
calibrate  simulate, fit, and again until the schedule stays; the trace that comes of it
"""
