"""Fuzzing of every reader of foreign files: see ``run.py``. Its processes use one thread each and no network."""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
