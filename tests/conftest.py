"""For all tests."""

import os

import torch

# The tensors of tests are small: a second thread costs more in waiting than it gives, above all on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
torch.set_num_threads(1)
