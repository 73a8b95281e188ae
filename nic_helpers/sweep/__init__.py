"""Studies: a grid of settings, cut into units, run on one process, several, or a cluster, and resumed after any interruption.

    table = sweep.run(grid, "build/sweep/mine")                    # here
    table = sweep.run(grid, "build/sweep/mine", jobs=2)            # two processes
    table = sweep.run(grid, "build/sweep/mine", executor=client.get_executor())       # Dask, or any concurrent.futures

python -m nic_helpers.sweep robustness --dry-run                  # the course's own studies: see nic_helpers/course/grids.py
"""

from nic_helpers.sweep.cost import costs, plan
from nic_helpers.sweep.dataset import Dataset, SweepError
from nic_helpers.sweep.faced import Faced, OtherDraws
from nic_helpers.sweep.grid import Contestant, Grid
from nic_helpers.sweep.unit import Unit
from nic_helpers.sweep.work import run, units_of

__all__ = [
    "Contestant",
    "Dataset",
    "Faced",
    "Grid",
    "OtherDraws",
    "SweepError",
    "Unit",
    "costs",
    "plan",
    "run",
    "units_of",
]
