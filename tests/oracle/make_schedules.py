"""Writes tests/engine/schedules.json: the rates that DeepSpeed's own schedulers give to updates 1 to 40.

    make_schedules.py [folder of an unpacked deepspeed source distribution]       without it: the installed package

Only runtime/lr_schedules.py is loaded, with a stand-in for its logger: importing the whole package needs a compiler and a device.
It is driven as DeepSpeedEngine does it: optimizer, then scheduler; every update is optimizer.step(), then scheduler.step().
"""
import importlib.metadata
import importlib.util
import json
import logging
import pathlib
import sys
import types

import torch

UPDATES = 40
BASE = {"lr": 2e-3, "betas": (0.7, 0.95)}    # none of DeepSpeed's defaults, so that one taken by mistake shows
CASES = [
    ("LRRangeTest", {}),
    ("LRRangeTest", {"lr_range_test_min_lr": 1e-4, "lr_range_test_step_size": 7, "lr_range_test_step_rate": 2.5}),
    ("LRRangeTest", {"lr_range_test_min_lr": 1e-4, "lr_range_test_step_size": 7, "lr_range_test_staircase": True}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 10}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 9, "cycle_second_step_size": 6, "decay_lr_rate": 0.3,
                  "decay_step_size": 4, "decay_mom_rate": 0.05, "cycle_min_mom": 0.75, "cycle_max_mom": 0.92}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 9, "decay_lr_rate": 0.3, "decay_step_size": 4}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 9, "decay_mom_rate": 0.3, "decay_step_size": 4}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 9, "decay_lr_rate": 0.3, "decay_mom_rate": 0.3}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 12, "cycle_second_step_size": 8,
                  "cycle_first_stair_count": 4, "cycle_second_stair_count": 2}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 12, "cycle_second_step_size": 7,
                  "cycle_first_stair_count": 5}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 12, "cycle_second_step_size": 0,
                  "cycle_second_stair_count": 3}),
    ("OneCycle", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-2, "cycle_first_step_size": 10, "cycle_momentum": False}),
    ("WarmupLR", {}),
    ("WarmupLR", {"warmup_num_steps": 10}),
    ("WarmupLR", {"warmup_num_steps": 10, "warmup_type": "linear"}),
    ("WarmupLR", {"warmup_num_steps": 1, "warmup_min_lr": 1e-4}),
    ("WarmupLR", {"warmup_num_steps": 8, "warmup_min_lr": 1e-4, "warmup_max_lr": 3e-3, "warmup_type": "linear"}),
    ("WarmupDecayLR", {"total_num_steps": 30}),
    ("WarmupDecayLR", {"total_num_steps": 30, "warmup_num_steps": 10}),
    ("WarmupDecayLR", {"total_num_steps": 30, "warmup_num_steps": 10, "warmup_max_lr": None, "warmup_min_lr": 1e-4}),
    ("WarmupDecayLR", {"total_num_steps": 25, "warmup_num_steps": 6, "warmup_max_lr": 5e-3, "warmup_type": "linear"}),
    ("WarmupDecayLR", {"total_num_steps": 4, "warmup_num_steps": 9, "warmup_type": "linear"}),
    ("WarmupCosineLR", {"total_num_steps": 30}),
    ("WarmupCosineLR", {"total_num_steps": 30, "warmup_num_steps": 10}),
    ("WarmupCosineLR", {"total_num_steps": 30, "warmup_num_steps": 10, "warmup_min_ratio": 0.2, "cos_min_ratio": 0.1,
                        "warmup_type": "linear"}),
    ("WarmupCosineLR", {"total_num_steps": 20, "warmup_num_steps": 1, "cos_min_ratio": 0.0}),
    ("WarmupCosineLR", {"total_num_steps": 5, "warmup_num_steps": 9, "warmup_type": "linear"}),
]


def lr_schedules():
    """The module and the version it is of."""
    if len(sys.argv) > 1:
        root = pathlib.Path(sys.argv[1])
        version = (root / "version.txt").read_text().strip()
        package = root / "deepspeed"
    else:
        version = importlib.metadata.version("deepspeed")
        package = pathlib.Path(importlib.util.find_spec("deepspeed").origin).parent
    sys.modules["deepspeed"] = types.ModuleType("deepspeed")
    sys.modules["deepspeed.utils"] = types.ModuleType("deepspeed.utils")
    sys.modules["deepspeed.utils"].logger = logging.getLogger("deepspeed")
    logging.disable(logging.WARNING)
    spec = importlib.util.spec_from_file_location("lr_schedules", package / "runtime" / "lr_schedules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, version


def rates(module, kind, params):
    """[lr, beta1, beta2] that the optimizer holds when update 1, 2, ... is made."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], **BASE)
    scheduler = getattr(module, kind)(optimizer, **params)
    used = []
    for _ in range(UPDATES):
        group = optimizer.param_groups[0]
        used.append([group["lr"], *group["betas"]])
        parameter.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
    return used


def main():
    module, version = lr_schedules()
    rows = [{"scheduler": {"type": kind, "params": params}, "rates": rates(module, kind, params)} for kind, params in CASES]
    text = json.dumps({"made_by": "tests/oracle/make_schedules.py", "deepspeed": version,
                       "optimizer": {"lr": BASE["lr"], "betas": BASE["betas"]}, "columns": ["lr", "beta1", "beta2"]}, indent=1)[:-2]
    cases = ",\n".join("  " + json.dumps(row) for row in rows)
    (pathlib.Path(__file__).parent.parent / "engine" / "schedules.json").write_text(f'{text},\n "cases": [\n{cases}\n ]\n}}\n')


main()
